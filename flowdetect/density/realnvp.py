"""RealNVP: couplings with checkerboard and channel masks, at several scales; NICE and LCMA as settings of it.

Dinh et al., "Density estimation using Real NVP" (2017), https://arxiv.org/abs/1605.08803
Dinh et al., "NICE: Non-linear Independent Components Estimation" (2015), https://arxiv.org/abs/1410.8516
Das et al., "Likelihood Contribution based Multi-scale Architecture for Generative Flows" (2019),
https://arxiv.org/abs/1908.01686
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from flowdetect.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    BatchNorm,
    Bijection,
    Chain,
    MultiScale,
    Permute,
    Reorder,
    Spline,
    SplineCoupling,
    Squeeze,
    Whiten,
)
from flowdetect.density import factorization
from flowdetect.density.copula import copula_is_likelier, thinned, whitening
from flowdetect.density.flow import BIN_CENTRE, FlowDensity, FlowModel, count_levels
from flowdetect.nets import Constant, ResidualNet

N_SPLINE_BINS = 8
ROWS_AT_ONCE = 1024  # of which contributions are kept in memory
AUTO_BATCH, AUTO_TABLE_BATCH = 64, 256


@dataclass(kw_only=True, eq=False, repr=False)
class RealNVPDensity(FlowDensity):
    r"""Density by RealNVP: couplings, each of which maps one half of the values by what it computes from the other.

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f(x)

    On images the halves are checkerboards, then rows of 2x2 blocks, at several scales; after each level but the last,
    half of the dimensions leave as they are. Which ones, can be learned from the data (`factorization`). On tables the
    halves of the columns change from coupling to coupling, the networks are perceptrons, and a fixed matrix at the end
    takes out the correlations (with shrinkage, where rows are few), so that training starts at a Gaussian or a Gaussian
    copula. For data in bins, scores are lower bounds of the discrete data's log-probability, by uniform dequantisation;
    for real values they are exact.

    Parameters
    ----------
    n_levels : "auto" or int, default "auto"
        Levels of the multi-scale architecture, each halving height and width; both must be even that often. "auto": as
        many as they allow, 3 at most; 1 for tables.
    n_steps : int, default 2
        Pairs of couplings with either mask in a level; of a table, pairs of couplings. A pair maps every value once.
    hidden_channels : int, default 64
        Width of the residual networks inside the couplings.
    n_blocks : int, default 2
        Their residual blocks, of two weight-normalised layers each.
    coupling : "auto", "affine", "additive" or "spline", default "auto"
        "spline": rational-quadratic splines of 8 bins (Durkan et al. 2019), on tables after a spline of every column by
        itself; one column has that alone. "auto": "spline" on tables, "affine" on images.
    scale : "sigmoid" or "exp", default "exp"
        How an affine coupling's scale is made: s = sigmoid(b + 2) in (0.27, 0.993) or s = exp(b) in (0.05, 20.1), with
        b bounded in (-3, 3).
    normalization : "batch", "activation" or "none", default "batch"
        What follows each coupling on images: batch normalisation, whose running averages serve for scores, or
        activation normalisation as in Glow. Without effect on tables.
    factorization : "standard", "likelihood", "likelihood_reversed" or "random", default "standard"
        Which half of the dimensions leaves at each level: one colour of a checkerboard; of each channel's 2x2 block the
        two that contribute least to the likelihood (LCMA), or most; or a random half. A contribution is the mean over
        the rows given to fit of the log-scales of a dimension's couplings so far, in a flow that factors nothing out
        and has no normalisation, which could undo what couplings do to one colour of the checkerboard.
    pretraining : float in (0, 1), default 0.25
        Share of max_epochs that the flow which measures the contributions is trained for; the rest is the density's.
    n_draws : int, default 1
        Draws of the dequantisation noise over which a score is averaged.
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed map that values pass first, part of the flow and of its log-determinant. "gaussianize", for data in
        bins and for tables: each channel's or column's distribution over the training data is made about normal.
        "logit", for data in bins: logit(0.05 + 0.9 x / n_bins), as in the paper. "linear": bins are mapped to about
        [-0.5, 0.5], real values are standardised. "auto": "gaussianize" in bins, but "linear" for a constant-volume
        flow; of real-valued tables, that which makes the likelier start of training, half of the rows under the other
        half, but "linear" unless 0.25 nats a row are gained.
    batch_size : "auto" or int, default "auto"
        "auto": 64 images, or 256 rows of a table.
    learning_rate : float, default 2e-3
    n_iter_no_change : int, default 30

    All other parameters are those of `BaseDensity`: image_shape, n_bins, conditional; max_epochs, weight_decay,
    early_stopping, validation_fraction, tol, warm_start, verbose, random_state; device, precision, n_devices,
    checkpoint. A pre-training has a checkpoint of its own, whose name ends in ".pretraining".

    Attributes
    ----------
    factored_dims_ : (H, W, C) int array
        The level 1 .. L at which each dimension of an image leaves; of a table all 1.
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    value_counts_ : (C, n_bins) array, how often each value occurs in each channel; of preprocessing="gaussianize"
    knots_ : (2, D, K) array, where the lines of each column meet, before and after; of tables, likewise
    whitening_ : (D, D) array, the matrix at the end of a table's flow
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the columns that are constant and not modelled
    latent_slices_ : list of slices, columns of the latents that belong to each level, level 1 first
    history_ : dict of lists, one value an epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool

    Notes
    -----
    NICE is RealNVPDensity(coupling="additive", normalization="none", n_levels=1): volume-preserving couplings, and a
    diagonal scaling at the end.

    Ctrl-C within a pre-training leaves the flow that factors nothing out, as far as it is trained.

    References
    ----------
    Density estimation using Real NVP (Dinh et al.), 2017, https://arxiv.org/abs/1605.08803
    Likelihood Contribution based Multi-scale Architecture for Generative Flows (Das et al.), 2019,
    https://arxiv.org/abs/1908.01686
    Neural Spline Flows (Durkan et al.), 2019, https://arxiv.org/abs/1906.04032

    Examples
    --------
    >>> from flowdetect import RealNVPDensity, load_images
    >>> X, _ = load_images("digits")
    >>> density = RealNVPDensity(n_bins=17, n_steps=1, hidden_channels=8, factorization="likelihood", max_epochs=2)
    >>> density.fit(X[:200]).factored_dims_.shape
    (8, 8, 1)
    >>> density.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    n_levels: int | str = "auto"
    n_steps: int = 2
    hidden_channels: int = 64
    n_blocks: int = 2
    coupling: str = "auto"
    scale: str = "exp"
    normalization: str = "batch"
    factorization: str = "standard"
    pretraining: float = 0.25
    batch_size: int | str = "auto"
    learning_rate: float = 2e-3
    n_iter_no_change: int = 30
    factored_dims_: NDArray[np.int64] = field(init=False)
    seed_: int = field(init=False)

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FlowDensity._parameter_constraints,
        "n_levels": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "hidden_channels": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 0, None, closed="left")],
        "coupling": [StrOptions({"auto", "affine", "additive", "spline"})],
        "scale": [StrOptions({"sigmoid", "exp"})],
        "normalization": [StrOptions({"batch", "activation", "none"})],
        "factorization": [StrOptions({"standard", "likelihood", "likelihood_reversed", "random"})],
        "pretraining": [Interval(Real, 0, 1, closed="neither")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    }

    def _rows_a_step(self) -> int:
        if self.batch_size != "auto":
            return int(self.batch_size)
        return AUTO_TABLE_BATCH if self.image_shape_ is None else AUTO_BATCH

    # ---- what leaves where

    @property
    def _pretrains(self) -> bool:
        return self.factorization.startswith("likelihood")

    def _epochs(self, total: int) -> int:
        return max(1, total - self._pretraining_epochs(total)) if self._pretrains else total

    def _pretraining_epochs(self, total: int) -> int:
        return max(1, round(self.pretraining * total))

    def _prepare(
        self, rows: NDArray[Any], codes: NDArray[np.int64] | None, found: dict[str, NDArray[Any]] | None
    ) -> None:
        """Decide at which level each dimension leaves: `factored_dims_`."""
        channels, height, width = self._event_shape()
        shape = height, width, channels
        is_table = self.image_shape_ is None
        n_levels = count_levels(self.n_levels, self._event_shape(), is_table, type(self).__name__)
        self._check_factorization(n_levels)
        if found is not None:
            self.factored_dims_ = found["model/factored_dims"].copy()
        elif self.warm_start and "model_" in self.__dict__:
            return
        elif self.factorization == "standard":
            self.factored_dims_ = factorization.factor(shape, n_levels, factorization.checkerboard)
        elif self.factorization == "random":
            rng = np.random.default_rng(self.seed_)
            self.factored_dims_ = factorization.factor(shape, n_levels, factorization.random_half(rng))
        else:
            contributions = self._pretrain(rows, codes, np.full(shape, n_levels))
            choice = factorization.largest_contributions(contributions, self.factorization == "likelihood_reversed")
            self.factored_dims_ = factorization.factor(shape, n_levels, choice)

    def _check_factorization(self, n_levels: int) -> None:
        if self.factorization == "standard":
            return
        if n_levels == 1:
            raise ValueError(
                f'RealNVPDensity: factorization="{self.factorization}" chooses what leaves a level early, and there is '
                f'one level only; pass "standard", or images whose height and width can be halved twice.'
            )
        if self._pretrains and self.coupling == "additive":
            raise ValueError(
                f'RealNVPDensity: factorization="{self.factorization}" ranks dimensions by the scales of their '
                f'couplings, and additive ones have none; pass coupling="affine" or factorization="standard".'
            )

    def _pretrain(
        self, rows: NDArray[Any], codes: NDArray[np.int64] | None, factored_dims: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Train a flow that factors nothing out early, and give each dimension's mean contribution: (L, H, W, C)."""
        from flowdetect.density._training import fit_model

        first = Pretraining(**self.get_params(deep=False))
        others = {*self.get_params(deep=False), "model_"}
        learned = {name: value for name, value in self.__dict__.items() if name not in others}
        first.__dict__.update({**learned, "factored_dims_": factored_dims})
        if self.checkpoint is not None:
            first.checkpoint = os.fspath(self.checkpoint) + ".pretraining"
        try:
            fit_model(first, rows, codes, self.seed_)
        except BaseException:
            if "model_" in first.__dict__:  # as good as what there is
                names = "model_", "history_", "n_iter_", "seed_", "noise_seed_", "device_", "factored_dims_"
                self.__dict__.update({name: first.__dict__[name] for name in names})
            raise
        self.seed_ = first.seed_
        return first.contributions(rows)

    @property
    def _factors_nothing_out(self) -> bool:
        """Whether this is the flow that a pre-training measures."""
        return self._pretrains and self.factored_dims_.min() == self.factored_dims_.max()

    # ---- the network

    def _learn_rescaling(self, rows: NDArray[Any]) -> None:
        super()._learn_rescaling(rows)
        if self.image_shape_ is None:
            some = thinned(rows) if self.n_bins_ is None else thinned(rows) + BIN_CENTRE
            self.whitening_ = whitening(some, self._preprocess(self._event_shape()).double())

    def _bends(self, rows: NDArray[np.float64]) -> bool:
        return not self._has_constant_volume and copula_is_likelier(rows)

    def _build(self, event_shape: tuple[int, int, int]) -> FlowModel:
        model = self._flow_model(event_shape, self._multi_scale(event_shape))
        model.register_buffer("factored_dims", torch.from_numpy(np.array(self.factored_dims_)))
        return model

    @property
    def _has_constant_volume(self) -> bool:
        return self.coupling == "additive"

    def _multi_scale(self, event_shape: tuple[int, int, int]) -> MultiScale:
        channels, height, width = event_shape
        if self.image_shape_ is None:  # 1x1, nothing to squeeze
            return MultiScale([Chain(self._table_steps(channels))], [], [event_shape])
        if self._factors_nothing_out:
            n_levels = int(self.factored_dims_.max())
            steps = [Chain(self._image_steps(4**level * channels)) for level in range(n_levels)]
            blocks = 4**n_levels
            return MultiScale([Chain(steps)], [], [(blocks * channels, height >> n_levels, width >> n_levels)])
        levels, latent_shapes = [], []
        for order in factorization.orders(self.factored_dims_):
            levels.append(Chain([*self._image_steps(channels), Reorder(order)]))
            channels, height, width = 2 * channels, height // 2, width // 2
            latent_shapes.append((channels, height, width))
        levels.append(Chain(self._image_steps(channels)))
        latent_shapes.append((4 * channels, height // 2, width // 2))
        return MultiScale(levels, [], latent_shapes)

    def _image_steps(self, channels: int) -> list[Bijection]:
        """Build the steps of one level: squeeze, couplings with checkerboard masks, couplings with masks of rows.

        Once squeezed, either mask is a half of the channels. In order: pixels 0 1 | 2 3 of each block in Squeeze's
        order; those of the checkerboard are 0 3 | 1 2. After its couplings each channel is back at its place.
        """
        squeezed = np.arange(4 * channels)
        checkerboard = np.argsort(np.isin(squeezed % 4, (1, 2)), kind="stable")
        half_rows = np.argsort(squeezed % 4 >= 2, kind="stable")
        back = np.argsort(checkerboard)
        return [
            Squeeze(),
            Permute(4 * channels, order=checkerboard.tolist()),
            *self._couplings(4 * channels, kernel_size=3),
            Permute(4 * channels, order=back[half_rows].tolist()),
            *self._couplings(4 * channels, kernel_size=3),
            Permute(4 * channels, order=np.argsort(half_rows).tolist()),
        ]

    def _table_steps(self, channels: int) -> list[Bijection]:
        """Build a spline of each column, couplings, and the matrix that takes out correlations."""
        steps: list[Bijection] = []
        if self._coupling_kind == "spline":
            steps.append(Spline(Constant((3 * N_SPLINE_BINS - 1) * channels, 1, 1), N_SPLINE_BINS))
        if channels > 1:
            steps += self._couplings(channels, kernel_size=1)
            n_rolled = 2 * self.n_steps * (channels // 2)
            steps.append(Permute(channels, order=np.roll(np.arange(channels), -n_rolled).tolist()))
        return [*steps, Whiten(torch.from_numpy(self.whitening_.astype(np.float32)))]

    def _couplings(self, channels: int, kernel_size: int) -> list[Bijection]:
        """Build pairs of couplings; each is followed by a normalisation and by rolling the channels, half of them.

        What a pre-training measures has no normalisation: with one scale a channel, which is one place of each 2x2
        block, couplings could put any part there, where it would not be counted.
        """
        kind = "none" if self.image_shape_ is None or self._factors_nothing_out else self.normalization
        makers: dict[str, list[Callable[[int], Bijection]]] = {
            "batch": [BatchNorm],
            "activation": [ActNorm],
            "none": [],
        }
        steps: list[Bijection] = []
        roll = np.roll(np.arange(channels), channels // 2).tolist()
        for _ in range(2 * self.n_steps):
            steps.append(self._coupling(channels, kernel_size))
            steps += [make(channels) for make in makers[kind]]
            steps.append(Permute(channels, order=roll))
        return steps

    @property
    def _coupling_kind(self) -> str:
        if self.coupling == "auto":
            return "spline" if self.image_shape_ is None else "affine"
        return self.coupling

    def _coupling(self, channels: int, kernel_size: int) -> Bijection:
        kept, changed, kind = channels - channels // 2, channels // 2, self._coupling_kind
        per_value = {"affine": 2, "additive": 1, "spline": 3 * N_SPLINE_BINS - 1}[kind]
        net = ResidualNet(kept, self.hidden_channels, per_value * changed, self.n_blocks, kernel_size)
        if kind == "affine":
            return AffineCoupling(net, self.scale)
        return AdditiveCoupling(net) if kind == "additive" else SplineCoupling(net, N_SPLINE_BINS)


class Pretraining(RealNVPDensity):
    """The same flow with nothing factored out, trained for a share of the epochs to see what each dimension adds."""

    def _epochs(self, total: int) -> int:
        return self._pretraining_epochs(total)

    def _prepare(
        self, rows: NDArray[Any], codes: NDArray[np.int64] | None, found: dict[str, NDArray[Any]] | None
    ) -> None:
        """Leave `factored_dims_` as it is."""

    def contributions(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Log-scales of each dimension, summed over the couplings up to each level, mean over rows: (L, H, W, C)."""
        model = self.model_
        levels: list[Any] = [level.bijections for level in model.flow.levels[0].bijections]
        n_levels, shape = len(levels), self.factored_dims_.shape

        def one_chunk(x: Any, u: Any) -> list[Tensor]:
            y = model.preprocess(model.dequantize(self._to_tensor(x), self._to_noise(u)))[0]
            found = factorization.coupling_contributions(levels, y)  # (n, L, C, H, W)
            return [found.permute(0, 1, 3, 4, 2).flatten(1)]

        total = np.zeros(n_levels * self.factored_dims_.size)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            total += self._in_chunks(one_chunk, part, self._noises(part)[0])[0].sum(0)
        return total.reshape(n_levels, *shape) / len(rows)

"""RealNVP: couplings with checkerboard and channel masks, at several scales; NICE and LCMA as settings of it.

Dinh et al., "Density estimation using Real NVP" (2017), https://arxiv.org/abs/1605.08803
Dinh et al., "NICE: Non-linear Independent Components Estimation" (2015), https://arxiv.org/abs/1410.8516
Das et al., "Likelihood Contribution based Multi-scale Architecture for Generative Flows" (2019),
https://arxiv.org/abs/1908.01686
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from flowdetect._sources import RowSource, sample_rows
from flowdetect.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    BatchNorm,
    Bijection,
    Chain,
    Layer,
    MultiScale,
    Permute,
    Spline,
    SplineCoupling,
    Squeeze,
    Whiten,
)
from flowdetect.bijections.dequantize import BIN_CENTRE
from flowdetect.density import factorization
from flowdetect.density.factored_flow import FactoringDensity
from flowdetect.density.flow import FlowModel
from flowdetect.density.preprocessing import MOST_ROWS, whitening
from flowdetect.density.spec import DataSpec
from flowdetect.nets import Constant, ResidualNet

N_SPLINE_BINS = 8


def residual_net(
    n_in: int, n_out: int, hidden_channels: int, n_blocks: int, kernel_size: int, batch_norm: bool
) -> ResidualNet:
    """Build the network inside a coupling."""
    return ResidualNet(n_in, hidden_channels, n_out, n_blocks, kernel_size, batch_norm=batch_norm)


class MaskedImageNet(nn.Module):
    """Compute a coupling's parameters for half of the squeezed channels from the image with zeros in their places.

    Dinh et al. 2017, "Density estimation using Real NVP", eq. 9: s(b * x) and t(b * x), b a checkerboard.

    Parameters
    ----------
    net : module, (n, C, H, W) -> (n, k C, H, W)
    order : (4 C,) integer array
        Channels of `Squeeze`, those that stay unchanged first.
    values_first : bool
        Whether the k parameters of a value are adjacent, as in `SplineCoupling`.
    """

    def __init__(self, net: nn.Module, order: NDArray[np.intp], values_first: bool = False) -> None:
        super().__init__()
        self.net, self.squeeze, self.values_first = net, Squeeze(), values_first
        self.place = np.argsort(order).tolist()
        self.changed = order[len(order) // 2 :].tolist()

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, 2 C, H / 2, W / 2) -> (n, k 2 C, H / 2, W / 2)."""
        squeezed = torch.cat([x, torch.zeros_like(x)], 1)[:, self.place]
        image = self.squeeze.inverse(squeezed)
        numbers = self.net(image, context)
        each = torch.unflatten(self.squeeze(numbers)[0], 1, (-1, squeezed.shape[1]))  # (n, k, 4 C, ...)
        found = each[:, :, self.changed]
        return (found.transpose(1, 2) if self.values_first else found).flatten(1, 2)


@dataclass(kw_only=True, eq=False, repr=False)
class RealNVPDensity(FactoringDensity):
    r"""Density by RealNVP: couplings, each of which maps one half of the values, given the other half.

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f(x)

    Use it for tables of many columns; on images, `GlowDensity` reaches fewer bits/dim after equal training time. A
    score takes one pass through the flow, and so does a sample. For data in bins, dequantisation makes scores lower
    bounds of the discrete data's log-probability; for real values they are exact. See Notes for the architecture.

    Parameters
    ----------
    n_levels : "auto" or int, default "auto"
        Levels of the multi-scale architecture. Each halves height and width, so both must be divisible by 2**n_levels.
        "auto": as many as the images allow, at most 3; 1 for tables.
    n_steps : int, default 2
        Pairs of couplings per level with each kind of mask; for tables, pairs of couplings. A pair maps every value
        once.
    hidden_channels : int, default 64
        Width of the residual networks inside the couplings.
    n_blocks : int, default 2
        Residual blocks per network, each of two weight-normalised layers.
    coupling : "auto", "affine", "additive" or "spline", default "auto"
        "spline": rational-quadratic splines of 8 bins (Durkan et al. 2019); on tables a spline of each single column
        comes first; a table of one column has only that. "auto": "spline" on tables, "affine" on images.
    scale : "sigmoid" or "exp", default "exp"
        Scale of an affine coupling: s = sigmoid(b + 2), in (0.27, 0.993), or s = exp(b), in (0.05, 20.1), where the
        network's output b is bounded to (-3, 3).
    normalization : "batch", "activation" or "none", default "batch"
        The layer after each coupling on images: batch normalisation, which uses running averages when it scores, or
        activation normalisation as in Glow. No effect on tables.
    net_normalization : "none" or "batch", default "none"
        The layer before each ReLU of the residual networks of images; the paper has "batch".
    masking : "squeezed" or "image", default "squeezed"
        Input of the networks of couplings with checkerboard masks. "squeezed": the unchanged half, squeezed to channels
        at half the height and width. "image", as in the paper: the image with zeros in place of the changed half, at
        four times the cost.
    last_level : "both" or "checkerboard", default "both"
        Masks of the last level. "both": as on the other levels. "checkerboard", as in the paper: checkerboards only,
        and half as many couplings.
    decayed : "all" or "scales", default "all"
        The parameters that `weight_decay` acts on: all, or, as in the paper, the norms of weight-normalised weights.
    factorization : "standard", "likelihood", "likelihood_reversed" or "random", default "standard"
        Which half of an image's dimensions leaves at each level. "standard": one colour of a checkerboard.
        "likelihood": in each channel's 2x2 block, the two dimensions that contribute least to the likelihood (LCMA);
        "likelihood_reversed": the two that contribute most. "random": a random half. A dimension's contribution is the
        sum of its log-scales in all couplings up to that level, averaged over the rows given to `fit`. It is measured
        in a flow that factors nothing out and has no normalisation, since a normalisation could undo what the couplings
        do to one colour of the checkerboard.
    pretraining : float in (0, 1), default 0.25
        Share of max_epochs and of time_limit spent on training the flow that measures the contributions; the rest goes
        to the density itself. That flow has a checkpoint of its own, whose name ends in ".pretraining".
    n_draws : int, default 1
        Draws of the dequantisation noise per score. More than one gives the importance-weighted bound, which is
        tighter.
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed first map of the flow; its log-determinant is part of the score. "gaussianize", for data in bins and
        for tables: makes the training distribution of each channel or column roughly normal. "logit", for data in bins:
        logit(low + (high - low) x / n_bins). "linear": maps bins to about [-0.5, 0.5] and standardises real values.
        "auto", for data in bins: "gaussianize", but "linear" if rows are too few for it. "auto", for real-valued
        tables: "gaussianize" if, fitted to half of the rows, it gains 0.25 nats per row on the other half; else
        "linear". A constant-volume flow (coupling="additive") always gets "linear".
    logit_range : (low, high), default (0.05, 0.95)
        Limits for preprocessing="logit". The default follows the authors' code; the paper's text has (0.05, 1). See
        `FlowDensity`.
    dequantization : "uniform" or "variational", default "uniform"
        The noise added to data in bins: uniform, or drawn from a distribution that is learned with the density, which
        gives a tighter bound (Ho et al. 2019, Flow++); see `FlowDensity`.
    memory_efficient : bool, default False
        True: training recomputes activations in the backward pass instead of storing them. Memory then hardly grows
        with depth, and training takes about 1.4 times as long; see `FlowDensity`.
    batch_size : "auto" or int, default "auto"
    learning_rate : float, default 2e-3
    n_iter_no_change : int, default 30

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    factored_dims_ : (H, W, C) int array
        The level, 1 to L, at which each dimension of an image leaves; all 1 for a table.
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    value_counts_ : (C, n_bins) array, how often each value occurs in each channel; for preprocessing "gaussianize"
    knots_ : (2, D, K) array, knots of each column's piecewise linear map; for preprocessing "gaussianize" on tables
    whitening_ : (D, D) array, the matrix at the end of a table's flow
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    latent_slices_ : list of slices, columns of the latents that belong to each level, level 1 first
    history_ : dict of lists, one value per epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool

    Notes
    -----
    On images the halves are first the colours of a checkerboard, then the rows of each 2x2 block, at several scales.
    After each level but the last, half of the dimensions leave unchanged; `factorization` can learn which half. On
    tables the halves of the columns change from coupling to coupling, the networks are perceptrons, and a fixed matrix
    at the end removes the correlations (with shrinkage if rows are few). Training on a table therefore starts from a
    Gaussian or a Gaussian copula; if no epoch gives the held-out rows a higher likelihood, as on a Gaussian table,
    `fit` keeps that start.

    NICE is RealNVPDensity(coupling="additive", normalization="none", n_levels=1): volume-preserving couplings, and a
    diagonal scaling at the end.

    If Ctrl-C interrupts the pre-training, the estimator keeps its partly trained flow, which factors nothing out.

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
    net_normalization: str = "none"
    masking: str = "squeezed"
    last_level: str = "both"
    decayed: str = "all"
    batch_size: int | str = "auto"
    learning_rate: float = 2e-3
    n_iter_no_change: int = 30
    _table_start: ClassVar[str] = "likelier"
    _standard_choice = factorization.checkerboard

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FactoringDensity._parameter_constraints,
        "n_levels": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "hidden_channels": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 0, None, closed="left")],
        "coupling": [StrOptions({"auto", "affine", "additive", "spline"})],
        "scale": [StrOptions({"sigmoid", "exp"})],
        "normalization": [StrOptions({"batch", "activation", "none"})],
        "net_normalization": [StrOptions({"none", "batch"})],
        "masking": [StrOptions({"squeezed", "image"})],
        "last_level": [StrOptions({"both", "checkerboard"})],
        "decayed": [StrOptions({"all", "scales"})],
    }

    def _learn(self, spec: DataSpec, source: RowSource) -> dict[str, NDArray[Any]]:
        learned = super()._learn(spec, source)
        if spec.is_table:
            rows = sample_rows(source, MOST_ROWS)
            rows = spec.standardized(rows) if spec.n_bins is None else rows + BIN_CENTRE
            first = self._first_layer(replace(spec, learned=learned)).double()
            learned["whitening"] = whitening(rows, first)
        return learned

    @property
    def whitening_(self) -> NDArray[np.float64]:
        """The matrix at the end of a table's flow: (D, D)."""
        return self._learned("whitening")

    # ---- the network

    @property
    def _has_constant_volume(self) -> bool:
        return self.coupling == "additive"

    def _multi_scale(self, spec: DataSpec) -> MultiScale:
        channels, height, width = spec.event_shape
        if spec.is_table:  # 1x1, nothing to squeeze
            return MultiScale([Chain(self._table_steps(spec))], [], [spec.event_shape])
        return self._factored_scale(spec)

    def _build(self, spec: DataSpec) -> FlowModel:
        model = super()._build(spec)
        if self.decayed == "scales":
            model.decayed = (".g",)
        return model

    def _level(self, channels: int, is_measured: bool, is_last: bool) -> Sequence[Layer]:
        only_checkerboards = is_last and self.last_level == "checkerboard"
        return self._image_steps(channels, "none" if is_measured else self.normalization, only_checkerboards)

    def _image_steps(self, channels: int, normalization: str, only_checkerboards: bool) -> list[Bijection]:
        """Build the steps of one level: squeeze, couplings with checkerboard masks, couplings with row masks.

        After `Squeeze`, each mask is one half of the channels. With the pixels of a 2x2 block numbered in Squeeze's
        order, the row masks are 0 1 | 2 3 and the checkerboard masks 0 3 | 1 2. After its couplings each channel is
        back at its place.
        """
        squeezed = np.arange(4 * channels)
        checkerboard = np.argsort(np.isin(squeezed % 4, (1, 2)), kind="stable")
        half_rows = np.argsort(squeezed % 4 >= 2, kind="stable")
        back = np.argsort(checkerboard)
        steps = [
            Squeeze(),
            Permute(4 * channels, order=checkerboard.tolist()),
            *self._couplings(4 * channels, "affine", 3, normalization, checkerboard),
        ]
        if only_checkerboards:
            return [*steps, Permute(4 * channels, order=back.tolist())]
        return [
            *steps,
            Permute(4 * channels, order=back[half_rows].tolist()),
            *self._couplings(4 * channels, "affine", 3, normalization),
            Permute(4 * channels, order=np.argsort(half_rows).tolist()),
        ]

    def _table_steps(self, spec: DataSpec) -> list[Bijection]:
        """Build a spline of each column, the couplings, and the matrix that removes correlations."""
        channels = spec.event_shape[0]
        steps: list[Bijection] = []
        if self.coupling in ("auto", "spline"):
            steps.append(Spline(Constant((3 * N_SPLINE_BINS - 1) * channels, 1, 1), N_SPLINE_BINS))
        if channels > 1:
            steps += self._couplings(channels, "spline", 1, "none")
            n_rolled = 2 * self.n_steps * (channels // 2)
            steps.append(Permute(channels, order=np.roll(np.arange(channels), -n_rolled).tolist()))
        return [*steps, Whiten(torch.from_numpy(spec.learned["whitening"].astype(np.float32)))]

    def _couplings(
        self,
        channels: int,
        auto: str,
        kernel_size: int,
        normalization: str,
        checkerboard: NDArray[np.intp] | None = None,
    ) -> list[Bijection]:
        """Build pairs of couplings; a normalisation and a roll by half of the channels follow each coupling.

        A pre-training has no normalisation. A normalisation has one scale per channel, that is per place in each 2x2
        block; it could take over scales of the couplings, which are what the pre-training measures. `auto` is the kind
        of coupling for coupling="auto". `checkerboard` is the order of Squeeze's channels under a checkerboard mask,
        None under row masks.
        """
        kind = auto if self.coupling == "auto" else self.coupling
        makers: dict[str, list[Callable[[int], Bijection]]] = {
            "batch": [BatchNorm],
            "activation": [ActNorm],
            "none": [],
        }
        steps: list[Bijection] = []
        roll = np.roll(np.arange(channels), channels // 2).tolist()
        for i in range(2 * self.n_steps):
            order = None if checkerboard is None else np.roll(checkerboard, i % 2 * (channels // 2))
            steps.append(self._coupling(channels, kind, kernel_size, order))
            steps += [make(channels) for make in makers[normalization]]
            steps.append(Permute(channels, order=roll))
        return steps

    def _coupling(self, channels: int, kind: str, kernel_size: int, checkerboard: NDArray[np.intp] | None) -> Bijection:
        kept, changed = channels - channels // 2, channels // 2
        per_value = {"affine": 2, "additive": 1, "spline": 3 * N_SPLINE_BINS - 1}[kind]
        batch_norm = self.net_normalization == "batch" and kernel_size > 1
        sizes = self.hidden_channels, self.n_blocks, kernel_size, batch_norm
        net: nn.Module
        if checkerboard is not None and self.masking == "image":
            inner = residual_net(channels // 4, per_value * channels // 4, *sizes)
            net = MaskedImageNet(inner, checkerboard, values_first=kind == "spline")
        else:
            net = residual_net(kept, per_value * changed, *sizes)
        if kind == "affine":
            return AffineCoupling(net, self.scale)
        return AdditiveCoupling(net) if kind == "additive" else SplineCoupling(net, N_SPLINE_BINS)

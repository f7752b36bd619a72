"""Glow: activation normalisation, invertible 1x1 convolution and affine coupling, at several scales.

Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions" (2018), https://arxiv.org/abs/1807.03039
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions
from torch import Generator, Tensor

from flowdetect.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Chain,
    Layer,
    MultiScale,
    NormalizedConv1x1,
    Permute,
    Squeeze,
    Standardize,
)
from flowdetect.density.factored_flow import FactoringDensity
from flowdetect.density.flow import count_levels
from flowdetect.density.spec import DataSpec
from flowdetect.nets import ConvNet


class InPlace(Chain):
    """A chain after which every channel is back at its place: the permutations among its layers are undone."""

    @property
    def _permutations(self) -> list[Permute]:
        return [layer for layer in self.bijections if isinstance(layer, Permute)]

    def _back(self, z: Tensor) -> Tensor:
        for permutation in reversed(self._permutations):
            z = permutation.inverse(z)
        return z

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = super().forward(x, context, noise)
        return self._back(z), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        for permutation in self._permutations:
            z = permutation(z)[0]
        return super().inverse(z, context, generator)

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return self._back(super().initialize(x, context, noise))


@dataclass(kw_only=True, eq=False, repr=False)
class GlowDensity(FactoringDensity):
    r"""Density by Glow, a flow of invertible 1x1 convolutions and couplings at several scales.

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f(x)

    For data in bins (images of whole numbers), scores are lower bounds of the discrete data's log-probability, by
    dequantisation; for real values they are exact. A table is treated as a 1x1 image with a channel per column, so that
    the same flow serves, with perceptrons as its networks; on one column it is a Gaussian. It is made for images of
    which latents, interpolation or many samples are wanted: a score takes one pass, and so does a sample. After equal
    training time `PixelCNNDensity` has fewer bits/dim.

    Parameters
    ----------
    n_levels : "auto" or int, default "auto"
        Levels of the multi-scale architecture, each halving height and width; both must be even that often. "auto": as
        many as they allow, 3 at most; 1 for tables.
    n_steps : int, default 8
        Steps of flow a level.
    hidden_channels : int, default 128
        Width of the networks inside the couplings.
    coupling : "affine" or "additive", default "affine"
    permutation : "conv1x1", "shuffle" or "reverse", default "conv1x1"
        What mixes the channels in each step.
    scale : "sigmoid" or "exp", default "sigmoid"
        How a coupling's scale is made: s = sigmoid(b + 2) in (0.27, 0.993) or s = exp(b) in (0.05, 20.1), with b
        bounded in (-3, 3).
    split_prior : "learned" or "standard", default "learned"
        Whether what leaves a level is standardised by a network of what stays. "standard" with additive coupling is the
        constant-volume flow: its log-determinant is the same for all x, but for -log q(u | x) of variational noise.
    factorization : "standard", "likelihood", "likelihood_reversed" or "random", default "standard"
        Which half of the dimensions leaves at each level of an image: the first channels after the level's steps; of
        each channel's 2x2 block the two that contribute least to the likelihood (LCMA), or most; or a random half. A
        contribution is the mean over the rows given to fit of the log-scales of a dimension's activation normalisations
        and couplings so far, in a flow that factors nothing out. 1x1 convolutions mix dimensions, so that none of them
        leaves or contributes by itself (LCMA's section 4 says so too): all but "standard" need another `permutation`.
        With "reverse", an even `n_steps` maps all dimensions equally often.
    pretraining : float in (0, 1), default 0.25
        Share of max_epochs and of time_limit that the flow which measures the contributions is trained for; the rest is
        the density's.
    n_draws : int, default 1
        Draws of the dequantisation noise that a score is made of; more than one: the importance-weighted bound.
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed map that values pass first, part of the flow and of its log-determinant. "gaussianize", for data in
        bins and for tables: each channel's or column's distribution over the training data is made about normal.
        "logit", for data in bins: logit(low + (high - low) x / n_bins). "linear": bins are mapped to about [-0.5, 0.5],
        real values are standardised. "auto": "gaussianize" in bins, but "linear" where rows are too few for it and for
        the constant-volume flow.
    logit_range : (low, high), default (0.05, 0.95)
        Of preprocessing="logit"; see `FlowDensity`.
    dequantization : "uniform" or "variational", default "uniform"
        Noise of data in bins: uniform, or drawn from a distribution that is learned with the density, which makes the
        bound tighter (Ho et al. 2019, Flow++); see `FlowDensity`.
    memory_efficient : bool, default False
        Whether training computes in its backward pass again what it would else keep, so that memory hardly grows with
        depth, at about 1.4 times the time; see `FlowDensity`.

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    factored_dims_ : (H, W, C) int array
        The level 1 .. L at which each dimension of an image leaves; unless `factorization` is "standard".
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    value_counts_ : (C, n_bins) array, how often the training data take each value; where they are gaussianized
    knots_ : (2, D, K) array, where the lines of each column of a table meet, before and after; likewise
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the columns that are constant and not modelled
    latent_slices_ : list of slices, the latents' columns of each level, level 1 first
    history_ : dict of lists, one value an epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool

    References
    ----------
    Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal), 2018,
    https://arxiv.org/abs/1807.03039
    Likelihood Contribution based Multi-scale Architecture for Generative Flows (Das et al.), 2019,
    https://arxiv.org/abs/1908.01686

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import GlowDensity
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> density = GlowDensity(n_steps=2, hidden_channels=8, max_epochs=2, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(5, random_state=0).shape
    (5, 2)
    """

    n_levels: int | str = "auto"
    n_steps: int = 8
    hidden_channels: int = 128
    coupling: str = "affine"
    permutation: str = "conv1x1"
    scale: str = "sigmoid"
    split_prior: str = "learned"

    chunk_values: ClassVar[int] = 2**17  # more than others', as little but thin tensors is kept of a value

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FactoringDensity._parameter_constraints,
        "n_levels": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "hidden_channels": [Interval(Integral, 1, None, closed="left")],
        "coupling": [StrOptions({"affine", "additive"})],
        "permutation": [StrOptions({"conv1x1", "shuffle", "reverse"})],
        "scale": [StrOptions({"sigmoid", "exp"})],
        "split_prior": [StrOptions({"learned", "standard"})],
    }

    @property
    def _has_constant_volume(self) -> bool:
        return self.coupling == "additive" and self.split_prior == "standard"

    def _check_factorization(self, n_levels: int) -> None:
        super()._check_factorization(n_levels)
        if self.factorization != "standard" and self.permutation == "conv1x1":
            raise ValueError(
                f'GlowDensity: factorization="{self.factorization}" chooses which dimensions of an image leave, and '
                f'1x1 convolutions mix them, so that none leaves by itself; pass permutation="reverse" or "shuffle", '
                f'or factorization="standard".'
            )

    def _multi_scale(self, spec: DataSpec) -> MultiScale:
        if "factored_dims" in spec.learned:
            return self._factored_scale(spec)
        channels, height, width = spec.event_shape
        n_levels = count_levels(self.n_levels, spec.event_shape, spec.is_table, type(self).__name__)
        if spec.is_table:  # 1x1, nothing to squeeze
            return MultiScale([Chain(self._steps(channels, kernel_size=1))], [], [spec.event_shape])
        levels, standardizers, latent_shapes = [], [], []
        for level in range(1, n_levels + 1):
            channels, height, width = 4 * channels, height // 2, width // 2
            levels.append(Chain([Squeeze(), *self._steps(channels, kernel_size=3)]))
            if level == n_levels:
                latent_shapes.append((channels, height, width))
                break
            leave, channels = channels // 2, channels - channels // 2
            latent_shapes.append((leave, height, width))
            standardizer = self._standardizer(channels, leave)
            standardizers += [] if standardizer is None else [standardizer]
        return MultiScale(levels, standardizers, latent_shapes)

    def _level(self, channels: int, is_measured: bool, is_last: bool) -> Sequence[Layer]:
        steps = self._steps(4 * channels, kernel_size=3)
        return [Squeeze(), *steps] if is_measured else [Squeeze(), InPlace(steps)]

    def _standardizer(self, stay: int, leave: int) -> Bijection | None:
        if self.split_prior == "standard":
            return None
        return Standardize(ConvNet(stay, self.hidden_channels, 2 * leave))

    def _steps(self, channels: int, kernel_size: int) -> list[Bijection]:
        """Build the steps of one level: normalise, mix the channels, couple; one channel has nothing to couple with."""
        if channels == 1:
            return [ActNorm(1)]
        steps: list[Bijection] = []
        for _ in range(self.n_steps):
            if self.permutation == "conv1x1":
                steps.append(NormalizedConv1x1(channels))
            else:
                steps += [ActNorm(channels), Permute(channels, self.permutation)]
            steps.append(self._coupling(channels, kernel_size))
        return steps

    def _coupling(self, channels: int, kernel_size: int) -> Bijection:
        kept, changed = channels - channels // 2, channels // 2
        if self.coupling == "additive":
            return AdditiveCoupling(ConvNet(kept, self.hidden_channels, changed, kernel_size))
        return AffineCoupling(ConvNet(kept, self.hidden_channels, 2 * changed, kernel_size), self.scale)

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
    """A chain that undoes the permutations among its layers, so that every channel ends at its own place."""

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

    Use it for images if you need latents, interpolation or many samples: a score takes one pass through the flow, and
    so does a sample. After equal training time, `PixelCNNDensity` reaches fewer bits/dim. For data in bins (images of
    whole numbers), dequantisation makes scores lower bounds of the discrete data's log-probability; for real values
    they are exact. The flow treats a table as a 1x1 image with one channel per column, and its networks are then
    perceptrons; a table of one column gets a Gaussian.

    Parameters
    ----------
    n_levels : "auto" or int, default "auto"
        Levels of the multi-scale architecture. Each halves height and width, so both must be divisible by 2**n_levels.
        "auto": as many as the images allow, at most 3; 1 for tables.
    n_steps : int, default 8
        Steps of flow per level.
    hidden_channels : int, default 128
        Width of the networks inside the couplings.
    coupling : "affine" or "additive", default "affine"
    permutation : "conv1x1", "shuffle" or "reverse", default "conv1x1"
        The layer that mixes the channels in each step.
    scale : "sigmoid" or "exp", default "sigmoid"
        Scale of a coupling: s = sigmoid(b + 2), in (0.27, 0.993), or s = exp(b), in (0.05, 20.1), where the network's
        output b is bounded to (-3, 3).
    split_prior : "learned" or "standard", default "learned"
        "learned": a network of the dimensions that stay gives mean and scale of those that leave a level. "standard":
        they leave as they are. With coupling="additive" and preprocessing "auto" or "linear", "standard" gives the
        constant-volume flow, whose log-determinant is the same for all x, except for the -log q(u | x) of variational
        noise.
    factorization : "standard", "likelihood", "likelihood_reversed" or "random", default "standard"
        Which half of an image's dimensions leaves at each level. "standard": the first channels after the level's
        steps. "likelihood": in each channel's 2x2 block, the two dimensions that contribute least to the likelihood
        (LCMA); "likelihood_reversed": the two that contribute most. "random": a random half. A dimension's contribution
        is the sum of its log-scales in all activation normalisations and couplings up to that level, averaged over the
        rows given to `fit`, in a flow that factors nothing out. 1x1 convolutions mix dimensions, so that no dimension
        has a contribution of its own (LCMA, section 4); all choices but "standard" therefore need another
        `permutation`. With "reverse", an even `n_steps` maps all dimensions equally often.
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
        "auto": "gaussianize" in bins, but "linear" if rows are too few for it; "linear" for real values and for the
        constant-volume flow.
    logit_range : (low, high), default (0.05, 0.95)
        Limits for preprocessing="logit"; see `FlowDensity`.
    dequantization : "uniform" or "variational", default "uniform"
        The noise added to data in bins: uniform, or drawn from a distribution that is learned with the density, which
        gives a tighter bound (Ho et al. 2019, Flow++); see `FlowDensity`.
    memory_efficient : bool, default False
        True: training recomputes activations in the backward pass instead of storing them. Memory then hardly grows
        with depth, and training takes about 1.4 times as long; see `FlowDensity`.

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    factored_dims_ : (H, W, C) int array
        The level, 1 to L, at which each dimension of an image leaves; unless `factorization` is "standard".
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    value_counts_ : (C, n_bins) array, how often each value occurs in each channel; for preprocessing "gaussianize"
    knots_ : (2, D, K) array, knots of each column's piecewise linear map; for preprocessing "gaussianize" on tables
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    latent_slices_ : list of slices, columns of the latents that belong to each level, level 1 first
    history_ : dict of lists, one value per epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
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

    chunk_values: ClassVar[int] = 2**17  # more than elsewhere: it keeps few and thin tensors per value

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
                f'GlowDensity: factorization="{self.factorization}" chooses which dimensions of an image leave, but '
                '1x1 convolutions mix the dimensions; pass permutation="reverse" or "shuffle", or '
                'factorization="standard".'
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
        """Build the steps of one level: normalise, mix the channels, couple. A single channel is normalised only."""
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

"""Glow: activation normalisation, invertible 1x1 convolution and affine coupling, at several scales.

Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions" (2018), https://arxiv.org/abs/1807.03039
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from flowdetect.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Chain,
    MultiScale,
    NormalizedConv1x1,
    Permute,
    Squeeze,
    Standardize,
)
from flowdetect.density.flow import FlowDensity, FlowModel, count_levels
from flowdetect.density.spec import DataSpec
from flowdetect.nets import ConvNet


@dataclass(kw_only=True, eq=False, repr=False)
class GlowDensity(FlowDensity):
    r"""Density by Glow, a flow of invertible 1x1 convolutions and couplings at several scales.

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f(x)

    For data in bins (images of whole numbers), scores are lower bounds of the discrete data's log-probability, by
    dequantisation; for real values they are exact. A table is treated as a 1x1 image with a channel per column,
    so that the same flow serves, with perceptrons as its networks; on one column it is a Gaussian.

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
    n_draws : int, default 1
        Draws of the dequantisation noise that a score is made of; more than one: the importance-weighted bound.
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed map that values pass first, part of the flow and of its log-determinant. "gaussianize", for data in
        bins and for tables: each channel's or column's distribution over the training data is made about normal.
        "logit", for data in bins: logit(0.05 + 0.9 x / n_bins). "linear": bins are mapped to about [-0.5, 0.5], real
        values are standardised. "auto": "gaussianize" in bins, but "linear" where rows are too few for it and for the
        constant-volume flow.
    dequantization : "uniform" or "variational", default "uniform"
        Noise of data in bins: uniform, or drawn from a distribution that is learned with the density, which makes the
        bound tighter (Ho et al. 2019, Flow++); see `FlowDensity`.

    All other parameters are those of `BaseDensity`: image_shape, n_bins, conditional; max_epochs, time_limit,
    batch_size, learning_rate, weight_decay, early_stopping, validation_fraction, n_iter_no_change, tol, warm_start,
    verbose, random_state; device, precision, n_devices, checkpoint.

    Attributes
    ----------
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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FlowDensity._parameter_constraints,
        "n_levels": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "hidden_channels": [Interval(Integral, 1, None, closed="left")],
        "coupling": [StrOptions({"affine", "additive"})],
        "permutation": [StrOptions({"conv1x1", "shuffle", "reverse"})],
        "scale": [StrOptions({"sigmoid", "exp"})],
        "split_prior": [StrOptions({"learned", "standard"})],
    }

    def _build(self, spec: DataSpec) -> FlowModel:
        return self._flow_model(spec, self._multi_scale(spec))

    @property
    def _has_constant_volume(self) -> bool:
        return self.coupling == "additive" and self.split_prior == "standard"

    def _multi_scale(self, spec: DataSpec) -> MultiScale:
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
            if self.split_prior == "learned":
                standardizers.append(Standardize(ConvNet(channels, self.hidden_channels, 2 * leave)))
        return MultiScale(levels, standardizers, latent_shapes)

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

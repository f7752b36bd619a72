"""TarFlow: a sequence of autoregressive transformers over the patches of an image, in alternating directions.

Zhai et al., "Normalizing Flows are Capable Generative Models" (2024), https://arxiv.org/abs/2412.06329
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Generator, Tensor

from flowdetect._limits import short
from flowdetect.bijections import Bijection, Chain, MultiScale
from flowdetect.bijections.base import sum_except_batch
from flowdetect.bijections.elementwise import exp_log_scale
from flowdetect.bijections.spline import spline, spline_inverse
from flowdetect.density.flow import FlowDensity, FlowModel
from flowdetect.density.spec import DataSpec
from flowdetect.nets.transformer import CausalTransformer

FEWEST_PATCHES = 16  # lower limit for patch_size="auto"
LARGEST_AUTO_PATCH = 4
SPLINE_BINS = 8
UNITS = 16  # hidden units per value in the masked perceptron within a patch


class PatchAutoregressive(Bijection):
    r"""z_i = (x_i + t_i) s_i for every patch x_i; a causal transformer computes (t_i, s_i) from the patches before it.

    log|det| is the sum of log s, s = exp(b) in (0.050, 20.1). With `n_spline_bins`, a monotone rational-quadratic
    spline on [-5, 5] follows; the transformer also computes its parameters, and its log-slopes add to the sum. The
    inverse maps one patch after the other, with a cache of the keys and values of earlier patches; its only error is
    rounding.

    Parameters
    ----------
    event_shape : (C, H, W)
    patch : (ph, pw) or None
        Height and width of a patch; they must divide H and W. Patches are in raster order. None: each channel of a 1x1
        image (each column of a table) is a patch of one value.
    width, n_blocks, n_heads, n_units, n_context : see `CausalTransformer`
    is_reversed : bool
        Whether the sequence runs from the last value of the last patch to the first value of the first patch.
    n_spline_bins : int
        Bins of the spline; 0: no spline.
    """

    inverse_tolerance = 1e-9

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        patch: tuple[int, int] | None,
        width: int,
        n_blocks: int,
        n_heads: int,
        is_reversed: bool = False,
        n_units: int = 0,
        n_spline_bins: int = 0,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        self.event_shape, self.patch, self.is_reversed = event_shape, patch, is_reversed
        n_tokens, n_values = sequence_shape(event_shape, patch)
        self.n_spline_bins = n_spline_bins
        self.n_numbers = 2 + (3 * n_spline_bins - 1 if n_spline_bins else 0)
        self.net = CausalTransformer(n_tokens, n_values, width, self.n_numbers, n_blocks, n_heads, n_units, n_context)

    # ---- images to sequences of patches

    def to_sequence(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, T, ph * pw * C), in the order in which patches depend on each other."""
        n, c, h, w = x.shape
        if self.patch is None:
            patches = x.reshape(n, c, 1)
        else:
            ph, pw = self.patch
            patches = x.reshape(n, c, h // ph, ph, w // pw, pw).permute(0, 2, 4, 3, 5, 1)
            patches = patches.reshape(n, (h // ph) * (w // pw), ph * pw * c)
        return patches.flip(1, 2) if self.is_reversed else patches

    def from_sequence(self, u: Tensor) -> Tensor:
        """(n, T, ph * pw * C) -> (n, C, H, W)."""
        c, h, w = self.event_shape
        u = u.flip(1, 2) if self.is_reversed else u
        if self.patch is None:
            return u.reshape(u.shape[0], c, h, w)
        ph, pw = self.patch
        patches = u.reshape(u.shape[0], h // ph, w // pw, ph, pw, c).permute(0, 5, 1, 3, 2, 4)
        return patches.reshape(u.shape[0], c, h, w)

    # ---- in both directions

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = self.to_sequence(x)
        h = self._by_number(self.net(u, context))
        log_slope = exp_log_scale(h[1])
        v = (u + h[0]) * log_slope.exp()
        if self.n_spline_bins:
            v, term = spline(v, h[2:], self.n_spline_bins, numbers_first=True)
            log_slope = log_slope + term
        return self.from_sequence(v), sum_except_batch(log_slope)

    def _by_number(self, numbers: Tensor) -> Tensor:
        """(n, T, n_numbers * n_values) -> (n_numbers, n, T, n_values)."""
        return torch.unflatten(numbers, 2, (self.n_numbers, -1)).permute(2, 0, 1, 3).contiguous()

    def _unmap(self, v: Tensor, numbers: Tensor) -> Tensor:
        h = self._by_number(numbers)
        if self.n_spline_bins:
            v = spline_inverse(v, h[2:], self.n_spline_bins, numbers_first=True)
        return v * (-exp_log_scale(h[1])).exp() - h[0]

    @torch.no_grad()
    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        v = self.to_sequence(z)
        u, started = torch.empty_like(v), self.net.start(len(v), context)
        before = None
        for i in range(v.shape[1]):
            features = self.net.step(before, i, started)
            before = u[:, i : i + 1] = self._token(v[:, i : i + 1], features)
        return self.from_sequence(u)

    def _token(self, v: Tensor, features: Tensor) -> Tensor:
        """Invert one token (n, 1, n_values), value by value if values of a patch depend on each other."""
        u = torch.zeros_like(v)
        if self.net.in_order is None:
            return self._unmap(v, self.net.numbers(features, u))
        for i in range(v.shape[2]):
            own = self.net.numbers(features, u)[..., i :: v.shape[2]]  # parameters of value i
            u[..., i : i + 1] = self._unmap(v[..., i : i + 1], own)
        return u


def sequence_shape(event_shape: tuple[int, int, int], patch: tuple[int, int] | None) -> tuple[int, int]:
    """Return the number of patches and the number of values per patch."""
    c, h, w = event_shape
    if patch is None:
        return c, 1
    return (h // patch[0]) * (w // patch[1]), patch[0] * patch[1] * c


@dataclass(kw_only=True, eq=False, repr=False)
class TarFlowDensity(FlowDensity):
    r"""Density by TarFlow: autoregressive flows by transformers over the patches of an image.

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f(x)

    with f a sequence of flows :math:`z_i = (x_i - \mu(x_1 .. x_{i-1})) \exp(-\alpha(x_1 .. x_{i-1}))`, where x_i is the
    i-th patch and exp(-alpha) lies in (0.050, 20.1); every second flow runs through the patches from last to first. Use
    it for images and long trainings, where it had the fewest bits/dim of the flows here. A score takes one pass of each
    transformer; a sample takes one step of each transformer per patch, with a cache of earlier results. Scores are
    exact for real values; for data in bins, dequantisation makes them lower bounds of the discrete data's
    log-probability. Label embeddings are added to every patch in every flow. For tables, each column is a patch of one
    value; a table of one column gets a Gaussian after `preprocessing`.

    Parameters
    ----------
    patch_size : "auto" or int, default "auto"
        Height and width of a patch; must divide height and width of the images. "auto": the largest of 4, 3 and 2 that
        gives at least 16 patches, else 1. Smaller patches are more flexible and cost more. For tables: "auto" or 1.
    n_flows : int, default 2
        Number of flows, in alternating directions.
    n_layers : int, default 4
        Blocks of each flow's transformer, each of attention and a perceptron.
    hidden_channels : int, default 128
        Width of the transformers; must be a multiple of n_heads.
    n_heads : int, default 2
        Attention heads.
    within_patch : "autoregressive" or "independent", default "autoregressive"
        "independent", as in the paper: mu and alpha of a patch's values depend only on earlier patches.
        "autoregressive": they also depend on earlier values in the same patch, through a masked perceptron after the
        transformer. Small models are then more flexible, and samples take one step per value.
    univariate : "affine" or "spline", default "spline"
        The map of a value in the first flow, the one next to the data. "affine", as in the paper. "spline": an affine
        map and then a rational-quadratic spline of 8 bins on [-5, 5] (Durkan et al. 2019), so that one flow can fit
        conditional distributions that are skewed, bounded or multimodal.
    n_draws : int, default 1
        Draws of the dequantisation noise per score. More than one gives the importance-weighted bound, which is
        tighter.
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed first map of the flow; its log-determinant is part of the score. See `FlowDensity`.
    logit_range : (low, high), default (0.05, 0.95)
        Limits for preprocessing="logit"; see `FlowDensity`.
    dequantization : "uniform" or "variational", default "uniform"
        The noise added to data in bins: uniform, or drawn from a distribution that is learned with the density, which
        gives a tighter bound (Ho et al. 2019, Flow++); see `FlowDensity`.
    memory_efficient : bool, default False
        True: training recomputes activations in the backward pass instead of storing them. Memory then hardly grows
        with depth, and training takes about 1.4 times as long; see `FlowDensity`.
    batch_size : "auto" or int, default "auto"
    learning_rate : float, default 2e-3

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    value_counts_ : (C, n_bins) array, how often the training rows take each value; where they are gaussianized
    knots_ : (2, D, K) array, where the lines of each column of a table meet, before and after; likewise
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    latent_slices_ : list of one slice
    history_ : dict of lists, one value per epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool

    Notes
    -----
    For better samples the paper trains on images with added Gaussian noise. That is a density of noisy images, whose
    bits/dim are not comparable. Here the transformers' perceptrons have squared rectifiers. Each transformer block
    normalises before each of its parts; at the start of training every block is the identity.

    References
    ----------
    Normalizing Flows are Capable Generative Models (Zhai et al.), 2024, https://arxiv.org/abs/2412.06329
    Neural Spline Flows (Durkan et al.), 2019, https://arxiv.org/abs/1906.04032

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import TarFlowDensity
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> density = TarFlowDensity(n_flows=2, hidden_channels=8, max_epochs=2, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(5, random_state=0).shape
    (5, 3)
    """

    patch_size: int | str = "auto"
    n_flows: int = 2
    n_layers: int = 4
    hidden_channels: int = 128
    n_heads: int = 2
    within_patch: str = "autoregressive"
    univariate: str = "spline"
    batch_size: int | str = "auto"
    learning_rate: float = 2e-3

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FlowDensity._parameter_constraints,
        "patch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_flows": [Interval(Integral, 1, None, closed="left")],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "hidden_channels": [Interval(Integral, 1, None, closed="left")],
        "univariate": [StrOptions({"affine", "spline"})],
        "within_patch": [StrOptions({"independent", "autoregressive"})],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
    }

    def _build(self, spec: DataSpec) -> FlowModel:
        if self.hidden_channels % self.n_heads:
            raise ValueError(
                f"TarFlowDensity: hidden_channels must be a multiple of n_heads, got hidden_channels="
                f"{self.hidden_channels} and n_heads={self.n_heads}; pass e.g. hidden_channels="
                f"{self.hidden_channels - self.hidden_channels % self.n_heads + self.n_heads}."
            )
        patch = patch_of(self.patch_size, spec)
        has_order = sequence_shape(spec.event_shape, patch)[0] > 1  # else one value, which the top models
        flows = [
            PatchAutoregressive(
                spec.event_shape,
                patch,
                self.hidden_channels,
                self.n_layers,
                self.n_heads,
                is_reversed=i % 2 == 1,
                n_units=UNITS if self.within_patch == "autoregressive" else 0,
                n_spline_bins=SPLINE_BINS if self.univariate == "spline" and i == 0 else 0,
                n_context=spec.n_context,
            )
            for i in range(self.n_flows if has_order else 0)
        ]
        flow = MultiScale([Chain(flows)], [], [spec.event_shape])
        return self._flow_model(spec, flow, context_enters="flow")


def patch_of(patch_size: int | str, spec: DataSpec) -> tuple[int, int] | None:
    """Return height and width of a patch; None for tables and images of one pixel: each channel is a patch."""
    if spec.is_table and patch_size not in ("auto", 1):
        raise ValueError(
            f"TarFlowDensity treats each column of a table as a patch of one value, got patch_size={patch_size!r}; "
            "pass "
            f'"auto" or 1, or image_shape if the rows are images.'
        )
    _, height, width = spec.event_shape
    if height == width == 1 and patch_size in ("auto", 1):
        return None
    if isinstance(patch_size, str):
        for size in range(LARGEST_AUTO_PATCH, 1, -1):
            fits = height % size == 0 and width % size == 0
            if fits and (height // size) * (width // size) >= FEWEST_PATCHES:
                return size, size
        return 1, 1
    if height % patch_size or width % patch_size or height == width == patch_size:
        raise ValueError(
            "TarFlowDensity: patch_size must divide height and width and give at least 2 patches, got patch_size="
            f'{short(patch_size)} for images of {height}x{width}; pass "auto" or another common divisor, or pad the '
            f"images."
        )
    return patch_size, patch_size

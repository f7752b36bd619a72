"""TarFlow: autoregressive transformers over the patches of an image, one after the other, in alternating directions.

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

FEWEST_PATCHES = 16  # that patch_size="auto" leaves
LARGEST_AUTO_PATCH = 4
SPLINE_BINS = 8
UNITS = 16  # hidden units of each value that looks at those before it in its patch


class PatchAutoregressive(Bijection):
    r"""z_i = (x_i + t_i) s_i of every patch x_i, with (t_i, s_i) by a causal transformer from the patches before it.

    log|det| is the plain sum of log s, s = exp(b) in (0.050, 20.1). With `n_spline_bins`, a monotone
    rational-quadratic spline on [-5, 5], whose numbers come from the transformer too, follows, and its log-slopes join
    the sum. The inverse maps one patch after the other, with a cache of the keys and values of the patches before it;
    it has no other error than that of rounding.

    Parameters
    ----------
    event_shape : (C, H, W)
    patch : (ph, pw) or None
        Height and width of a patch, which divide H and W; the sequence is in raster order. None: each channel of a 1x1
        image, that is each column of a table, is a patch of one value.
    width, n_blocks, n_heads, n_units, n_context : see `CausalTransformer`
    is_reversed : bool
        Whether the sequence runs from the last value of the last patch to the first of the first.
    n_spline_bins : int
        0: none.
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

    # ---- patches in their order

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
        """Map one token (n, 1, n_values) back, one value after the other where they depend on each other."""
        u = torch.zeros_like(v)
        if self.net.in_order is None:
            return self._unmap(v, self.net.numbers(features, u))
        for i in range(v.shape[2]):
            own = self.net.numbers(features, u)[..., i :: v.shape[2]]  # of value i
            u[..., i : i + 1] = self._unmap(v[..., i : i + 1], own)
        return u


def sequence_shape(event_shape: tuple[int, int, int], patch: tuple[int, int] | None) -> tuple[int, int]:
    """Give how many patches there are, and how many values each has."""
    c, h, w = event_shape
    if patch is None:
        return c, 1
    return (h // patch[0]) * (w // patch[1]), patch[0] * patch[1] * c


@dataclass(kw_only=True, eq=False, repr=False)
class TarFlowDensity(FlowDensity):
    r"""Density by transformers over the patches of an image, each an autoregressive flow (TarFlow).

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f(x)

    with f a sequence of flows, :math:`z_i = (x_i - \mu(x_1 .. x_{i-1})) \exp(-\alpha(x_1 .. x_{i-1}))` each, x_i the
    i-th patch, exp(-alpha) in (0.050, 20.1); every other flow runs through the patches from last to first. A score
    takes one pass of each transformer; a sample takes a step of each for every patch, with a cache of what was computed
    before. Scores are exact for real values; for data in bins they are lower bounds of the discrete data's
    log-probability, by dequantisation. Labels are added to every patch of every flow. Of a table each column is
    a patch of one value; a single column is fitted by a Gaussian, after `preprocessing`. It is for images and long
    trainings, where it had the fewest bits/dim of the flows here.

    Parameters
    ----------
    patch_size : "auto" or int, default "auto"
        Height and width of a patch, which divide the image's. "auto": the largest of 4, 3 and 2 that leaves 16 patches
        or more, else 1. Smaller patches fit more and cost more. Of a table: "auto" or 1.
    n_flows : int, default 2
        Flows, one after the other, in alternating directions.
    n_layers : int, default 4
        Blocks of attention and perceptron of each flow's transformer.
    hidden_channels : int, default 128
        Width of the transformers; a multiple of n_heads.
    n_heads : int, default 2
        Heads of attention.
    within_patch : "autoregressive" or "independent", default "autoregressive"
        "independent": mu and alpha of a patch's values depend on the patches before it alone, as in the paper.
        "autoregressive": on the values before in the same patch as well, by a masked perceptron after the transformer,
        so that small models fit more; samples take a step for every value.
    univariate : "affine" or "spline", default "spline"
        What maps a value in the first flow, the one next to the data. "affine": as in the paper. "spline": an affine
        map and then a rational-quadratic spline of 8 bins on [-5, 5] (Durkan et al. 2019), so that one flow fits
        values that are, given those before them, skewed, bounded or of several modes.
    n_draws : int, default 1
        Draws of the dequantisation noise that a score is made of; more than one: the importance-weighted bound.
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed map that values pass first, part of the flow and of its log-determinant; see `FlowDensity`.
    logit_range : (low, high), default (0.05, 0.95)
        Of preprocessing="logit"; see `FlowDensity`.
    dequantization : "uniform" or "variational", default "uniform"
        Noise of data in bins: uniform, or drawn from a distribution that is learned with the density, which makes the
        bound tighter (Ho et al. 2019, Flow++); see `FlowDensity`.
    memory_efficient : bool, default False
        Whether training computes in its backward pass again what it would else keep, so that memory hardly grows with
        depth, at about 1.4 times the time; see `FlowDensity`.
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
    constant_features_ : indices of the columns that are constant and not modelled
    latent_slices_ : list of one slice
    history_ : dict of lists, one value an epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool

    Notes
    -----
    The paper trains on images with Gaussian noise added, for its samples; such a density is one of noisy images, and
    its bits/dim do not compare. Here a patch's perceptrons have squared rectifiers, and transformers normalise before
    each part and start as the identity.

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
        has_order = sequence_shape(spec.event_shape, patch)[0] > 1  # else there is one value, and the top does all
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
    """Give height and width of a patch; None for a table, or for images of one pixel: each channel is a patch."""
    if spec.is_table and patch_size not in ("auto", 1):
        raise ValueError(
            f"TarFlowDensity takes each column of a table as a patch of one value, got patch_size={patch_size!r}; pass "
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
            f"TarFlowDensity: patch_size must divide height and width and leave at least 2 patches, got patch_size="
            f'{short(patch_size)} for images of {height}x{width}; pass "auto" or another common divisor, or pad the '
            f"images."
        )
    return patch_size, patch_size

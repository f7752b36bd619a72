"""Flow++: couplings with mixtures of logistic distributions, self-attention, and learned dequantisation noise.

Ho et al., "Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture Design"
(2019), https://arxiv.org/abs/1902.00275
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from flowdetect._limits import is_count
from flowdetect.bijections import ActNorm, Bijection, Chain, Coupling, MultiScale, NormalizedConv1x1, Permute, Squeeze
from flowdetect.bijections.elementwise import exp_log_scale
from flowdetect.bijections.root import bracketed_root
from flowdetect.density._parameters import DEEPEST
from flowdetect.density.flow import FlowDensity, FlowModel, count_levels
from flowdetect.density.spec import DataSpec
from flowdetect.nets.gated import GatedAttentionNet

LEAST_SLOPE = 0.02  # of a mixture coupling's map
SPREAD = 0.5  # spread of the components' initial locations, in quantiles of the logistic distribution
PER_COMPONENT = 3  # parameters: weight, location, log-scale


class MixtureCoupling(Coupling):
    r"""z_a = (logit F(x_a) + 0.02 x_a + t) s, F a mixture of K logistic distributions; z_b = x_b.

    .. math:: F(x) = \sum_k \pi_k \sigma((x - \mu_k) / s_k)

    A network of x_b gives t, s, pi, mu and s_k of each value (Ho et al. 2019, section 3.2). The term 0.02 x is not in
    the paper: it keeps the slope of the map away from 0 between components that are far apart. If the network's outputs
    are zero, logit F is roughly the identity. s and s_k lie in (0.05, 20.1). The slope of logit F(x) + 0.02 x is at
    most 0.02 + 1 / min s_k, and so lies in (0.02, 20.2). The inverse is found by bracketing: logit F(x) lies between
    the smallest and the largest of the (x - mu_k) / s_k.

    Parameters
    ----------
    net : module, (n, ceil(c / 2), H, W) -> (n, (2 + 3 K) * floor(c / 2), H, W)
    n_mixtures : int
        K.
    """

    inverse_tolerance = 1e-9
    centres: Tensor

    def __init__(self, net: nn.Module, n_mixtures: int) -> None:
        super().__init__(net)
        self.n_mixtures = n_mixtures
        shares = [(k + 0.5) / n_mixtures for k in range(n_mixtures)]
        # locations differ, since equal components would learn the same; the scale is that of the single logistic
        # distribution whose map is the identity, since with smaller scales each coupling would enlarge far-out values
        centres = [SPREAD * (math.log(share) - math.log1p(-share)) for share in shares]
        at = torch.tensor(centres, dtype=torch.float32)[:, None, None, None]
        self.register_buffer("centres", at, persistent=False)

    def _split(self, h: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """t and log s, (n, c, H, W) each; log pi, mu and log s_k, (n, K, c, H, W) each."""
        sizes = [1, 1, *[self.n_mixtures] * PER_COMPONENT]
        t, raw, log_pi, mu, log_s = torch.split_with_sizes(torch.unflatten(h, 1, (sum(sizes), -1)), sizes, 1)
        mixture = log_pi.log_softmax(1), mu + self.centres, exp_log_scale(log_s)
        return t[:, 0], exp_log_scale(raw[:, 0]), mixture

    def _map(self, x_a: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        t, log_s, mixture = self._split(h)
        y, slope = mixture_logit(x_a, mixture)
        return (y + t) * log_s.exp(), slope.log() + log_s

    def _unmap(self, z_a: Tensor, h: Tensor) -> Tensor:
        t, log_s, mixture = self._split(h)
        y = z_a * (-log_s).exp() - t
        _, mu, log_widths = mixture
        widths = log_widths.exp()
        ends = (y[:, None] * widths + mu) / (1 + LEAST_SLOPE * widths)  # the solutions of (x - mu_k) / s_k + 0.02 x = y
        return bracketed_root(partial(mixture_logit, mixture=mixture), y, ends.amin(1) - 1, ends.amax(1) + 1)


def mixture_logit(x: Tensor, mixture: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return logit F(x) + 0.02 x and its slope, (n, c, H, W) each; log pi, mu and log s_k are (n, K, c, H, W) each."""
    log_pi, mu, log_s = mixture
    u = (x[:, None] - mu) * (-log_s).exp()
    log_below = F.logsigmoid(u)
    log_above = log_below - u  # log sigma(-u)
    log_cdf = (log_pi + log_below).logsumexp(1)
    log_rest = (log_pi + log_above).logsumexp(1)
    log_density = (log_pi + log_below + log_above - log_s).logsumexp(1)
    return log_cdf - log_rest + LEAST_SLOPE * x, (log_density - log_cdf - log_rest).exp() + LEAST_SLOPE


@dataclass(kw_only=True, eq=False, repr=False)
class FlowPPDensity(FlowDensity):
    r"""Density by Flow++, a flow whose couplings are distribution functions of logistic mixtures.

    .. math:: \log p(x) = \log N(z; 0, 1) + \log|\det dz/dx|, \quad z = f(x)

    Use it for images and long trainings; after short trainings on one core `GlowDensity` has fewer bits/dim.
    Checkerboard couplings come first, then channel couplings, then checkerboard couplings again, at half the resolution
    if height and width allow it; no dimension leaves early. The networks are gated convolutions with self-attention
    over all pixels. For data in bins the noise is drawn from a distribution that is learned with the flow, and scores
    are lower bounds of the discrete data's log-probability; for real values they are exact. The flow treats a table as
    a 1x1 image with one channel per column, with perceptrons as networks; a table of one column gets a Gaussian. A
    score takes one pass; a sample inverts each coupling by a numerical search.

    Parameters
    ----------
    n_couplings : tuple of three int, default (4, 2, 3)
        Numbers of checkerboard couplings, channel couplings and coarse checkerboard couplings, as in the paper. A table
        has as many couplings of its columns in all.
    hidden_channels : int, default 32
        Width of the networks inside the couplings.
    n_blocks : int, default 1
        Blocks per network, each of a gated convolution and attention; the paper has 10 on CIFAR-10.
    n_heads : int, default 2
        Attention heads; must divide hidden_channels. 0: no attention.
    n_mixtures : int, default 8
        Components of each mixture.
    dropout : float in [0, 1), default 0.0
        Dropout rate inside the networks in training; the paper has 0.2 on CIFAR-10.
    n_draws : int, default 1
        Draws of the dequantisation noise per score. More than one gives the importance-weighted bound, which is
        tighter.
    preprocessing : "auto", "gaussianize", "logit" or "linear", default "auto"
        The fixed first map of the flow; its log-determinant is part of the score. See `FlowDensity`.
    logit_range : (low, high), default (0.05, 0.95)
        Limits for preprocessing="logit"; see `FlowDensity`.
    dequantization : "auto", "uniform" or "variational", default "auto"
        The noise added to data in bins: uniform, or drawn from a distribution that is learned with the density, which
        gives a tighter bound. "auto": "variational" for data in bins.
    memory_efficient : bool, default False
        True: training recomputes activations in the backward pass instead of storing them. Memory then hardly grows
        with depth, and training takes about 1.4 times as long; see `FlowDensity`.
    batch_size : "auto" or int, default "auto"
    learning_rate : float, default 1e-3

    All other parameters are those of `BaseDensity`.

    Attributes
    ----------
    n_features_in_ : int
    image_shape_ : (H, W, C) or None
    n_bins_ : int or None
    value_counts_ : (C, n_bins) array, how often the training data take each value; where they are gaussianized
    knots_ : (2, D, K) array, where the lines of each column of a table meet, before and after; likewise
    classes_, class_log_prior_ : (K,) arrays, of a conditional density
    constant_features_ : indices of the constant columns, which are not modelled
    latent_slices_ : list of one slice
    history_ : dict of lists, one value per epoch: bits_per_dim, validation_bits_per_dim, skipped_steps, seconds
    n_iter_ : int, epochs trained
    score_is_bound_ : bool

    References
    ----------
    Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture Design (Ho et al.),
    2019, https://arxiv.org/abs/1902.00275

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import FlowPPDensity
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> density = FlowPPDensity(n_couplings=(2, 0, 0), hidden_channels=8, max_epochs=2, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(5, random_state=0).shape
    (5, 2)
    """

    n_couplings: tuple[int, ...] = (4, 2, 3)
    hidden_channels: int = 32
    n_blocks: int = 1
    n_heads: int = 2
    n_mixtures: int = 8
    dropout: float = 0.0
    dequantization: str = "auto"
    batch_size: int | str = "auto"
    learning_rate: float = 1e-3
    _may_change = FlowDensity._may_change | {"dropout"}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **FlowDensity._parameter_constraints,
        "n_couplings": [tuple, list],
        "hidden_channels": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 0, None, closed="left")],
        "n_heads": [Interval(Integral, 0, None, closed="left")],
        "n_mixtures": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "dequantization": [StrOptions({"auto", "uniform", "variational"})],
    }

    @property
    def _dequantization(self) -> str:
        return "variational" if self.dequantization == "auto" else self.dequantization

    def _build(self, spec: DataSpec) -> FlowModel:
        self._check_sizes()
        chain, shape = self._table(spec) if spec.is_table else self._image(spec)
        return self._flow_model(spec, MultiScale([Chain(chain)], [], [shape]))

    def _check_sizes(self) -> None:
        given = self.n_couplings
        if len(given) != 3 or not all(is_count(n, least=0, most=DEEPEST) for n in given) or not any(given):
            raise ValueError(
                f"FlowPPDensity: n_couplings must hold three whole numbers >= 0, not all 0, got {given!r}; the usual "
                f"value is (4, 2, 3), and each may be at most {DEEPEST}."
            )
        if self.n_heads and self.hidden_channels % self.n_heads:
            raise ValueError(
                f"FlowPPDensity: hidden_channels must be a multiple of n_heads, got hidden_channels="
                f"{self.hidden_channels} and n_heads={self.n_heads}; pass e.g. n_heads=1."
            )

    def _table(self, spec: DataSpec) -> tuple[list[Bijection], tuple[int, int, int]]:
        shape = spec.event_shape
        if shape[0] == 1:
            return [ActNorm(1)], shape
        return self._mixed(shape, sum(self.n_couplings)), shape

    def _image(self, spec: DataSpec) -> tuple[list[Bijection], tuple[int, int, int]]:
        n_levels = count_levels("auto", spec.event_shape, spec.is_table, type(self).__name__)
        channels, height, width = spec.event_shape
        fine, across, coarse = self.n_couplings
        shape = 4 * channels, height // 2, width // 2
        steps = [Squeeze(), *self._checkered(shape, fine), *self._mixed(shape, across)]
        if n_levels > 1:
            steps.append(Squeeze())
            shape = 4 * shape[0], shape[1] // 2, shape[2] // 2
        return [*steps, *self._checkered(shape, coarse)], shape

    def _checkered(self, shape: tuple[int, int, int], n: int) -> list[Bijection]:
        """Build couplings between the two colours of a checkerboard; in a squeezed image each is half of the channels.

        In Squeeze's order a 2x2 block has the pixels 0 1 | 2 3; pixels 0 and 3 have the same colour.
        """
        channels = shape[0]
        halves = [[c for c in range(channels) if (c % 4 in (0, 3)) == is_black] for is_black in (True, False)]
        steps: list[Bijection] = [Permute(channels, order=halves[0] + halves[1])] if n else []
        roll = [*range(channels // 2, channels), *range(channels // 2)]
        for _ in range(n):
            steps += [ActNorm(channels), self._coupling(shape), Permute(channels, order=roll)]
        return steps

    def _mixed(self, shape: tuple[int, int, int], n: int) -> list[Bijection]:
        """Build couplings between halves of the channels, each after an invertible 1x1 convolution."""
        steps: list[Bijection] = []
        for _ in range(n):
            steps += [NormalizedConv1x1(shape[0]), self._coupling(shape)]
        return steps

    def _coupling(self, shape: tuple[int, int, int]) -> Bijection:
        channels, height, width = shape
        kept, changed = channels - channels // 2, channels // 2
        n_numbers = (2 + PER_COMPONENT * self.n_mixtures) * changed
        sizes = self.hidden_channels, n_numbers, self.n_blocks, self.n_heads
        return MixtureCoupling(GatedAttentionNet(kept, *sizes, height, width, self.dropout), self.n_mixtures)

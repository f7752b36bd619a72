"""Dequantisation: the layer between data in bins and a density of real values."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Layer, sum_except_batch
from flowdetect.bijections.reshape import Squeeze
from flowdetect.distributions import standard_normal_quantile

BIN_CENTRE = 0.5
FLOAT32_BITS = 24  # bits of a float32's significand


class Dequantize(Layer):
    """What both dequantisations share: z = x + u, and `inverse`, which returns the bin of z.

    Parameters
    ----------
    event_shape : (C, H, W)
    n_bins : int
        At most 2^20.
    """

    is_bound = True

    def __init__(self, event_shape: tuple[int, int, int], n_bins: int) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.n_bins = n_bins
        self.n_noise = math.prod(event_shape)
        # float32 resolves 1 / n_steps below n_bins
        self.n_steps = 2 ** min(16, FLOAT32_BITS - math.ceil(math.log2(n_bins)))

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return z.floor().clamp(0, self.n_bins - 1)


class UniformDequantize(Dequantize):
    """Adds uniform noise to data in bins of width 1: z = x + u, term 0.

    E_u log p(x + u) is a lower bound of log P(x), the log-probability of the discrete data (Theis et al. 2016, "A note
    on the evaluation of generative models", section 3.1). Without noise, u is 1/2, the bin's centre. `inverse` returns
    the bin of z.

    Parameters
    ----------
    event_shape : (C, H, W)
        The noise of a row has the order (H, W, C).
    n_bins : int
        At most 2^20. Noise is rounded down to multiples of 2^-k, so that x + u stays below x + 1 in float32.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import UniformDequantize
    >>> layer = UniformDequantize((1, 1, 2), n_bins=4)
    >>> x = torch.tensor([[[[0.0, 3.0]]]])
    >>> z, term = layer(x)  # without noise: the centres of the bins
    >>> layer.inverse(z)
    tensor([[[[0., 3.]]]])
    """

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if noise is None:
            return x + BIN_CENTRE, x.new_zeros(x.shape[0])
        channels, height, width = self.event_shape
        u = noise.reshape(-1, height, width, channels).permute(0, 3, 1, 2)  # (n, C, H, W)
        return x + (u * self.n_steps).floor() / self.n_steps, x.new_zeros(x.shape[0])


class VariationalDequantize(Dequantize):
    """Adds noise from a learned q(u | x) to data in bins of width 1: z = x + u, term -log q(u | x).

    E_q [log p(x + u) - log q(u | x)] is a lower bound of log P(x), the log-probability of the discrete data. They are
    equal if q is the distribution of p within the bin (Ho et al. 2019, "Flow++", section 3.1). Here u = Phi(v), Phi is
    the standard normal distribution function, and a conditional flow maps standard normal noise e to v:

        -log q(u | x) = (e^2 - v^2) / 2 + log|det dv/de|, summed over the values of a row.

    If the flow is the identity, q is uniform and the term is 0. Without noise, u is 1/2, the bin's centre, and the term
    is -log q at that point; this is one value of the bound, not its mean or maximum over noise. `inverse` returns the
    bin of z.

    Parameters
    ----------
    event_shape : (C, H, W)
        If H and W are even, the flow and the network work on 2x2 blocks, (4 C, H / 2, W / 2).
    n_bins : int
        At most 2^20.
    flow : Bijection, or Chain of them
        e -> v; its context is the features.
    net : module of an image, (n, C, H, W) -> features (n, F, H, W); of 2x2 blocks likewise
        Its input is the layer's context: the rows' values, scaled for a network. Values between the bins need no
        special case: the features, and so q, vary smoothly with x.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Chain, VariationalDequantize
    >>> from flowdetect.nets import ConvNet
    >>> layer = VariationalDequantize((1, 2, 2), 4, flow=Chain([]), net=ConvNet(4, 8, 8))  # an identity: q is uniform
    >>> z, term = layer(torch.zeros(1, 1, 2, 2))
    >>> z.flatten(), term
    (tensor([0.5000, 0.5000, 0.5000, 0.5000]), tensor([0.]))
    """

    def __init__(self, event_shape: tuple[int, int, int], n_bins: int, flow: Layer, net: nn.Module) -> None:
        super().__init__(event_shape, n_bins)
        self.blocks = Squeeze() if has_blocks(event_shape) else None
        self.flow = flow
        self.net = net

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen = x if context is None else context
        seen = seen if self.blocks is None else self.blocks(seen)[0]
        features = self.net(seen)
        if noise is None:
            e = self.flow.inverse(torch.zeros_like(seen), features)
        else:
            e = standard_normal_quantile(noise.to(x.dtype)).reshape(seen.shape)
        v, log_det = self.flow(e, features)
        term = 0.5 * sum_except_batch(e.square() - v.square()) + log_det
        u = torch.special.ndtr(v)
        u = u if self.blocks is None else self.blocks.inverse(u)
        if noise is None:
            u = torch.full_like(u, BIN_CENTRE)  # up to rounding
        return x + u.clamp(0.0, 1 - 1 / self.n_steps), term


def has_blocks(event_shape: tuple[int, int, int]) -> bool:
    """Whether an image (C, H, W) can be cut into blocks of 2x2 pixels."""
    return event_shape[1] % 2 == 0 and event_shape[2] % 2 == 0

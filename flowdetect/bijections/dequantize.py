"""Dequantisation: the layer between data in bins and a density of real values."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Layer, sum_except_batch
from flowdetect.bijections.reshape import Squeeze
from flowdetect.distributions import standard_normal_quantile

BIN_CENTRE = 0.5
FLOAT32_BITS = 24  # of a float32's mantissa


class Dequantize(Layer):
    """What both dequantisations share: z = x + u, and `inverse`, which gives the bin that z lies in.

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
    on the evaluation of generative models", section 3.1). Without noise u is 1/2, the bin's centre. `inverse` gives the
    bin that z lies in.

    Parameters
    ----------
    event_shape : (C, H, W)
        The noise of a row is in the order (H, W, C).
    n_bins : int
        At most 2^20. Noise is rounded down to multiples of 2^-k, so that float32 keeps x + u below x + 1.

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
    """Adds noise to data in bins of width 1 that is drawn from a learned q(u | x): z = x + u, term -log q(u | x).

    E_q [log p(x + u) - log q(u | x)] is a lower bound of log P(x), the log-probability of the discrete data, and
    reaches it where q is p's own distribution within the bin (Ho et al. 2019, "Flow++", section 3.1). Here u = Phi(v),
    with Phi the standard normal distribution function, and v a conditional flow of standard normal noise e:

        -log q(u | x) = (e^2 - v^2) / 2 + log|det dv/de|, summed over the values of a row.

    A flow that is the identity gives the uniform q, term 0. Without noise u is 1/2, the bin's centre, and the term is
    -log q there: an importance-weighted answer too, and not the largest, the mean or any other summary of those with
    noise. `inverse` gives the bin that z lies in.

    Parameters
    ----------
    event_shape : (C, H, W)
        Where H and W are even, the flow and the network work on 2x2 blocks, (4 C, H / 2, W / 2).
    n_bins : int
        At most 2^20.
    flow : Bijection, or Chain of them
        e -> v, whose context are the features.
    net : module of an image, (n, C, H, W) -> features (n, F, H, W); of 2x2 blocks likewise
        It sees the context: the rows' values as a network likes them. Off the grid they are no different: the features
        vary with x smoothly, and q with them.

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
            u = torch.full_like(u, BIN_CENTRE)  # but for rounding
        return x + u.clamp(0.0, 1 - 1 / self.n_steps), term


def has_blocks(event_shape: tuple[int, int, int]) -> bool:
    """Whether an image (C, H, W) can be cut into blocks of 2x2 pixels."""
    return event_shape[1] % 2 == 0 and event_shape[2] % 2 == 0

"""Elementwise bijections: fixed rescaling, activation normalisation and standardisation by a network.

Also the two bounded scales that couplings and standardisations share. Only exp, tanh and logsigmoid are used on the
scoring path: their vectorised and scalar code agree bit for bit, so that a row scores the same in any company.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowdetect.bijections.base import Bijection, soft_bound, sum_except_batch
from flowdetect.nets.conv import SPEED

RAW_BOUND = 5.0
RAW_GAIN = 8.0  # log-scales learn faster than shifts, as in the authors' code (logscale_factor)
ACTNORM_BOUND = 10.0


def sigmoid_log_scale(h: Tensor) -> Tensor:
    """log s of s = sigmoid(b + 2), b = 8 h squashed into (-5, 5): s lies in (0.047, 0.9991), s = 0.88 at h = 0."""
    return F.logsigmoid(soft_bound(RAW_GAIN * h, RAW_BOUND) + 2.0)


def exp_log_scale(h: Tensor) -> Tensor:
    """log s of s = exp(b), b = 8 h squashed into (-5, 5): s lies in (0.0067, 148.4), s = 1 at h = 0."""
    return soft_bound(RAW_GAIN * h, RAW_BOUND)


LOG_SCALES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": sigmoid_log_scale, "exp": exp_log_scale}


class Rescale(Bijection):
    """Fixed affine map per feature: z = (x - loc) / scale.

    Parameters
    ----------
    loc, scale : tensors that broadcast against (C, H, W); scale > 0
    event_shape : (C, H, W)
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor, event_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("loc", loc.expand(event_shape).clone())
        self.register_buffer("scale", scale.expand(event_shape).clone())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.loc) / self.scale, -self.scale.log().sum().expand(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return z * self.scale + self.loc


class ActNorm(Bijection):
    """Activation normalisation: z = s * x + b per channel, s in (e^-10, e^10).

    The first batch sets s and b so that z has median 0 and standard deviation 1 per channel; later they are trained
    (Kingma & Dhariwal 2018, section 3.1, with the mean). The median keeps an image's flat background at 0, where
    changes of the scales and of the 1x1 convolutions do not move it: 5.04 instead of 5.44 bits/dim after 250 steps on
    Fashion-MNIST.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.raw_log_s = nn.Parameter(torch.zeros(channels))
        self.raw_bias = nn.Parameter(torch.zeros(channels))

    def log_scale_and_bias(self) -> tuple[Tensor, Tensor]:
        """log s and b per channel, (c,) each."""
        return soft_bound(SPEED * self.raw_log_s, ACTNORM_BOUND), SPEED * self.raw_bias

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_s, bias = self.log_scale_and_bias()
        z = x * log_s.exp()[:, None, None] + bias[:, None, None]
        return z, (log_s.sum() * (x.shape[2] * x.shape[3])).expand(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        log_s, bias = self.log_scale_and_bias()
        return (z - bias[:, None, None]) * (-log_s).exp()[:, None, None]

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        values = x.transpose(0, 1).flatten(1)  # (c, n * h * w)
        centre = values.median(1).values
        std = values.std(1, correction=0)
        # a constant channel (std 0) is left as it is; 0.999: atanh is infinite at the bound itself
        limit = 0.999 * ACTNORM_BOUND
        log_s = torch.where(std > 0, -std.clamp_min(1e-4).log(), 0.0).clamp(-limit, limit)
        self.raw_log_s.copy_(ACTNORM_BOUND * torch.atanh(log_s / ACTNORM_BOUND) / SPEED)
        self.raw_bias.copy_(-centre * log_s.exp() / SPEED)
        return self.forward(x)[0]


class Standardize(Bijection):
    """Standardisation by a network of the context: z = (x - mu) * s with (mu, h) = net(context), s = scale(h).

    What leaves a multi-scale flow is standardised by what stays; the top of a class-conditional flow by its label.
    s lies in the interval of the named scale, see `sigmoid_log_scale` and `exp_log_scale`.
    """

    def __init__(self, net: nn.Module, scale: str = "exp") -> None:
        super().__init__()
        self.net = net
        self.scale = scale

    def _mean_and_log_scale(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mu, h = self.net(x if context is None else context).chunk(2, dim=1)
        return mu, LOG_SCALES[self.scale](h)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mu, log_s = self._mean_and_log_scale(x, context)
        return (x - mu) * log_s.exp(), sum_except_batch(log_s)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        mu, log_s = self._mean_and_log_scale(z, context)
        return z * (-log_s).exp() + mu

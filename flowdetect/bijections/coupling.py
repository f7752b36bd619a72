"""Coupling: one part of the channels is mapped elementwise, with parameters that a network computes from the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowdetect.bijections.base import Bijection, sum_except_batch
from flowdetect.bijections.elementwise import LOG_SCALES


class AffineCoupling(Bijection):
    """z_a = (x_a + t) * s with (t, h) = net(x_b), s = scale(h); z_b = x_b (Kingma & Dhariwal 2018, Table 1).

    The first half of the channels (the larger one of an odd number) is x_b, the rest x_a. log|det| = sum(log s); s lies
    in the interval of the named scale, see `sigmoid_log_scale` and `exp_log_scale`.

    Parameters
    ----------
    net : module, (n, ceil(c / 2), H, W) -> (n, 2 * floor(c / 2), H, W)
    scale : "sigmoid" or "exp"
    """

    def __init__(self, net: nn.Module, scale: str = "sigmoid") -> None:
        super().__init__()
        self.net = net
        self.scale = scale

    def _shift_and_log_scale(self, x_b: Tensor) -> tuple[Tensor, Tensor]:
        t, h = self.net(x_b).chunk(2, dim=1)
        return t, LOG_SCALES[self.scale](h)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_b, x_a = x.chunk(2, dim=1)
        t, log_s = self._shift_and_log_scale(x_b)
        return torch.cat([x_b, (x_a + t) * log_s.exp()], dim=1), sum_except_batch(log_s)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        z_b, z_a = z.chunk(2, dim=1)
        t, log_s = self._shift_and_log_scale(z_b)
        return torch.cat([z_b, z_a * (-log_s).exp() - t], dim=1)


class AdditiveCoupling(Bijection):
    """z_a = x_a + net(x_b), z_b = x_b: volume-preserving, log|det| = 0 (Dinh et al. 2014, NICE).

    Parameters
    ----------
    net : module, (n, ceil(c / 2), H, W) -> (n, floor(c / 2), H, W)
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x_b, x_a = x.chunk(2, dim=1)
        return torch.cat([x_b, x_a + self.net(x_b)], dim=1), x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        z_b, z_a = z.chunk(2, dim=1)
        return torch.cat([z_b, z_a - self.net(z_b)], dim=1)

"""Monotone rational-quadratic splines, elementwise.

Durkan et al. 2019, "Neural Spline Flows", https://arxiv.org/abs/1906.04032
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Bijection, soft_bound, sum_except_batch

BOUND = 5.0  # the spline lives on [-5, 5] and is the identity outside
SMALLEST_SHARE = 0.02  # of the interval that a bin takes, in either direction
LOG_SLOPE_BOUND = 3.0  # of the slopes at the knots


class Bins(NamedTuple):
    """The bins that values lie in: knots to the left and right in x and in y, and the slopes there."""

    x_0: Tensor
    x_1: Tensor
    y_0: Tensor
    y_1: Tensor
    d_0: Tensor
    d_1: Tensor


def _find_bins(values: Tensor, h: Tensor, n_bins: int, dim: int, of_y: bool) -> Bins:
    """Make a spline of 3 n_bins - 1 numbers along one axis, and find the bin of each value of x, or of y.

    All zero gives the identity; slopes at the knots lie in (e^-3, e^3), those of a bin's chord in (0.02, 50). Whatever
    is elementwise comes after the bin is chosen, for two knots instead of all.
    """
    widths, heights, slopes = h.split([n_bins, n_bins, n_bins - 1], dim=dim)
    x, y = (
        _padded((SMALLEST_SHARE + (1 - n_bins * SMALLEST_SHARE) * part.softmax(dim)).cumsum(dim), dim, after=0)
        for part in (widths, heights)
    )
    inner = BOUND * (2 * (y if of_y else x).detach().narrow(dim, 1, n_bins - 1) - 1)
    k = (values.detach().unsqueeze(dim) >= inner).sum(dim, keepdim=True)
    both = torch.cat([k, k + 1], dim)
    ends: list[Tensor] = []
    for shares in (x, y):
        ends += (BOUND * (2 * shares.gather(dim, both) - 1)).unbind(dim)
    d = soft_bound(_padded(slopes, dim, after=1).gather(dim, both), LOG_SLOPE_BOUND).exp()
    return Bins(*ends, *d.unbind(dim))


def _padded(values: Tensor, dim: int, after: int) -> Tensor:
    """Put a zero before the first entry of an axis, and as many as asked for after the last."""
    if dim == -1:
        return F.pad(values, (1, after))
    zero = torch.zeros_like(values.narrow(dim, 0, 1))
    return torch.cat([zero, values, *[zero] * after], dim)


def split_numbers(h: Tensor, n_bins: int) -> Tensor:
    """Bring the numbers of each spline to the end: (n, (3 n_bins - 1) c, H, W) -> (n, c, H, W, 3 n_bins - 1)."""
    return h.unflatten(1, (-1, 3 * n_bins - 1)).movedim(2, -1)


def spline(x: Tensor, h: Tensor, n_bins: int, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Map x by the spline of h: (...), (..., 3 n_bins - 1) -> y and log dy/dx, both (...); eq. 4 and 5.

    The numbers of h lie along `dim`; along the first axis they are computed faster than along the last.
    """
    inside = (x > -BOUND) & (x < BOUND)
    x_0, x_1, y_0, y_1, d_0, d_1 = _find_bins(x.clamp(-BOUND, BOUND), h, n_bins, dim, of_y=False)
    s = (y_1 - y_0) / (x_1 - x_0)
    t = ((x.clamp(-BOUND, BOUND) - x_0) / (x_1 - x_0)).clamp(0, 1)
    u = t * (1 - t)
    below = s + (d_0 + d_1 - 2 * s) * u
    y = y_0 + (y_1 - y_0) * (s * t * t + d_0 * u) / below
    slope = s * s * (d_1 * t * t + 2 * s * u + d_0 * (1 - t) * (1 - t)) / (below * below)
    return torch.where(inside, y, x), torch.where(inside, slope, 1.0).log()


def spline_inverse(y: Tensor, h: Tensor, n_bins: int, dim: int = -1) -> Tensor:
    """Undo `spline`; eq. 6 to 8."""
    inside = (y > -BOUND) & (y < BOUND)
    x_0, x_1, y_0, y_1, d_0, d_1 = _find_bins(y.clamp(-BOUND, BOUND), h, n_bins, dim, of_y=True)
    s = (y_1 - y_0) / (x_1 - x_0)
    above = y.clamp(-BOUND, BOUND) - y_0
    curvature = d_0 + d_1 - 2 * s
    a = (y_1 - y_0) * (s - d_0) + above * curvature
    b = (y_1 - y_0) * d_0 - above * curvature
    c = -s * above
    t = 2 * c / (-b - (b * b - 4 * a * c).clamp_min(0).sqrt())
    return torch.where(inside, x_0 + t * (x_1 - x_0), y)


class Spline(Bijection):
    """An elementwise spline, one for every channel and pixel, whose numbers come from a network of the context.

    Parameters
    ----------
    net : module, anything of n rows -> (n, (3 n_bins - 1) * C, H, W)
    n_bins : int
    """

    def __init__(self, net: nn.Module, n_bins: int = 8) -> None:
        super().__init__()
        self.net = net
        self.n_bins = n_bins

    def _numbers(self, x: Tensor, context: Tensor | None) -> Tensor:
        return split_numbers(self.net(x if context is None else context), self.n_bins)

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = spline(x, self._numbers(x, context), self.n_bins)
        return z, sum_except_batch(log_slope)

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return spline_inverse(z, self._numbers(z, context), self.n_bins)

"""Monotone rational-quadratic splines, elementwise.

Durkan et al. 2019, "Neural Spline Flows", https://arxiv.org/abs/1906.04032
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Bijection, soft_bound, sum_except_batch

BOUND = 5.0  # the spline lives on [-5, 5] and is the identity outside
SMALLEST_SHARE = 0.02  # of the interval that a bin takes, in either direction
LOG_SLOPE_BOUND = 3.0  # of the slopes at the knots


def knots_and_slopes(h: Tensor, n_bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make a spline of numbers h (..., 3 n_bins - 1): knots in x and in y, and slopes, each (..., n_bins + 1).

    All zero gives the identity; slopes at the knots lie in (e^-3, e^3), those of a bin's chord in (0.02, 50).
    """
    widths, heights, slopes = h.split([n_bins, n_bins, n_bins - 1], dim=-1)
    x, y = (
        F.pad((SMALLEST_SHARE + (1 - n_bins * SMALLEST_SHARE) * part.softmax(-1)).cumsum(-1), (1, 0))
        for part in (widths, heights)
    )
    slopes = F.pad(soft_bound(slopes, LOG_SLOPE_BOUND), (1, 1)).exp()
    return BOUND * (2 * x - 1), BOUND * (2 * y - 1), slopes


def _bin(values: Tensor, knots: Tensor, *columns: Tensor) -> list[Tensor]:
    """Of each value's bin: left and right entries of knots and of other columns."""
    k = (values.detach()[..., None] >= knots.detach()[..., 1:-1]).sum(-1, keepdim=True)
    both = torch.cat([k, k + 1], -1)
    return [column.gather(-1, both) for column in (knots, *columns)]


def split_numbers(h: Tensor, n_bins: int) -> Tensor:
    """Bring the numbers of each spline to the end: (n, (3 n_bins - 1) c, H, W) -> (n, c, H, W, 3 n_bins - 1)."""
    return h.unflatten(1, (-1, 3 * n_bins - 1)).movedim(2, -1)


def spline(x: Tensor, h: Tensor, n_bins: int) -> tuple[Tensor, Tensor]:
    """Map x by the spline of h: (...), (..., 3 n_bins - 1) -> y and log dy/dx, both (...); eq. 4 and 5."""
    inside = (x > -BOUND) & (x < BOUND)
    x_knots, y_knots, slopes = knots_and_slopes(h, n_bins)
    (x_0, x_1), (y_0, y_1), (d_0, d_1) = (
        ends.unbind(-1) for ends in _bin(x.clamp(-BOUND, BOUND), x_knots, y_knots, slopes)
    )
    s = (y_1 - y_0) / (x_1 - x_0)
    t = ((x.clamp(-BOUND, BOUND) - x_0) / (x_1 - x_0)).clamp(0, 1)
    u = t * (1 - t)
    below = s + (d_0 + d_1 - 2 * s) * u
    y = y_0 + (y_1 - y_0) * (s * t * t + d_0 * u) / below
    slope = s * s * (d_1 * t * t + 2 * s * u + d_0 * (1 - t) * (1 - t)) / (below * below)
    return torch.where(inside, y, x), torch.where(inside, slope, 1.0).log()


def spline_inverse(y: Tensor, h: Tensor, n_bins: int) -> Tensor:
    """Undo `spline`; eq. 6 to 8."""
    inside = (y > -BOUND) & (y < BOUND)
    x_knots, y_knots, slopes = knots_and_slopes(h, n_bins)
    (y_0, y_1), (x_0, x_1), (d_0, d_1) = (
        ends.unbind(-1) for ends in _bin(y.clamp(-BOUND, BOUND), y_knots, x_knots, slopes)
    )
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

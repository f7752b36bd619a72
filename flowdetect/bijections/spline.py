"""Monotone rational-quadratic splines, elementwise.

Durkan et al. 2019, "Neural Spline Flows", https://arxiv.org/abs/1906.04032
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Bijection, soft_bound, sum_except_batch
from flowdetect.bijections.spline_gradient import BOUND, LOG_SLOPE_BOUND, SMALLEST_SHARE, fused_spline, mapped


class Bins(NamedTuple):
    """The bins of values: knots to the left and right in x and in y, and the slopes at these knots."""

    x_0: Tensor
    x_1: Tensor
    y_0: Tensor
    y_1: Tensor
    d_0: Tensor
    d_1: Tensor


def knots_and_slopes(h: Tensor, n_bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Turn parameters h (..., 3 n_bins - 1) into a spline: knots in x and in y, and slopes, each (..., n_bins + 1).

    If h is zero, the spline is the identity. Slopes at the knots lie in (e^-3, e^3), slopes of a bin's chord in (0.02,
    50).
    """
    widths, heights, slopes = torch.split(h, [n_bins, n_bins, n_bins - 1], dim=-1)
    x, y = (
        F.pad((SMALLEST_SHARE + (1 - n_bins * SMALLEST_SHARE) * part.softmax(-1)).cumsum(-1), (1, 0))
        for part in (widths, heights)
    )
    slopes = F.pad(soft_bound(slopes, LOG_SLOPE_BOUND), (1, 1)).exp()
    return BOUND * (2 * x - 1), BOUND * (2 * y - 1), slopes


def _find_bins(values: Tensor, h: Tensor, n_bins: int, of_y: bool) -> Bins:
    """Find the bin of each value of x, or of y: (...), (..., 3 n_bins - 1)."""
    columns = knots_and_slopes(h, n_bins)
    k = (values.detach()[..., None] >= columns[of_y].detach()[..., 1:-1]).sum(-1, keepdim=True)
    both = torch.cat([k, k + 1], -1)
    return Bins(*(end for column in columns for end in column.gather(-1, both).unbind(-1)))


def _find_bins_numbers_first(values: Tensor, h: Tensor, n_bins: int, of_y: bool) -> Bins:
    """As `_find_bins`, for parameters (3 n_bins - 1, ...): each operation runs over contiguous memory.

    Sums are written out term by term, since the rounding of torch's softmax and sums over the first axis depends on an
    entry's position. Most operations come after the choice of the bin, for two knots instead of all.
    """
    raw = torch.unflatten(h[: 2 * n_bins], 0, (2, n_bins))  # widths and heights
    weights = (raw - raw.detach().amax(1, keepdim=True)).exp().unbind(1)
    sums = list(accumulate(weights))  # (2, ...) each
    share = 2 * BOUND * (1 - n_bins * SMALLEST_SHARE) / sums[-1]
    runs = torch.stack([torch.zeros_like(share), *sums])
    steps = 2 * BOUND * SMALLEST_SHARE * torch.arange(n_bins + 1, dtype=h.dtype, device=h.device) - BOUND
    with torch.no_grad():
        side = int(of_y)
        offsets = steps[1:-1].reshape(-1, *[1] * values.ndim)
        k = (values >= runs[1:-1, side] * share[side] + offsets).sum(0)
        both = torch.stack([k, k + 1])
    knots = runs.gather(0, both[:, None].expand(-1, 2, *both.shape[1:])) * share + steps[both][:, None]
    zero = torch.zeros_like(h[:1])
    d = soft_bound(torch.cat([zero, h[2 * n_bins :], zero]).gather(0, both), LOG_SLOPE_BOUND).exp()
    (x_0, y_0), (x_1, y_1), (d_0, d_1) = knots[0].unbind(), knots[1].unbind(), d.unbind()
    return Bins(x_0, x_1, y_0, y_1, d_0, d_1)


def split_numbers(h: Tensor, n_bins: int) -> Tensor:
    """Move each spline's parameters to the last axis: (n, (3 n_bins - 1) c, H, W) -> (n, c, H, W, 3 n_bins - 1)."""
    return torch.unflatten(h, 1, (-1, 3 * n_bins - 1)).movedim(2, -1)


def spline(x: Tensor, h: Tensor, n_bins: int, numbers_first: bool = False) -> tuple[Tensor, Tensor]:
    """Map x (...) by the splines of h (..., 3 n_bins - 1): return y and log dy/dx, both (...); eq. 4 and 5.

    With `numbers_first`, h is (3 n_bins - 1, ...); this is faster, and results differ by rounding.
    """
    find_bins = _find_bins_numbers_first if numbers_first else _find_bins
    inside = (x > -BOUND) & (x < BOUND)
    x_0, x_1, y_0, y_1, d_0, d_1 = find_bins(x.clamp(-BOUND, BOUND), h, n_bins, of_y=False)
    s = (y_1 - y_0) / (x_1 - x_0)
    t = ((x.clamp(-BOUND, BOUND) - x_0) / (x_1 - x_0)).clamp(0, 1)
    u = t * (1 - t)
    below = s + (d_0 + d_1 - 2 * s) * u
    y = y_0 + (y_1 - y_0) * (s * t * t + d_0 * u) / below
    slope = s * s * (d_1 * t * t + 2 * s * u + d_0 * (1 - t) * (1 - t)) / (below * below)
    return torch.where(inside, y, x), torch.where(inside, slope, 1.0).log()


def spline_by_mode(x: Tensor, h: Tensor, n_bins: int, training: bool) -> tuple[Tensor, Tensor]:
    """As `spline` with numbers_first, by the fastest code that has the necessary derivatives.

    In training: first derivatives. In evaluation: none if gradients are off, else derivatives of all orders.
    """
    if training:
        return fused_spline(x, h, n_bins)
    if torch.is_grad_enabled():
        return spline(x, h, n_bins, numbers_first=True)
    return mapped(x, h, n_bins)


def spline_inverse(y: Tensor, h: Tensor, n_bins: int, numbers_first: bool = False) -> Tensor:
    """Invert `spline`; eq. 6 to 8."""
    find_bins = _find_bins_numbers_first if numbers_first else _find_bins
    inside = (y > -BOUND) & (y < BOUND)
    x_0, x_1, y_0, y_1, d_0, d_1 = find_bins(y.clamp(-BOUND, BOUND), h, n_bins, of_y=True)
    s = (y_1 - y_0) / (x_1 - x_0)
    above = y.clamp(-BOUND, BOUND) - y_0
    curvature = d_0 + d_1 - 2 * s
    a = (y_1 - y_0) * (s - d_0) + above * curvature
    b = (y_1 - y_0) * d_0 - above * curvature
    c = -s * above
    t = 2 * c / (-b - (b * b - 4 * a * c).clamp_min(0).sqrt())
    return torch.where(inside, x_0 + t * (x_1 - x_0), y)


class Spline(Bijection):
    """Elementwise splines, one for every channel and pixel, with parameters from a network of the context.

    Parameters
    ----------
    net : module, anything of n rows -> (n, (3 n_bins - 1) * C, H, W)
    n_bins : int

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Spline
    >>> from flowdetect.nets import Constant
    >>> layer = Spline(Constant(11, 1, 1), n_bins=4)  # 3 * 4 - 1 numbers, the same for every row
    >>> z, log_det = layer(torch.ones(2, 1, 1, 1))
    >>> z.detach().flatten()  # numbers of zero give the identity
    tensor([1., 1.])
    """

    def __init__(self, net: nn.Module, n_bins: int = 8) -> None:
        super().__init__()
        self.net = net
        self.n_bins = n_bins

    needs_input = True  # the inverse takes as long, and needs another pass of the network

    def _numbers(self, x: Tensor, context: Tensor | None) -> Tensor:
        return split_numbers(self.net(x if context is None else context), self.n_bins)

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        numbers = self._numbers(x, context).movedim(-1, 0)
        z, log_slope = spline_by_mode(x, numbers, self.n_bins, self.training)
        return z, sum_except_batch(log_slope)

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return spline_inverse(z, self._numbers(z, context), self.n_bins)

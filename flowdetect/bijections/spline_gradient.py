"""Rational-quadratic splines in training: few operations per bin, and hand-written gradients.

They compute the same maps as `spline` and, including the masked network, as `Autoregressive` in evaluation. Autograd
needs several times as many operations, each with an entry in its graph.
Durkan et al. 2019, "Neural Spline Flows", https://arxiv.org/abs/1906.04032, eq. 4 and 5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BOUND = 5.0  # the spline acts on [-5, 5] and is the identity outside
SMALLEST_SHARE = 0.02  # smallest share of the interval for a bin, in x and in y
LOG_SLOPE_BOUND = 3.0  # bound on the log-slopes at the knots
LEAST = 2 * BOUND * SMALLEST_SHARE  # smallest width and height of a bin


class _Spline(torch.autograd.Function):
    """y and log dy/dx of values x (m,) by splines of parameters h (3 n_bins - 1, m); differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, n_bins: int) -> tuple[Tensor, Tensor]:
        y, log_slope, kept = _map(x, h, n_bins)
        ctx.save_for_backward(*kept)
        return y, log_slope

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_log: Tensor) -> tuple[Tensor, Tensor, None]:
        _check_once()
        return *_gradient(ctx.saved_tensors, grad_y, grad_log), None


class _MaskedSpline(torch.autograd.Function):
    """The same for values x (D, n) and parameters from a masked ReLU network of x; results (D, n) each.

    `masks` has a mask for each layer's weight; `parameters` has weights (out, in) and biases, layer by layer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, n_bins: int, masks: list[Tensor], *parameters: Tensor) -> tuple[Tensor, Tensor]:
        inputs: list[Tensor] = []
        weights: list[Tensor] = []
        h = x
        for mask, weight, bias in zip(masks, parameters[::2], parameters[1::2], strict=True):
            inputs.append(h.relu_() if inputs else h)
            weights.append(weight * mask)
            h = torch.addmm(bias[:, None], weights[-1], inputs[-1])
        y, log_slope, kept = _map(x.reshape(-1), h.view(3 * n_bins - 1, -1), n_bins)
        ctx.save_for_backward(*inputs, *weights, *kept)
        ctx.masks = masks
        return y.view(x.shape), log_slope.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_log: Tensor) -> tuple[Tensor | None, ...]:
        _check_once()
        n = len(ctx.masks)
        inputs, weights, kept = (ctx.saved_tensors[part] for part in (slice(n), slice(n, 2 * n), slice(2 * n, None)))
        g_x, g = _gradient(kept, grad_y.reshape(-1), grad_log.reshape(-1))
        g = g.view(len(weights[-1]), -1)
        found: list[Tensor] = []
        for i in reversed(range(n)):
            found = [(g @ inputs[i].t()).mul_(ctx.masks[i]), g.sum(1), *found]
            if i:
                g = torch.ops.aten.threshold_backward(weights[i].t() @ g, inputs[i], 0)
        return torch.addmm(g_x.view(grad_y.shape), weights[0].t(), g), None, None, *found


def mapped(x: Tensor, h: Tensor, n_bins: int) -> tuple[Tensor, Tensor]:
    """As `fused_spline`, without gradients."""
    y, log_slope, _ = _map(x.reshape(-1), h.reshape(len(h), -1), n_bins)
    return y.view(x.shape), log_slope.view(x.shape)


def fused_spline(x: Tensor, h: Tensor, n_bins: int) -> tuple[Tensor, Tensor]:
    """As `spline` with numbers_first, h (3 n_bins - 1, ...); it has no second derivatives."""
    y, log_slope = _Spline.apply(x.reshape(-1), h.reshape(len(h), -1), n_bins)  # type: ignore[no-untyped-call]
    return y.view(x.shape), log_slope.view(x.shape)


def masked_spline(x: Tensor, n_bins: int, masks: list[Tensor], parameters: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Map features x (D, n) by splines; a masked network computes a feature's parameters from the features before it.

    Parameters
    ----------
    x : (D, n)
    n_bins : int
    masks : list of (out, in) tensors of 0 and 1, one per layer; the last one has (3 n_bins - 1) D outputs
    parameters : list of weights (out, in) and biases (out,), layer by layer

    Returns
    -------
    y, log_slope : (D, n) each
        They have no second derivatives.
    """
    found: tuple[Tensor, Tensor] = _MaskedSpline.apply(x, n_bins, masks, *parameters)  # type: ignore[no-untyped-call]
    return found


def _check_once() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError("A spline in training mode has no second derivatives; call eval() first.")


def _map(x: Tensor, h: Tensor, n_bins: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return y, log dy/dx and the tensors for the gradient, given x (m,) and h (3 n_bins - 1, m).

    Products with 0 and 1 choose the bin of a value; unlike indexing, they run over contiguous memory. Sums are written
    out, and a product is rounded before it is added, so that an entry's bits do not depend on its position.
    """
    raw = h[: 2 * n_bins].view(2, n_bins, -1)  # parameters of widths and heights
    weights = (raw - raw.amax(1, keepdim=True)).exp_()
    parts = weights.unbind(1)
    sums = h.new_empty(n_bins, 2, x.shape[0])
    so_far = sums.unbind()
    so_far[0].copy_(parts[0])
    for part, last, total in zip(parts[1:], so_far[:-1], so_far[1:], strict=True):
        torch.add(last, part, out=total)
    share = (2 * BOUND * (1 - n_bins * SMALLEST_SHARE)) / so_far[-1]
    clamped = x.clamp(-BOUND, BOUND)
    inside = clamped == x
    at_least = h.new_empty(n_bins + 1, x.shape[0])  # 1 if the bin's index is at least 0, 1, ..., else 0
    at_least[0], at_least[-1] = 1, 0
    least_knots = torch.arange(1, n_bins, dtype=h.dtype, device=h.device).mul_(LEAST).sub_(BOUND)
    torch.mul(sums[:-1, 0], share[0], out=at_least[1:-1]).add_(least_knots[:, None]).le_(clamped)
    is_bin = at_least[:-1] - at_least[1:]
    reached, chosen = at_least.unbind(), is_bin.unbind()
    before, own = reached[1] * parts[0], chosen[0] * parts[0]
    for i in range(1, n_bins):
        before.addcmul_(reached[i + 1], parts[i])
        own.addcmul_(chosen[i], parts[i])
    bent, slopes = h.new_empty(2, x.shape[0]), h[2 * n_bins :].unbind()
    left, right = bent.unbind()
    torch.mul(chosen[1], slopes[0], out=left)
    torch.mul(chosen[0], slopes[0], out=right)
    for i in range(1, n_bins - 1):
        left.addcmul_(chosen[i + 1], slopes[i])
        right.addcmul_(chosen[i], slopes[i])
    x_0, y_0 = (before * share).add_(at_least[1:-1].sum(0).mul_(LEAST).sub_(BOUND)).unbind()
    w, e = (own * share).add_(LEAST).unbind()
    d = (LOG_SLOPE_BOUND * bent.div_(LOG_SLOPE_BOUND).tanh_()).exp_()
    d_0, d_1 = d.unbind()
    s, t = e / w, (clamped - x_0).div_(w).clamp_(0, 1)
    tt = t * t
    u = t - tt
    below = (d_0 + d_1).sub_(s, alpha=2).mul_(u).add_(s)
    ratio = (s * tt).add_(d_0 * u).div_(below)
    above = (s * u).mul_(2).add_(d_1 * tt).add_((tt + 1).sub_(t, alpha=2).mul_(d_0))
    slope = (s / below).square_().mul_(above)
    kept = [inside, at_least, is_bin, weights, share, before, own, bent, d, w, e, s, t, below, ratio, above, slope]
    return torch.where(inside, y_0.add_(e * ratio), x), torch.where(inside, slope, 1.0).log_(), kept


def _gradient(kept: Any, grad_y: Tensor, grad_log: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients in x and h, for y = y_0 + e a / b and log dy/dx = 2 log s + log c - 2 log b.

    In the code b is `below`, c is `above`, and a / b is `ratio`.
    """
    inside, at_least, is_bin, weights, share, before, own, bent, d, w, e, s, t, below, ratio, above, slope = kept
    n_bins, (d_0, d_1) = weights.shape[1], d.unbind()
    g_y, g_log = grad_y * inside, grad_log * inside
    tt = t * t
    u = t - tt
    g_a, g_c = (g_y * e).div_(below), g_log / above
    g_b = (g_a * ratio).addcdiv_(g_log, below, value=2).neg_()
    g_d = torch.empty_like(d)
    torch.mul(g_c, (tt + 1).sub_(t, alpha=2), out=g_d[0]).addcmul_(g_a, u)
    torch.mul(g_c, tt, out=g_d[1])
    g_d.addcmul_(g_b, u)
    g_s = (g_a * tt).addcmul_(g_b, u, value=-2).add_(g_b).addcmul_(g_c, u, value=2).addcdiv_(g_log, s, value=2).div_(w)
    side = 1 - 2 * t
    half = (s * side).addcmul_(d_1, t).addcmul_(d_0, t - 1).div_(above)  # d log c / dt / 2, later d log slope / dt / 2
    half.sub_((d_0 + d_1).sub_(s, alpha=2).mul_(side).div_(below)).mul_(g_log)
    g_x = (g_y * slope).addcdiv_(half, w, value=2)
    sizes, starts = torch.empty_like(d), torch.empty_like(d)  # gradients in width and height of the bin; in x_0 and y_0
    torch.mul(g_s, s, out=sizes[0]).addcmul_(g_x, t).neg_()
    torch.mul(g_y, ratio, out=sizes[1]).add_(g_s)
    torch.neg(g_x, out=starts[0])
    starts[1] = g_y
    g_h = weights.new_empty(3 * n_bins - 1, len(t))
    _into_bins(g_h[: 2 * n_bins].view(weights.shape), at_least, is_bin, weights, before, own, starts, sizes, share)
    g_d.mul_(d).mul_(1 - bent * bent)
    torch.mul(is_bin[1:], g_d[0], out=g_h[2 * n_bins :]).addcmul_(is_bin[:-1], g_d[1])
    return torch.where(inside, g_x, grad_y), g_h


def _into_bins(
    out: Tensor,
    at_least: Tensor,
    is_bin: Tensor,
    weights: Tensor,
    before: Tensor,
    own: Tensor,
    starts: Tensor,
    sizes: Tensor,
    share: Tensor,
) -> None:
    """Write the gradient in the parameters of widths and heights, (2, n_bins, m).

    The weights before the bin move its start forward, its own weight widens it, and the sum of all weights shrinks
    both.
    """
    starts.mul_(share)
    sizes.mul_(share)
    drawn_back = (starts * before).addcmul_(sizes, own).mul_(share)
    drawn_back.div_(2 * BOUND * (1 - weights.shape[1] * SMALLEST_SHARE))
    torch.mul(at_least[1:], starts[:, None], out=out).addcmul_(is_bin, sizes[:, None])
    out.sub_(drawn_back[:, None]).mul_(weights)

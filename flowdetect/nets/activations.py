"""Activations of causal networks with their derivatives, in few passes over memory.

They use only functions whose vectorised and scalar code agree bitwise (expm1 and tanh, but neither torch's elu nor its
sigmoid), so that a row has the same score in any batch. A gate sigma(b) = (1 + tanh(b / 2)) / 2 is written 1 + tanh(b):
the weights before and after it absorb the two factors 1/2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Pads = tuple[int, int, int, int]  # columns left and right, rows above and below
Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class ConcatElu(torch.autograd.Function):
    """Elus of x and of -x, concatenated and zero-padded: (n, c, H, W) -> (n, 2 c, top + H + bottom, left + W + right).

    One exponential serves both: e = exp(-|x|) - 1 is the elu of whichever of x and -x is negative.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, pads: Pads) -> Tensor:
        (n, c, height, width), (left, right, top, bottom) = x.shape, pads
        out = x.new_empty(n, top + height + bottom, left + width + right, 2 * c).permute(0, 3, 1, 2)
        if any(pads):
            for border in (out[:, :, :top], out[:, :, top + height :], out[..., :left], out[..., left + width :]):
                border.zero_()
        inner, minus = out[:, :, top : top + height, left : left + width], -x
        e = torch.minimum(x, minus).expm1_()
        torch.maximum(x, e, out=inner[:, :c])
        torch.maximum(minus, e, out=inner[:, c:])
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Pads], output: Tensor) -> None:
        x, (left, _, top, _) = inputs
        ctx.save_for_backward(output)
        ctx.inner = slice(None), slice(None), slice(top, top + x.shape[2]), slice(left, left + x.shape[3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        # derivative of elu: 1 if the elu is above 0, else elu + 1
        grad = torch.ops.aten.elu_backward(grad[ctx.inner], 1, 1, 1, True, out[ctx.inner])
        plus, minus = grad.chunk(2, dim=1)
        return plus - minus, None


class TanhGate(torch.autograd.Function):
    """tanh(a) (1 + tanh(b)) with (a, b) the halves of x's channels: (n, 2 c, ...) -> (n, c, ...)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        t = x.tanh()
        a, b = t.chunk(2, dim=1)
        return torch.addcmul(a, a, b), t

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Tensor:
        (t,) = ctx.saved_tensors
        a, b = t.chunk(2, dim=1)
        grad_t = torch.cat([torch.addcmul(grad, grad, b), grad * a], dim=1)
        grad_x: Tensor = torch.ops.aten.tanh_backward(grad_t, t)
        return grad_x


class AddGated(torch.autograd.Function):
    """x + a (1 + tanh(b)) with (a, b) the halves of y's channels: x (n, c, ...), y (n, 2 c, ...) -> (n, c, ...)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        a, b = y.chunk(2, dim=1)
        t = b.tanh()
        return (x + a).addcmul_(a, t), t

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[1], output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, Tensor]:
        y, t = ctx.saved_tensors
        a, _ = y.chunk(2, dim=1)
        grad_b = torch.ops.aten.tanh_backward(grad * a, t)
        return grad, torch.cat([torch.addcmul(grad, grad, t), grad_b], dim=1)


def concat_elu(x: Tensor, pads: Pads = (0, 0, 0, 0)) -> Tensor:
    """Apply `ConcatElu`; during export without in-place operators, with bitwise equal results."""
    if torch.compiler.is_exporting():
        e = torch.minimum(x, -x).expm1()
        return F.pad(torch.cat([torch.maximum(x, e), torch.maximum(-x, e)], dim=1), pads)
    return _call(ConcatElu.apply, ConcatElu.forward, x, pads)


def tanh_gate(x: Tensor) -> Tensor:
    """Apply `TanhGate`."""
    return _call(TanhGate.apply, TanhGate.forward, x)[0]


def add_gated(x: Tensor, y: Tensor) -> Tensor:
    """Apply `AddGated`."""
    return _call(AddGated.apply, AddGated.forward, x, y)[0]


def _call(apply: Callable[..., Any], forward: Callable[[*Ts], R], *inputs: *Ts) -> R:
    """Apply a function; skip autograd's bookkeeping if no gradient is needed, e.g. in sampling."""
    found: R = apply(*inputs) if torch.is_grad_enabled() else forward(*inputs)
    return found

"""Gated residual layers in training: one autograd function with loops of its own between the convolutions.

It is computed a few images at a time, which a processor's convolutions like better than many. What enters a layer and
what leaves its convolutions is kept; the elus, which take twice as much memory, are computed again in the backward
pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowdetect.nets.activations import Pads
from flowdetect.nets.kernels import LANES, Kernels, as_array, kernels
from flowdetect.nets.masked import CausalConv

FEWEST_VALUES = 2**18  # a batch's features; compiling the loops takes as long as hundreds of smaller steps
MOST_THREADS = 4  # the loops use one
BLOCK_BYTES = 2**22  # of a block's features
CHANNELS_LAST = torch.channels_last
NO_PADS: Pads = (0, 0, 0, 0)


class Layers(NamedTuple):
    """The convolutions of a gated residual layer: of x, of the hidden layer, of the skip and of the message."""

    first: CausalConv
    second: CausalConv
    skip: CausalConv | None
    message: CausalConv | None


def can_fuse(x: Tensor, training: bool) -> bool:
    """Whether features (n, c, H, W) are worth the loops of `kernels`, and of a kind that they take."""
    return (
        training
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype in (torch.bfloat16, torch.float32)
        and x.numel() >= FEWEST_VALUES
        and x.shape[1] >= LANES
        and torch.get_num_threads() <= MOST_THREADS
        and not torch.compiler.is_compiling()
        and kernels(x.dtype) is not None
    )


def gated_residual(
    x: Tensor, message: Tensor | None, skip: Tensor | None, context: Tensor | None, layers: Layers
) -> tuple[Tensor, Tensor | None]:
    """Compute a gated residual layer, and the message that it sends.

    Parameters
    ----------
    x : (n, c, H, W) tensor
    message, skip : (n, c, H, W) tensors or None
    context : (n, 2 c, 1, 1) tensor or None
        What is added before the gate.
    layers : Layers

    Returns
    -------
    out : (n, c, H, W) tensor
    sent : (n, c, H, W) tensor, or None without a layer for it
    """
    parameters: list[Tensor | None] = []
    for layer in layers:
        parameters += [None, None] if layer is None else [layer.weight, layer.bias]
    pass_ = _Pass(layers, x.dtype)
    x, message, skip = (None if v is None else v.contiguous(memory_format=CHANNELS_LAST) for v in (x, message, skip))
    out: tuple[Tensor, Tensor | None] = _GatedResidual.apply(pass_, x, message, skip, context, *parameters)
    return out


def blocks(n: int, bytes_of_one: int, most_bytes: int) -> Iterator[slice]:
    """Split n images into blocks of one length, n divided by a power of two, of about so many bytes each."""
    length = n
    while length % 2 == 0 and length * bytes_of_one > most_bytes:
        length //= 2
    return (slice(start, start + length) for start in range(0, n, length))


class _Elus:
    """Elus of a block of features, in memory that is used again for the next block."""

    def __init__(self, loops: Kernels, pads: Pads) -> None:
        self.loops, self.pads = loops, pads
        self.out: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(n, c, H, W) -> (n, 2 c, top + H + bottom, left + W + right)."""
        (n, c, height, width), (left, right, top, bottom) = x.shape, self.pads
        if self.out is None:
            self.out = x.new_zeros(n, top + height + bottom, left + width + right, 2 * c).permute(0, 3, 1, 2)
        self.loops.elus(as_array(x), as_array(self.out), top, left)
        return self.out

    def backward(self, grad: Tensor, out: Tensor, base: Tensor | None = None) -> Tensor:
        """Write the gradient by x, plus base, from that by the elus of the last call."""
        assert self.out is not None
        elus, (left, _, top, _) = as_array(self.out), self.pads
        grad = grad.contiguous(memory_format=CHANNELS_LAST)
        if base is None:
            self.loops.elus_backward(as_array(grad), elus, as_array(out), top, left)
        else:
            self.loops.elus_backward_add(as_array(grad), elus, as_array(base), as_array(out), top, left)
        return out


class _Conv:
    """A convolution of one pass: its weights in the format of the features, and the sums of their gradients."""

    def __init__(self, layer: CausalConv, dtype: torch.dtype) -> None:
        self.slowness = layer.slowness
        weight = layer.weight.detach()
        self.weight = (weight if self.slowness == 1 else weight / self.slowness).to(dtype)
        self.bias = layer.bias.detach().to(dtype)
        self.of_weight, self.of_bias = torch.zeros_like(weight), torch.zeros_like(layer.bias)

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)

    def backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """Add up the gradients by weight and bias; give that by x."""
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grad, x, self.weight, [len(self.weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, True]
        )
        self.of_weight.add_(of_weight)
        self.of_bias.add_(of_bias)
        found: Tensor = of_x
        return found

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Gradients by the layer's weight and bias."""
        return self.of_weight.div_(self.slowness) if self.slowness != 1 else self.of_weight, self.of_bias


@dataclass
class _Kept:
    """What the forward pass keeps of a block: the hidden layer, what is before the gate, and where dropout is not."""

    rows: slice
    inner: Tensor
    before_gate: Tensor
    mask: Tensor | None


class _Pass:
    """One forward and backward pass through a gated residual layer."""

    def __init__(self, layers: Layers, dtype: torch.dtype) -> None:
        loops = kernels(dtype)
        assert loops is not None
        self.loops, self.dropout, self.pads = loops, layers.second.dropout, layers.first.pads
        self.convs = [None if layer is None else _Conv(layer, dtype) for layer in layers]
        self.kept: list[_Kept] = []

    def elus(self) -> tuple[_Elus, _Elus, _Elus, _Elus]:
        """Make the elus of x, of the hidden layer, of the skip and of the message."""
        return tuple(_Elus(self.loops, pads) for pads in (self.pads, self.pads, NO_PADS, NO_PADS))  # type: ignore[return-value]

    def drop(self, elus: Tensor, mask: Tensor | None) -> Tensor:
        """Apply a mask of dropout."""
        return elus if mask is None else elus * mask / (1 - self.dropout.probability)

    def forward(
        self, x: Tensor, message: Tensor | None, skip: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        first, second, of_skip, of_message = self.convs
        assert first is not None and second is not None
        elus, inner_elus, skip_elus, out_elus = self.elus()
        out = torch.empty_like(x)
        sent = None if of_message is None else torch.empty_like(x)
        for rows in blocks(len(x), x[0].nbytes, BLOCK_BYTES):
            inner = first(elus(x[rows]))
            if message is not None:
                inner.add_(message[rows])
            if skip is not None and of_skip is not None:
                inner.add_(of_skip(skip_elus(skip[rows])))
            hidden, mask = inner_elus(inner), None
            if self.dropout.probability:
                drawn = torch.rand(hidden.shape, generator=self.dropout.generator, dtype=torch.float32)
                mask = (drawn >= self.dropout.probability).contiguous(memory_format=CHANNELS_LAST)
            y = second(self.drop(hidden, mask))
            if context is not None:
                y.add_(context[rows])
            self.loops.gate(as_array(x[rows]), as_array(y), as_array(out[rows]))
            if sent is not None and of_message is not None:
                sent[rows].copy_(of_message(out_elus(out[rows])))
            self.kept.append(_Kept(rows, inner, y, mask))
        return out, sent

    def backward(
        self, x: Tensor, skip: Tensor | None, out: Tensor, grad_out: Tensor, grad_sent: Tensor | None, grads: _Gradients
    ) -> None:
        first, second, of_skip, of_message = self.convs
        assert first is not None and second is not None
        elus, inner_elus, skip_elus, out_elus = self.elus()
        for kept in self.kept:
            rows, grad = kept.rows, grad_out[kept.rows]
            if grad_sent is not None and of_message is not None:
                of_elus = of_message.backward(grad_sent[rows], out_elus(out[rows]))
                grad = out_elus.backward(of_elus, torch.empty_like(grad), grad)
            of_gate = torch.empty_like(kept.before_gate)
            self.loops.gate_backward(as_array(grad), as_array(kept.before_gate), as_array(of_gate))
            if grads.context is not None:
                grads.context[rows] = of_gate.sum((2, 3), keepdim=True)
            hidden = inner_elus(kept.inner)
            of_hidden = self.drop(second.backward(of_gate, self.drop(hidden, kept.mask)), kept.mask)
            of_inner = torch.empty_like(grad) if grads.message is None else grads.message[rows]
            inner_elus.backward(of_hidden, of_inner)
            if skip is not None and of_skip is not None and grads.skip is not None:
                skip_elus.backward(of_skip.backward(of_inner, skip_elus(skip[rows])), grads.skip[rows])
            elus.backward(first.backward(of_inner, elus(x[rows])), grads.x[rows], grad)
        self.kept = []


@dataclass
class _Gradients:
    x: Tensor
    message: Tensor | None = None
    skip: Tensor | None = None
    context: Tensor | None = field(default=None)


class _GatedResidual(torch.autograd.Function):
    """`gated_residual`; parameters are weight and bias of each layer, or None twice."""

    @staticmethod
    def forward(
        ctx: Any,
        pass_: _Pass,
        x: Tensor,
        message: Tensor | None,
        skip: Tensor | None,
        context: Tensor | None,
        *parameters: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        out, sent = pass_.forward(x, message, skip, context)
        ctx.pass_, ctx.has_message = pass_, message is not None
        ctx.save_for_backward(x, skip, context, out)
        return out, sent

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_out: Tensor, grad_sent: Tensor | None) -> tuple[Any, ...]:
        x, skip, context, out = ctx.saved_tensors
        grad_out = grad_out.contiguous(memory_format=CHANNELS_LAST)
        grad_sent = None if grad_sent is None else grad_sent.contiguous(memory_format=CHANNELS_LAST)
        message, of_skip, of_context = (
            torch.empty_like(like) if needed else None
            for like, needed in ((x, ctx.has_message), (x, skip is not None), (context, context is not None))
        )
        grads = _Gradients(torch.empty_like(x), message, of_skip, of_context)
        ctx.pass_.backward(x, skip, out, grad_out, grad_sent, grads)
        parameters = [g for conv in ctx.pass_.convs for g in ((None, None) if conv is None else conv.gradients())]
        return None, grads.x, grads.message, grads.skip, grads.context, *parameters

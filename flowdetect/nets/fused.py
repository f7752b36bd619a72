"""Gated residual layers in training: one autograd function with compiled loops between the convolutions.

It processes a few images at a time, for which a processor's convolutions are faster than for many. It stores the elus
for the backward pass; recomputing them took 8 % longer when measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowdetect.nets.activations import Pads
from flowdetect.nets.blockwise import blocks
from flowdetect.nets.kernels import LANES, Kernels, as_array, kernels
from flowdetect.nets.masked import CausalConv, Layers

FEWEST_VALUES = 2**18  # features of a batch; compiling the loops takes as long as hundreds of smaller steps
MOST_THREADS = 4  # the loops use one thread
BLOCK_BYTES = 2**22  # features of one block
CHANNELS_LAST = torch.channels_last
NO_PADS: Pads = (0, 0, 0, 0)


def can_fuse(x: Tensor, training: bool) -> bool:
    """Whether the loops of `kernels` support features (n, c, H, W) and are faster for them."""
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
    """Compute a gated residual layer and its message.

    Parameters
    ----------
    x : (n, c, H, W) tensor
    message, skip : (n, c, H, W) tensors or None
    context : (n, 2 c, 1, 1) tensor or None
        Added before the gate.
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
    features = [None if v is None else v.contiguous(memory_format=CHANNELS_LAST) for v in (x, message, skip)]
    apply: Callable[..., tuple[Tensor, Tensor | None]] = _GatedResidual.apply
    return apply(pass_, *features, context, *parameters)


class _Elus:
    """Concatenated elus of x and of -x, zero-padded: (n, c, H, W) -> (n, 2 c, H + ..., W + ...)."""

    def __init__(self, loops: Kernels, pads: Pads) -> None:
        self.loops, self.pads = loops, pads

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Return the elus of x, or of x + other."""
        (n, c, height, width), (left, right, top, bottom) = x.shape, self.pads
        out = x.new_empty(n, top + height + bottom, left + width + right, 2 * c).permute(0, 3, 1, 2)
        if other is None:
            self.loops.elus(as_array(x), as_array(out), top, left)
        else:
            self.loops.elus_of_sum(as_array(x), as_array(other), as_array(out), top, left)
        return out

    def backward(self, grad: Tensor, elus: Tensor, out: Tensor, base: Tensor | None = None) -> Tensor:
        """Write the gradient in the elus' input, plus base, from the gradient in the elus."""
        left, _, top, _ = self.pads
        of_elus = as_array(grad.contiguous(memory_format=CHANNELS_LAST))
        if base is None:
            self.loops.elus_backward(of_elus, as_array(elus), as_array(out), top, left)
        else:
            self.loops.elus_backward_add(of_elus, as_array(elus), as_array(base), as_array(out), top, left)
        return out


class _Conv:
    """A convolution within one pass: weights in the features' type, and sums of their gradients."""

    def __init__(self, layer: CausalConv, dtype: torch.dtype) -> None:
        self.slowness = layer.slowness
        weight = layer.weight.detach()
        self.weight = (weight if self.slowness == 1 else weight / self.slowness).to(dtype)
        self.bias = layer.bias.detach().to(dtype)
        self.sums: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)

    def backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """Add the gradients in weight and bias; return the gradient in x."""
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grad, x, self.weight, [len(self.weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, True]
        )
        if self.sums:
            self.sums[0].add_(of_weight)
            self.sums[1].add_(of_bias)
        else:
            self.sums = [of_weight.to(torch.float32), of_bias.to(torch.float32)]
        found: Tensor = of_x
        return found

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Gradients in the layer's weight and bias."""
        of_weight, of_bias = self.sums
        return of_weight.div_(self.slowness) if self.slowness != 1 else of_weight, of_bias


@dataclass
class _Block:
    """Values that the forward pass stores for some images: elus, the gate's input, and the dropout mask."""

    rows: slice
    elus: Tensor
    hidden: Tensor
    before_gate: Tensor
    of_skip: Tensor | None
    of_out: Tensor | None
    mask: Tensor | None


class _Pass:
    """One forward and backward pass through a gated residual layer."""

    def __init__(self, layers: Layers, dtype: torch.dtype) -> None:
        loops = kernels(dtype)
        assert loops is not None
        self.loops, self.dropout = loops, layers.second.dropout
        self.first, self.second = _Conv(layers.first, dtype), _Conv(layers.second, dtype)
        self.skip, self.message = (
            None if layer is None else _Conv(layer, dtype) for layer in (layers.skip, layers.message)
        )
        self.elus, self.bare_elus = _Elus(loops, layers.first.pads), _Elus(loops, NO_PADS)
        self.blocks: list[_Block] = []

    def forward(
        self, x: Tensor, message: Tensor | None, skip: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        out, sent = torch.empty_like(x), None if self.message is None else torch.empty_like(x)
        for rows in blocks(len(x), x[0].nbytes, BLOCK_BYTES):
            elus = self.elus(x[rows])
            inner, more = self.first(elus), None if message is None else message[rows]
            of_skip = of_out = None
            if skip is not None and self.skip is not None:
                of_skip = self.bare_elus(skip[rows])
                inner = inner if more is None else inner.add_(more)
                more = self.skip(of_skip)
            hidden = self.elus(inner, more)
            mask = self._mask(hidden)
            y = self.second(self._dropped(hidden, mask))
            if context is not None:
                y.add_(context[rows])
            self.loops.gate(as_array(x[rows]), as_array(y), as_array(out[rows]))
            if sent is not None and self.message is not None:
                of_out = self.bare_elus(out[rows])
                sent[rows].copy_(self.message(of_out))
            self.blocks.append(_Block(rows, elus, hidden, y, of_skip, of_out, mask))
        return out, sent

    def backward(self, grad_out: Tensor, grad_sent: Tensor | None, grads: _Gradients) -> None:
        while self.blocks:  # each block is freed after use
            block = self.blocks.pop()
            rows, grad = block.rows, grad_out[block.rows]
            if grad_sent is not None and self.message is not None and block.of_out is not None:
                of_elus = self.message.backward(grad_sent[rows], block.of_out)
                grad = self.bare_elus.backward(of_elus, block.of_out, torch.empty_like(grad), grad)
            of_gate = torch.empty_like(block.before_gate)
            self.loops.gate_backward(as_array(grad), as_array(block.before_gate), as_array(of_gate))
            if grads.context is not None:
                grads.context[rows] = of_gate.sum((2, 3), keepdim=True)
            of_hidden = self.second.backward(of_gate, self._dropped(block.hidden, block.mask))
            of_inner = torch.empty_like(grad) if grads.message is None else grads.message[rows]
            self.elus.backward(self._dropped(of_hidden, block.mask), block.hidden, of_inner)
            if grads.skip is not None and self.skip is not None and block.of_skip is not None:
                of_elus = self.skip.backward(of_inner, block.of_skip)
                self.bare_elus.backward(of_elus, block.of_skip, grads.skip[rows])
            self.elus.backward(self.first.backward(of_inner, block.elus), block.elus, grads.x[rows], grad)

    def _mask(self, hidden: Tensor) -> Tensor | None:
        """Draw the dropout mask."""
        if not self.dropout.probability:
            return None
        drawn = torch.rand(hidden.shape, generator=self.dropout.generator, dtype=torch.float32)
        return (drawn >= self.dropout.probability).contiguous(memory_format=CHANNELS_LAST)

    def _dropped(self, elus: Tensor, mask: Tensor | None) -> Tensor:
        return elus if mask is None else elus * mask / (1 - self.dropout.probability)


class _Gradients(NamedTuple):
    """Gradients in a layer's inputs; the backward pass writes into them."""

    x: Tensor
    message: Tensor | None
    skip: Tensor | None
    context: Tensor | None


class _GatedResidual(torch.autograd.Function):
    """`gated_residual`; `parameters` are weight and bias of each layer, or two None."""

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
        ctx.pass_ = pass_
        ctx.are_there = message is not None, skip is not None, context is not None
        return pass_.forward(x, message, skip, context)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_sent: Tensor | None) -> tuple[Any, ...]:
        pass_: _Pass = ctx.pass_
        grad_out = grad_out.contiguous(memory_format=CHANNELS_LAST)
        grad_sent = None if grad_sent is None else grad_sent.contiguous(memory_format=CHANNELS_LAST)
        has_message, has_skip, has_context = ctx.are_there
        n, c = grad_out.shape[:2]
        grads = _Gradients(
            torch.empty_like(grad_out),
            torch.empty_like(grad_out) if has_message else None,
            torch.empty_like(grad_out) if has_skip else None,
            grad_out.new_empty(n, 2 * c, 1, 1) if has_context else None,
        )
        pass_.backward(grad_out, grad_sent, grads)
        parameters: list[Tensor | None] = []
        for conv in (pass_.first, pass_.second, pass_.skip, pass_.message):
            parameters += (None, None) if conv is None else conv.gradients()
        return None, *grads, *parameters

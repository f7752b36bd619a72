"""Gated residual layers in scoring: a few images at a time, so that features between convolutions stay in the cache.

A kernel of two rows needs three products instead of four for two rows of its output (Winograd 1980, F(2, 2)): with
input rows p0, p1, p2 and kernel rows w0, w1, w0 p0 + w1 p1 = w0 (p0 - p1) + (w0 + w1) p1 and w0 p1 + w1 p2 = (w0 + w1)
p1 - w1 (p1 - p2). Features are therefore stored as two tensors, for even and for odd rows. All numbers are float32, and
only functions whose vectorised and scalar code agree are used.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from flowdetect.nets.masked import CausalConv, Layers

FEWEST_VALUES = 2**14  # features per image
BLOCK_BYTES = 2**20  # features of one block
CHANNELS_LAST = torch.channels_last


def can_split(x: Tensor, training: bool) -> bool:
    """Whether to score features (n, c, H, W) in blocks."""
    return (
        not training
        and not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x[0].numel() >= FEWEST_VALUES
        and x.shape[2] % 2 == 0
        and not torch.compiler.is_compiling()
    )


def blocks(n: int, bytes_of_one: int, most_bytes: int) -> Iterator[slice]:
    """Split n images into equal blocks, n divided by a power of two, of about `most_bytes` bytes each."""
    length = n
    while length % 2 == 0 and length * bytes_of_one > most_bytes:
        length //= 2
    return (slice(start, start + length) for start in range(0, n, length))


class _Memory:
    """Tensors that are reused for the next block."""

    def __init__(self) -> None:
        self.tensors: dict[object, Tensor] = {}

    def like(self, key: str, shape: tuple[int, ...], x: Tensor) -> Tensor:
        """Return a channels-last tensor (n, c, H, W) with the values of its last use, initially zeros."""
        found = self.tensors.get((key, shape))
        if found is None:
            n, c, height, width = shape
            found = x.new_zeros(n, height, width, c).permute(0, 3, 1, 2)
            self.tensors[key, shape] = found
        return found


def _write_elus(x: Tensor, out: Tensor, memory: _Memory) -> None:
    """Write the concatenated elus of x and of -x."""
    n, c, height, width = x.shape
    minus = torch.neg(x, out=memory.like("minus", (n, c, height, width), x))
    e = torch.minimum(x, minus, out=memory.like("e", (n, c, height, width), x)).exp_().sub_(1)
    torch.maximum(x, e, out=out[:, :c])
    torch.maximum(minus, e, out=out[:, c:])


class _Pairs:
    """A convolution of the elus of x and of -x with a kernel of two rows, zero-padded above, left and right."""

    def __init__(self, layer: CausalConv, memory: _Memory) -> None:
        weight = layer.kernel_weight().detach()
        upper, lower = weight[:, :, :1], weight[:, :, 1:]
        self.weights = [w.contiguous(memory_format=CHANNELS_LAST) for w in (upper, upper + lower, lower)]
        self.bias, self.memory = layer.bias.detach(), memory
        self.left, self.right, *_ = layer.pads

    def __call__(self, even: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
        """Rows 0, 2, ... and 1, 3, ... of the features -> the same rows of the output."""
        n, c, pairs, width = even.shape
        padded, inner = self.left + width + self.right, slice(self.left, self.left + width)
        # with the row of zeros, even rows become odd
        between = self.memory.like("between", (n, 2 * c, pairs, padded), even)
        around = self.memory.like("around", (n, 2 * c, pairs + 1, padded), even)
        _write_elus(even, between[..., inner], self.memory)
        _write_elus(odd, around[:, :, 1:, inner], self.memory)
        difference = self.memory.like("difference", (n, 2 * c, pairs, padded), even)
        upper, both, lower = self.weights
        middle = F.conv2d(between, both, self.bias)
        first = F.conv2d(torch.sub(around[:, :, :-1], between, out=difference), upper).add_(middle)
        second = F.conv2d(torch.sub(between, around[:, :, 1:], out=difference), lower)
        return first, torch.sub(middle, second, out=second)


class _Points:
    """A 1x1 convolution of the elus of x and of -x."""

    def __init__(self, layer: CausalConv, memory: _Memory) -> None:
        self.weight, self.bias, self.memory = layer.kernel_weight().detach(), layer.bias.detach(), memory

    def __call__(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        elus = self.memory.like("points", (n, 2 * c, height, width), x)
        _write_elus(x, elus, self.memory)
        return F.conv2d(elus, self.weight, self.bias)


def gated_residual(
    x: Tensor, message: Tensor | None, skip: Tensor | None, context: Tensor | None, layers: Layers
) -> tuple[Tensor, Tensor | None]:
    """Compute a gated residual layer and its message; see `fused.gated_residual`."""
    memory = _Memory()
    first, second = _Pairs(layers.first, memory), _Pairs(layers.second, memory)
    of_skip, of_message = (None if e is None else _Points(e, memory) for e in (layers.skip, layers.message))
    out = torch.empty_like(x)
    sent = None if of_message is None else torch.empty_like(x)
    for rows in blocks(len(x), x[0].nbytes, BLOCK_BYTES):
        halves = [slice(0, None, 2), slice(1, None, 2)]
        inner = first(*(x[rows, :, half] for half in halves))
        for more in (
            None if message is None else message[rows],
            None if skip is None or of_skip is None else of_skip(skip[rows]),
        ):
            if more is not None:
                for part, half in zip(inner, halves, strict=True):
                    part.add_(more[:, :, half])
        for y, half in zip(second(*inner), halves, strict=True):
            if context is not None:
                y.add_(context[rows])
            a, b = y.chunk(2, 1)
            t = torch.tanh(b, out=memory.like("e", tuple(a.shape), a))
            torch.addcmul(a, a, t, out=t)
            torch.add(x[rows, :, half], t, out=out[rows, :, half])
        if sent is not None and of_message is not None:
            sent[rows].copy_(of_message(out[rows]))
    return out, sent

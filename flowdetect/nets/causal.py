"""Causal networks: features of every pixel that depend on the pixels before it, in raster order.

There are two parallel streams. At row i, the vertical stream depends on the rows above; the horizontal stream also
depends on the pixels to the left in row i. Messages go only from the vertical to the horizontal stream. Two streams
have no blind spot, unlike a single one (van den Oord et al. 2016, "Conditional Image Generation with PixelCNN
Decoders").
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowdetect.nets.activations import tanh_gate
from flowdetect.nets.cache import Cache, Whole, whole
from flowdetect.nets.conv import MixedPrecision
from flowdetect.nets.masked import CausalConv, Dropout

Features = Tensor | None  # None: a missing stream or shortcut


def pointwise(in_channels: int, out_channels: int, gain: float = 1.0, elu: bool = False) -> CausalConv:
    """Build a 1x1 convolution."""
    return CausalConv(in_channels, out_channels, (1, 1), 0, 0, gain=gain, elu=elu)


class ContextBias(nn.Module):
    """A linear map of a context, initially zero, for all pixels: (n, n_context) -> (n, channels, 1, 1)."""

    def __init__(self, n_context: int, channels: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(n_context, channels, dtype=torch.float32))

    def forward(self, context: Tensor) -> Tensor:
        return (context.to(self.value.dtype) @ self.value)[:, :, None, None]


def context_bias(n_context: int, channels: int) -> ContextBias | None:
    """Build a `ContextBias`; None without a context."""
    return ContextBias(n_context, channels) if n_context else None


def add_context(h: Tensor, bias: ContextBias | None, context: Tensor | None) -> Tensor:
    """Add the map of a context to the features of all pixels."""
    return h if bias is None or context is None else h + bias(context).to(h.dtype)


class Block(nn.Module):
    """One layer of both streams; a missing stream is None, and so are its messages."""

    context_bias: ContextBias | None

    def conditioned(self, h: Tensor, context: Tensor | None) -> Tensor:
        """Add the map of the context to the horizontal stream."""
        return add_context(h, self.context_bias, context)

    def vertical(
        self, u: Features, skip: Features, context: Tensor | None, evaluate: Whole
    ) -> tuple[Features, Features]:
        """Stream, skip and context -> stream, message to the horizontal stream."""
        return None, None

    def horizontal(
        self, h: Tensor, message: Features, skip: Features, context: Tensor | None, evaluate: Whole
    ) -> Tensor:
        """Stream, message, skip and context -> stream."""
        raise NotImplementedError


class MaskedBlock(Block):
    """Residual block of PixelCNN: 1x1, masked 3x3 (mask "B": includes the pixel itself) and 1x1, each after a ReLU.

    van den Oord et al. 2016, "Pixel Recurrent Neural Networks", Figure 5.
    """

    def __init__(self, channels: int, n_context: int, dropout: float) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.reduce = pointwise(channels, inner, 2**0.5)
        self.mix = CausalConv(inner, inner, (2, 3), 1, 1, mask=torch.tensor([[1.0, 1, 1], [1, 1, 0]]), gain=2**0.5)
        self.expand = pointwise(inner, channels, 0.0)
        self.dropout = Dropout(dropout)
        self.context_bias = context_bias(n_context, inner)

    def horizontal(
        self, h: Tensor, message: Features, skip: Features, context: Tensor | None, evaluate: Whole
    ) -> Tensor:
        inner = self.conditioned(evaluate(self.reduce, h.relu()), context).relu()
        return evaluate(self.expand, self.dropout(evaluate(self.mix, inner).relu_())).add_(h)


class PointwiseBlock(Block):
    """Residual block of two 1x1 convolutions, each after a ReLU, so that the first layer's reach does not grow.

    For a local autoregressive model (Zhang et al. 2021, https://arxiv.org/abs/2109.02639).
    """

    def __init__(self, channels: int, n_context: int, dropout: float) -> None:
        super().__init__()
        self.widen = pointwise(channels, channels, 2**0.5)
        self.expand = pointwise(channels, channels, 0.0)
        self.dropout = Dropout(dropout)
        self.context_bias = context_bias(n_context, channels)

    def horizontal(
        self, h: Tensor, message: Features, skip: Features, context: Tensor | None, evaluate: Whole
    ) -> Tensor:
        inner = self.conditioned(evaluate(self.widen, h.relu()), context).relu()
        return evaluate(self.expand, self.dropout(inner)).add_(h)


class GatedBlock(Block):
    """Gated PixelCNN layer: tanh times sigmoid in both streams, residual in the horizontal one.

    van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", Figure 2 and eq. 4: the context
    enters both streams, before the gates; with both_streams=False only the horizontal stream.
    """

    def __init__(self, channels: int, n_context: int, dropout: float, both_streams: bool = True) -> None:
        super().__init__()
        self.down = CausalConv(channels, 2 * channels, (2, 3), 1, 1)
        self.message = pointwise(2 * channels, 2 * channels)
        self.right = CausalConv(channels, 2 * channels, (1, 2), 0, 1)
        self.out = pointwise(channels, channels, 0.25)
        self.dropout = Dropout(dropout)
        self.context_bias = context_bias(n_context, 2 * channels)
        self.u_context_bias = context_bias(n_context if both_streams else 0, 2 * channels)

    def vertical(
        self, u: Features, skip: Features, context: Tensor | None, evaluate: Whole
    ) -> tuple[Features, Features]:
        assert u is not None
        before = add_context(evaluate(self.down, u), self.u_context_bias, context)
        return tanh_gate(before), evaluate(self.message, before)

    def horizontal(
        self, h: Tensor, message: Features, skip: Features, context: Tensor | None, evaluate: Whole
    ) -> Tensor:
        assert message is not None
        before = self.conditioned(evaluate(self.right, h).add_(message), context)
        return evaluate(self.out, self.dropout(tanh_gate(before))).add_(h)


@dataclass
class Messages:
    """Messages from a stage's vertical to its horizontal stream: one tensor per block, and those of the stage below."""

    first: list[Features]
    second: list[Features]
    below: Messages | None = None
    last: Features = None  # the vertical stream at the end of the stage

    def __getitem__(self, index: Tensor) -> Messages:
        """Return the messages of some rows of the batch."""
        first, second = ([None if m is None else m[index] for m in each] for each in (self.first, self.second))
        below = None if self.below is None else self.below[index]
        return Messages(first, second, below, None if self.last is None else self.last[index])


def overlapping(channels: int) -> CausalConv:
    """Build the layer that, with a pixel shuffle, is a transposed convolution of stride 2 and kernel 2x3.

    Each input column gives two output columns; the right one also depends on the next input column.
    """
    mask = torch.ones(channels, 2, 2, 2)  # axes: channel, row and column of the output, column of the input
    mask[:, :, 0, 1] = 0
    return CausalConv(channels, 4 * channels, (1, 2), 0, 0, mask=mask.reshape(4 * channels, 1, 1, 2))


class Stage(nn.Module):
    """Blocks at one resolution, around the blocks at half of it: down, below, up, with shortcuts from down to up.

    With all_shortcuts, as in the code of PixelCNN++'s authors, the input of the stage is also a shortcut, so the way up
    has one block more. The lowest resolution has as many blocks up as down, since the output of its last block down
    already enters the first block up. The vertical stream is then upsampled by a transposed convolution of kernel 2x3;
    otherwise of kernel 2x2, which is a 1x1 convolution with a pixel shuffle.
    """

    def __init__(
        self,
        first: list[Block],
        second: list[Block],
        below: Stage | None,
        channels: int,
        all_shortcuts: bool = False,
    ) -> None:
        super().__init__()
        self.first, self.second = nn.ModuleList(first), nn.ModuleList(second)
        self.below, self.all_shortcuts = below, all_shortcuts
        if below is not None:
            self.u_down = CausalConv(channels, channels, (2, 3), 1, 1, stride=2)
            self.h_down = CausalConv(channels, channels, (2, 2), 1, 1, stride=2)
            self.u_up = overlapping(channels) if all_shortcuts else pointwise(channels, 4 * channels)
            self.h_up = pointwise(channels, 4 * channels)

    def vertical(self, u: Features, context: Tensor | None, evaluate: Whole) -> Messages:
        """Compute the vertical stream of the stage."""
        messages, shortcuts = Messages([], []), [u]
        for block in self.first:
            u, message = block.vertical(u, None, context, evaluate)
            messages.first.append(message)
            shortcuts.append(u)
        self._drop_unused(shortcuts)
        if self.below is not None:
            assert u is not None
            low, shape = evaluate.halve(self.u_down, u), (u.shape[2], u.shape[3])
            below = None
            if low is not None:
                half = evaluate.below()
                below = self.below.vertical(low, context, half)
                assert below.last is not None
                low = half(self.u_up, below.last)
            messages.below = evaluate.keep((self, "u"), below)
            u = evaluate.upsample(self.u_up, low, shape)
        for block in self.second:
            u, message = block.vertical(u, shortcuts.pop(), context, evaluate)
            messages.second.append(message)
        messages.last = u
        return messages

    def horizontal(self, h: Tensor, messages: Messages, context: Tensor | None, evaluate: Whole) -> Tensor:
        """Compute the horizontal stream of the stage."""
        shortcuts: list[Features] = [h]
        for block, message in zip(self.first, messages.first, strict=True):
            h = block.horizontal(h, evaluate.at_pixel(message), None, context, evaluate)
            shortcuts.append(h)
        self._drop_unused(shortcuts)
        if self.below is not None:
            low, shape = evaluate.halve(self.h_down, h), (h.shape[2], h.shape[3])
            if low is not None:
                assert messages.below is not None
                half = evaluate.below()
                low = half(self.h_up, self.below.horizontal(low, messages.below, context, half))
            h = evaluate.upsample(self.h_up, low, shape)
        for block, message in zip(self.second, messages.second, strict=True):
            h = block.horizontal(h, evaluate.at_pixel(message), shortcuts.pop(), context, evaluate)
        return h

    def _drop_unused(self, shortcuts: list[Features]) -> None:
        """Remove unused features: the stage's input, or the output of the lowest stage's last block."""
        if not self.all_shortcuts:
            del shortcuts[0]
        elif self.below is None:
            del shortcuts[-1]


class Positions(nn.Module):
    """Learned features of every position, initially zero: a stream's value before any pixel is added."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        value = torch.zeros(1, channels, height, width, dtype=torch.float32)
        self.value = nn.Parameter(value.contiguous(memory_format=torch.channels_last))


class CausalNet(MixedPrecision):
    """Features of every pixel from the pixels before it: first layers without the pixel itself, then a stage.

    Parameters
    ----------
    u_first : CausalConv or None
        Image -> vertical stream, from the rows above.
    h_first : list of CausalConv
        Image -> horizontal stream, from the row above and the pixels to the left; their outputs are summed.
    stage : Stage
    positions : two Positions, for the vertical and the horizontal stream, or none
    last : CausalConv or None
        A hidden layer after the stage, 1x1, between ReLUs.
    """

    def __init__(
        self,
        u_first: CausalConv | None,
        h_first: list[CausalConv],
        stage: Stage,
        positions: list[Positions] | None = None,
        last: CausalConv | None = None,
    ) -> None:
        super().__init__()
        self.u_first, self.h_first, self.stage = u_first, nn.ModuleList(h_first), stage
        self.positions, self.last = nn.ModuleList(positions or []), last

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, C, H, W) -> (n, channels, H, W)."""
        dtype = self.working_dtype(x)
        image = x.to(dtype, memory_format=torch.channels_last)
        return self.horizontal(image, self.vertical(image, context), context).to(x.dtype)

    def vertical(self, image: Tensor, context: Tensor | None, evaluate: Whole = whole) -> Messages:
        """Compute the vertical stream, at all rows or at the evaluation's current row."""
        u = None if self.u_first is None else evaluate.first(self.u_first, image)
        if u is not None and len(self.positions):
            u.add_(evaluate.part(self.positions[0].value).to(u.dtype))
        return self.stage.vertical(u, context, evaluate)

    def horizontal(self, image: Tensor, messages: Messages, context: Tensor | None, evaluate: Whole = whole) -> Tensor:
        """Compute the horizontal stream, at all pixels or at the evaluation's current pixel."""
        h, *more = [evaluate.first(layer, image) for layer in self.h_first]
        for part in more:
            h.add_(part)
        if len(self.positions):
            h.add_(evaluate.part(self.positions[1].value).to(h.dtype))
        h = self.stage.horizontal(h, messages, context, evaluate)
        return h if self.last is None else evaluate(self.last, h.relu()).relu_()

    def in_order(
        self, image: Tensor, context: Tensor | None = None
    ) -> Generator[tuple[int, int, Tensor], Tensor | None, None]:
        """Yield (i, j, features) of one pixel after the other, in raster order; features are (n, channels, 1, 1).

        The caller writes each pixel's value into `image` before it requests the next pixel. If the caller reorders the
        rows of `image`, as in resampling, it sends their indices (n,), and the context is reordered here.
        """
        rows, pixels = Cache(image, by_row=True), Cache(image, by_row=False)
        for i in range(image.shape[2]):
            rows.move(i)
            messages = self.vertical(image, context, rows)
            for j in range(image.shape[3]):
                pixels.move(i, j)
                index = yield i, j, self.horizontal(image, messages, context, pixels)
                if index is not None:
                    rows.reorder(index)
                    pixels.reorder(index)
                    messages, context = messages[index], None if context is None else context[index]

"""A causal network of ReLU layers for CPUs, on which a gate takes longer than the convolution before it."""

from __future__ import annotations

import torch
from torch import Tensor

from flowdetect.nets.activations import Pads
from flowdetect.nets.cache import Whole
from flowdetect.nets.causal import (
    Block,
    CausalNet,
    Features,
    Positions,
    Stage,
    add_context,
    context_bias,
    pointwise,
)
from flowdetect.nets.masked import CausalConv, Dropout

WIDE_KERNEL = 15  # of the first layer; it has few input channels, so a wide kernel costs little
NEARNESS = 12.0, 128.0  # decay rates from the lowest value of a range of 2: a sixth of it, and a step of 256


class LiftedConv(CausalConv):
    """A causal convolution of an image in [-1, 1] and of the nearness of each value to the lowest.

    In an image with a dark background, values a few steps apart can mean background or object.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int], top: int, left: int) -> None:
        super().__init__((1 + len(NEARNESS)) * in_channels, out_channels, kernel, top, left)

    def activate(self, x: Tensor, pads: Pads = (0, 0, 0, 0)) -> Tensor:
        height = (x + 1).clamp_min(0)
        near = [(-rate * height).exp() for rate in NEARNESS]
        return super().activate(torch.cat([x, *near], 1), pads)


class RectifiedBlock(Block):
    """Residual layer of both streams with ReLU, cheaper than a gate: 2x3 down and 1x2 right, then 1x1.

    The hidden layer of the vertical stream is the message to the hidden layer of the horizontal stream.
    """

    def __init__(self, channels: int, n_context: int, dropout: float) -> None:
        super().__init__()
        self.down = CausalConv(channels, channels, (2, 3), 1, 1, gain=2**0.5)
        self.right = CausalConv(channels, channels, (1, 2), 0, 1, gain=2**0.5)
        self.message = pointwise(channels, channels)
        self.u_out, self.out = pointwise(channels, channels, 0.25), pointwise(channels, channels, 0.25)
        self.dropout = Dropout(dropout)
        self.context_bias = context_bias(n_context, channels)
        self.u_context_bias = context_bias(n_context, channels)

    def vertical(
        self, u: Features, skip: Features, context: Tensor | None, evaluate: Whole
    ) -> tuple[Features, Features]:
        assert u is not None
        inner = add_context(evaluate(self.down, u), self.u_context_bias, context).relu_()
        return evaluate(self.u_out, inner).add_(u), evaluate(self.message, inner)

    def horizontal(
        self, h: Tensor, message: Features, skip: Features, context: Tensor | None, evaluate: Whole
    ) -> Tensor:
        assert message is not None
        inner = self.conditioned(evaluate(self.right, h).add_(message), context).relu_()
        return evaluate(self.out, self.dropout(inner)).add_(h)


def rectified_net(
    event_shape: tuple[int, int, int], channels: int, n_blocks: int, n_context: int, dropout: float, is_binned: bool
) -> CausalNet:
    """Build the network for images (C, H, W); is_binned: data in bins, mapped to [-1, 1]."""
    c, height, width = event_shape
    half = WIDE_KERNEL // 2
    first = LiftedConv if is_binned else CausalConv
    above = first(c, channels, (half, WIDE_KERNEL), half, half)
    left = first(c, channels, (1, half), 0, half)
    blocks: list[Block] = [RectifiedBlock(channels, n_context, dropout) for _ in range(n_blocks)]
    positions = [Positions(channels, height, width) for _ in range(2)]
    last = pointwise(channels, channels, 2**0.5)
    return CausalNet(above, [left], Stage(blocks, [], None, channels), positions, last)

"""The layers of PixelCNN++: gated residual networks on the elus of x and of -x.

Salimans et al. 2017, "PixelCNN++", https://arxiv.org/abs/1701.05517
"""

from __future__ import annotations

from torch import Tensor, nn

from flowdetect.nets import blockwise, fused
from flowdetect.nets.activations import add_gated
from flowdetect.nets.cache import Whole, whole
from flowdetect.nets.causal import Block, Features, add_context, context_bias, pointwise
from flowdetect.nets.masked import CausalConv, Layers


class GatedResidual(nn.Module):
    """x + a sigma(b), (a, b) = V c + conv(dropout(celu(conv(celu(x)) + message))), celu the elus of x and of -x.

    Salimans et al. 2017, "PixelCNN++", and the authors' code (gated_resnet); c is a context.
    """

    def __init__(
        self, channels: int, kernel: tuple[int, int], dropout: float, has_skip: bool, n_context: int = 0
    ) -> None:
        super().__init__()
        self.first = CausalConv(channels, channels, kernel, 1, 1, elu=True)
        self.second = CausalConv(channels, 2 * channels, kernel, 1, 1, gain=0.05, elu=True, dropout=dropout)
        self.skip = pointwise(channels, channels, elu=True) if has_skip else None
        self.context_bias = context_bias(n_context, 2 * channels)

    def forward(
        self,
        x: Tensor,
        message: Features,
        skip: Features,
        context: Tensor | None,
        evaluate: Whole,
        sends: CausalConv | None = None,
    ) -> tuple[Tensor, Features]:
        """Map a stream to the same stream; also return the message that the layer `sends` computes from it."""
        if evaluate is whole:
            bias, layers = self.context_bias, Layers(self.first, self.second, self.skip, sends)
            added = None if bias is None or context is None else bias(context).to(x.dtype)
            if fused.can_fuse(x, self.training):
                return fused.gated_residual(x, message, skip, added, layers)
            if blockwise.can_split(x, self.training):
                return blockwise.gated_residual(x, message, skip, added, layers)
        inner = evaluate(self.first, x)
        if message is not None:
            inner.add_(message)
        if self.skip is not None:
            assert skip is not None
            inner.add_(evaluate(self.skip, skip))
        out = add_gated(x, add_context(evaluate(self.second, inner), self.context_bias, context))
        return out, None if sends is None else evaluate(sends, out)


class ResidualBlock(Block):
    """PixelCNN++ layer: a `GatedResidual` in each stream.

    The context enters both streams, as in the authors' code; with both_streams=False only the horizontal stream.
    """

    def __init__(
        self, channels: int, n_context: int, dropout: float, has_skip: bool = False, both_streams: bool = True
    ) -> None:
        super().__init__()
        n_gated = n_context if both_streams else 0
        self.down = GatedResidual(channels, (2, 3), dropout, has_skip, n_gated)
        self.right = GatedResidual(channels, (2, 2), dropout, has_skip, n_gated)
        self.message = pointwise(channels, channels, elu=True)
        self.context_bias = context_bias(n_context - n_gated, channels)

    def vertical(
        self, u: Features, skip: Features, context: Tensor | None, evaluate: Whole
    ) -> tuple[Features, Features]:
        sent: tuple[Tensor, Features] = self.down(u, None, skip, context, evaluate, self.message)
        return sent

    def horizontal(
        self, h: Tensor, message: Features, skip: Features, context: Tensor | None, evaluate: Whole
    ) -> Tensor:
        assert message is not None
        h_next: Tensor = self.right(h, self.conditioned(message, context), skip, context, evaluate)[0]
        return h_next

"""Gated convolutions with self-attention: the networks inside the couplings of Flow++.

Ho et al. 2019, "Flow++", section 3.3, https://arxiv.org/abs/1902.00275
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowdetect.nets.activations import add_gated
from flowdetect.nets.causal import pointwise
from flowdetect.nets.conv import MixedPrecision
from flowdetect.nets.masked import CausalConv, Dropout
from flowdetect.nets.transformer import attention

GATE_GAIN = 0.1  # gain of the layers before a gate
PLACE_SCALE = 0.1  # initial scale of the learned vectors of positions


def centred_conv(
    in_channels: int, out_channels: int, kernel_size: int, gain: float = 1.0, elu: bool = False
) -> CausalConv:
    """Build a centred convolution that keeps height and width."""
    reach = kernel_size // 2
    return CausalConv(in_channels, out_channels, (kernel_size, kernel_size), reach, reach, gain=gain, elu=elu)


class ChannelNorm(nn.Module):
    """Layer normalisation of the channels at each position, with a learned scale and shift per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, H, W) -> (n, channels, H, W), in the dtype of x."""
        places = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(places, places.shape[-1:], self.weight.to(x.dtype), self.bias.to(x.dtype))
        return normed.permute(0, 3, 1, 2)


class GatedConv(nn.Module):
    """x + a sigma(b), (a, b) = W2 celu(dropout(W1 * celu(x))), celu the elus of x and of -x, W2 a 1x1 convolution."""

    def __init__(self, channels: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.mix = centred_conv(channels, channels, kernel_size, elu=True)
        self.dropout = Dropout(dropout)
        self.out = pointwise(channels, 2 * channels, GATE_GAIN, elu=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, H, W) -> (n, channels, H, W)."""
        return add_gated(x, self.out(self.dropout(self.mix(x))))


class GatedAttention(nn.Module):
    """x + a sigma(b), (a, b) by multi-head attention of every position to all positions.

    Queries, keys and values depend on x and on a learned vector of the position.

    Parameters
    ----------
    channels, n_heads : int
        n_heads must divide channels.
    height, width : int
    dropout : float
        Dropout rate of the attention's output.
    """

    def __init__(self, channels: int, n_heads: int, height: int, width: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.places = nn.Parameter(torch.zeros(channels, height, width, dtype=torch.float32))
        self.qkv = pointwise(channels, 3 * channels)
        self.dropout = Dropout(dropout)
        self.out = pointwise(channels, 2 * channels, GATE_GAIN)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the vectors of the positions; layers draw their own parameters."""
        self.places.copy_(PLACE_SCALE * torch.randn(self.places.shape, generator=generator, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, H, W) -> (n, channels, H, W)."""
        n, c, h, w = x.shape
        qkv = self.qkv(x + self.places.to(x.dtype)).reshape(n, 3, self.n_heads, c // self.n_heads, h * w)
        q, k, v = qkv.transpose(3, 4).unbind(1)  # (n, n_heads, H W, c / n_heads)
        if self.training:  # faster, but may depend on the batch; in bfloat16 3 times as slow
            wide = torch.promote_types(x.dtype, torch.float32)
            parts = (part.to(wide).contiguous() for part in (q, k, v))
            seen = F.scaled_dot_product_attention(*parts).to(x.dtype)
        else:
            seen = attention(q, k, v)
        seen = seen.permute(0, 1, 3, 2).reshape(n, c, h, w)
        return add_gated(x, self.out(self.dropout(seen)))


class GatedAttentionNet(MixedPrecision):
    """A convolution, blocks of a gated convolution and gated attention, each normalised afterwards, and a convolution.

    The last convolution starts at zero. At 1x1 there is only one position, and so no attention.

    Parameters
    ----------
    in_channels, hidden_channels, out_channels : int
    n_blocks, n_heads : int
        n_heads must divide hidden_channels; 0: no attention.
    height, width : int
    dropout : float
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        n_blocks: int,
        n_heads: int,
        height: int,
        width: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        kernel_size = 1 if height == width == 1 else 3
        self.first = centred_conv(in_channels, hidden_channels, kernel_size)
        self.layers = nn.ModuleList()
        for _ in range(n_blocks):
            self.layers += [GatedConv(hidden_channels, kernel_size, dropout), ChannelNorm(hidden_channels)]
            if n_heads and height * width > 1:
                attend = GatedAttention(hidden_channels, n_heads, height, width, dropout)
                self.layers += [attend, ChannelNorm(hidden_channels)]
        self.last = centred_conv(hidden_channels, out_channels, kernel_size, gain=0.0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, in_channels, H, W) -> (n, out_channels, H, W), in the dtype of x."""
        h = self.first(x.to(self.working_dtype(x), memory_format=torch.channels_last))
        for layer in self.layers:
            h = layer(h)
        out: Tensor = self.last(h)
        return out.to(x.dtype, memory_format=torch.contiguous_format)

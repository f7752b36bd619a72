"""Residual networks with weight normalisation, for the couplings of RealNVP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowdetect.nets.conv import ContextMap, MixedPrecision

NEW_SHARE, LEAST_VARIANCE = 0.05, 1e-5  # share of a batch in the running averages; added to a variance


class WeightNormConv(nn.Module):
    """A convolution with weights g v / |v|, with |v| per output channel (Salimans & Kingma 2016, eq. 2).

    If a channel has only one weight, v / |v| is its sign; v then has no gradient and is not a parameter.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        v = torch.ones(out_channels, in_channels, kernel_size, kernel_size, dtype=torch.float32)
        v = v.contiguous(memory_format=torch.channels_last)
        if v[0].numel() > 1:
            self.v = nn.Parameter(v)
        else:
            self.register_buffer("v", v)
        self.g = nn.Parameter(torch.full((out_channels,), gain, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(out_channels, dtype=torch.float32))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the directions v; lengths g start at the gain, which is 0 for a network's last layer."""
        self.v.copy_(torch.randn(self.v.shape, generator=generator, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, H, W) -> (n, out_channels, H, W), in the dtype of x."""
        norm = self.v.square().sum((1, 2, 3), keepdim=True).sqrt()
        weight = self.v * (self.g[:, None, None, None] / norm)
        if self.training and x.shape[2:] == self.v.shape[2:] == (1, 1):  # for tables, in a third of the time
            return F.linear(x.flatten(1), weight.flatten(1).to(x.dtype), self.bias.to(x.dtype))[:, :, None, None]
        return F.conv2d(x, weight.to(x.dtype), self.bias.to(x.dtype), padding=self.v.shape[-1] // 2)


class FeatureNorm(nn.Module):
    """Batch normalisation of features: (h - mean) / std * gain + bias per channel; scores use running averages.

    In training mode mean and variance are those of the batch, computed in float32.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, dtype=torch.float32))
        self.register_buffer("variance", torch.ones(channels, dtype=torch.float32))
        self.gain = nn.Parameter(torch.ones(channels, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=torch.float32))

    def forward(self, h: Tensor) -> Tensor:
        """(n, channels, H, W) -> (n, channels, H, W), in the dtype of h."""
        mean, variance = self.mean, self.variance
        if self.training:
            variance, mean = torch.var_mean(h.to(mean.dtype), (0, 2, 3), correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, NEW_SHARE)
                self.variance.lerp_(variance, NEW_SHARE)
        scale = self.gain / (variance + LEAST_VARIANCE).sqrt()
        shift = self.bias - mean * scale
        return h * scale.to(h.dtype)[:, None, None] + shift.to(h.dtype)[:, None, None]


class ResidualNet(MixedPrecision):
    """A convolution, residual blocks of two convolutions with ReLU before each, and a 1x1 convolution.

    The last layer and the end of every block start at zero, so the output is initially zero. A coupling with this
    network then starts as the identity, except with scale "sigmoid" (s = 0.881). Dinh et al. 2017, "Density estimation
    using Real NVP", section 3.7; there batch_norm=True.

    Parameters
    ----------
    in_channels, hidden_channels, out_channels : int
    n_blocks : int
    kernel_size : int
        Odd; 1 makes it a perceptron over the channels, for tables.
    n_context : int
        Length of a context (n, n_context), mapped linearly and added to the first hidden layer; 0: it is ignored.
    batch_norm : bool
        Whether to apply batch normalisation before each ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        n_blocks: int,
        kernel_size: int = 3,
        n_context: int = 0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.context_map = ContextMap(n_context, hidden_channels, 1, 1) if n_context else None
        self.first = WeightNormConv(in_channels, hidden_channels, kernel_size)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    WeightNormConv(hidden_channels, hidden_channels, kernel_size, 2**0.5),
                    WeightNormConv(hidden_channels, hidden_channels, kernel_size, 0.1),
                ]
            )
            for _ in range(n_blocks)
        )
        self.last = WeightNormConv(hidden_channels, out_channels, 1, 0.0)
        self.norms = nn.ModuleList(FeatureNorm(hidden_channels) for _ in range((2 * n_blocks + 1) * batch_norm))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, in_channels, H, W) -> (n, out_channels, H, W), in the dtype of x."""
        h = self.first(x.to(self.working_dtype(x), memory_format=torch.channels_last))
        if self.context_map is not None and context is not None:
            h = h + self.context_map(context).to(h.dtype)
        norms = iter(self.norms)

        def active(inner: Tensor) -> Tensor:
            normed: Tensor = next(norms)(inner) if len(self.norms) else inner
            return normed.relu()

        for widen, close in self.blocks:
            h = h + close(active(widen(active(h))))
        out: Tensor = self.last(active(h))
        return out.to(x.dtype, memory_format=torch.contiguous_format)

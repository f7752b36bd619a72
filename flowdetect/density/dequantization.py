"""Dequantisation of data in bins: uniform noise, or noise whose distribution is learned with the flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowdetect.bijections import (
    AffineCoupling,
    Bijection,
    Chain,
    Permute,
    Standardize,
    UniformDequantize,
    VariationalDequantize,
)
from flowdetect.bijections.dequantize import Dequantize, has_blocks
from flowdetect.density.spec import DataSpec
from flowdetect.nets import ConvNet
from flowdetect.nets.autoencoder import Affine
from flowdetect.nets.conv import MixedPrecision

# size of the learned q(u | x): cheap compared with any flow of images
HIDDEN_CHANNELS = 32
N_COUPLINGS = 2


class ImageFeatures(MixedPrecision):
    """Two convolutions, each followed by a ReLU: (n, C, H, W) -> (n, channels, H, W)."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.first = Affine(in_channels, channels, kernel_size, gain=2**0.5)
        self.last = Affine(channels, channels, kernel_size, gain=2**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (n, channels, H, W), in the dtype of x."""
        h = x.to(self.working_dtype(x), memory_format=torch.channels_last)
        h = self.last(self.first(h).relu_()).relu_()
        out: Tensor = h.to(x.dtype)
        return out


class Beside(nn.Module):
    """Pass an image and features to a network, the features as further channels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """(n, c, H, W) and (n, F, H, W) -> the network's output for (n, c + F, H, W)."""
        out: Tensor = self.net(torch.cat([x, features], 1))
        return out


def check_dequantization(spec: DataSpec, kind: str, name: str) -> None:
    """Refuse learned noise for real values."""
    if spec.n_bins is None and kind == "variational":
        raise ValueError(
            f'{name}: dequantization="variational" is for data in bins, but X is real-valued and needs no noise; pass '
            '"uniform" (which then has no effect), or n_bins if X holds whole numbers.'
        )


def build_dequantization(spec: DataSpec, kind: str) -> Dequantize | None:
    """Build the layer that adds noise to data in bins; None for real values, which need none.

    Parameters
    ----------
    spec : DataSpec
    kind : "uniform" or "variational"
    """
    if spec.n_bins is None:
        return None
    if kind == "uniform":
        return UniformDequantize(spec.event_shape, spec.n_bins)
    channels = spec.event_shape[0] * (4 if has_blocks(spec.event_shape) else 1)
    kernel_size = 1 if spec.is_table else 3
    net = ImageFeatures(channels, HIDDEN_CHANNELS, kernel_size)
    return VariationalDequantize(spec.event_shape, spec.n_bins, _noise_flow(channels, kernel_size), net)


def _noise_flow(channels: int, kernel_size: int) -> Chain:
    """Build couplings between the halves of the channels, then a shift and a scale of each single value."""
    steps: list[Bijection] = []
    kept, changed = channels - channels // 2, channels // 2
    for _ in range(N_COUPLINGS if changed else 0):
        net = ConvNet(kept + HIDDEN_CHANNELS, HIDDEN_CHANNELS, 2 * changed, kernel_size)
        steps += [AffineCoupling(Beside(net), "exp"), Permute(channels)]
    net = ConvNet(HIDDEN_CHANNELS, HIDDEN_CHANNELS, 2 * channels, 1)
    return Chain([*steps, Standardize(net)])

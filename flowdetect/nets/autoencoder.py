"""Encoders and decoders of latent-variable models, and the likelihoods of decoders.

An encoder maps values (n, C, H, W) to a vector; a decoder maps a vector to features of every pixel, (n, F, H, W), which
a head turns into the distribution of the pixel's channels. A table of D columns is a strip of D pixels, (n, 1, D, 1).
Their only non-linearity is ReLU, whose results are bitwise the same in any batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowdetect.distributions import HALF_LOG_2PI, standard_normal_quantile
from flowdetect.nets.causal import pointwise
from flowdetect.nets.conv import ContextMap, MixedPrecision
from flowdetect.nets.heads import CategoricalHead, LogisticMixtureHead

LEAST_SIDE = 8  # images are halved while their shorter side has at least this many pixels
WIDEST = 4  # largest width, in widths at full resolution
BLOCK_GAIN = 0.3  # gain of a block's last layer
ENCODER_GAIN = 0.5  # gain of an encoder's last layer
MAX_LOG_SCALE = 7.0


class Affine(nn.Module):
    """A linear layer, or a convolution that divides height and width by its stride, rounded up.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or None
        Odd; None: a linear layer.
    stride : int
    gain : float
        Initial weights have variance gain^2 / fan in; biases start at zero.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | None = None, stride: int = 1, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.stride, self.gain = stride, gain
        kernel = () if kernel_size is None else (kernel_size, kernel_size)
        weight = torch.zeros(out_channels, in_channels, *kernel, dtype=torch.float32)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last) if kernel else weight)
        self.bias = nn.Parameter(torch.zeros(out_channels, dtype=torch.float32))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        noise = torch.randn(self.weight.shape, generator=generator, dtype=torch.float32)
        self.weight.copy_(noise * (self.gain * self.weight[0].numel() ** -0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels) or (n, in_channels, H, W) -> (n, out_channels, ...), in the dtype of x."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if weight.ndim == 2 and self.training:
            return F.linear(x, weight, bias)
        if weight.ndim == 2:  # as a convolution: bitwise independent of a row's position and of the number of threads
            return F.conv2d(x[:, :, None, None], weight[:, :, None, None], bias)[:, :, 0, 0]
        return F.conv2d(x, weight, bias, self.stride, weight.shape[-1] // 2)


class Block(nn.Module):
    """x + W2 relu(W1 relu(x)), of vectors (n, channels) or images (n, channels, H, W)."""

    def __init__(self, channels: int, kernel_size: int | None = None) -> None:
        super().__init__()
        self.first = Affine(channels, channels, kernel_size, gain=2**0.5)
        self.last = Affine(channels, channels, kernel_size, gain=BLOCK_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.first(x.relu()).relu_())
        return x + y


class Double(nn.Module):
    """A convolution to 4 times the channels, each four of which become 2x2 pixels, cropped to (H, W).

    Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution", section 3.2.
    """

    def __init__(self, in_channels: int, out_channels: int, height: int, width: int) -> None:
        super().__init__()
        self.conv = Affine(in_channels, 4 * out_channels, 3)
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, ceil(H / 2), ceil(W / 2)) -> (n, out_channels, H, W)."""
        pixels = F.pixel_shuffle(self.conv(x), 2)[:, :, : self.height, : self.width]
        return pixels.contiguous(memory_format=torch.channels_last)


def image_sides(height: int, width: int) -> list[tuple[int, int]]:
    """Return height and width at each resolution, full resolution first; each is half of the one before."""
    sides = [(height, width)]
    while min(sides[-1]) >= LEAST_SIDE:
        sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))
    return sides


class ImageEncoder(MixedPrecision):
    """Convolutions that halve an image, each followed by residual blocks, and a linear layer at the end.

    Parameters
    ----------
    image_shape : (C, H, W)
    hidden_channels : int
        Width at full resolution; it doubles with each halving, up to 4 times. If there is a coarser resolution, the
        encoder has no layer at full resolution.
    n_blocks : int
        At each resolution.
    out_features : int
    n_context : int
        Length of a context, mapped linearly and added to the first hidden layer; 0: none.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], hidden_channels: int, n_blocks: int, out_features: int, n_context: int
    ) -> None:
        super().__init__()
        before, sides = image_shape[0], image_sides(*image_shape[1:])
        self.layers = nn.ModuleList()
        for level in range(1, len(sides)) or [0]:
            channels = hidden_channels * min(2**level, WIDEST)
            self.layers.append(Affine(before, channels, 3, stride=2 if level else 1))
            self.layers.extend(Block(channels, 3) for _ in range(n_blocks))
            before = channels
        first = self.layers[0].weight.shape[0]
        self.context_map = ContextMap(n_context, first, 1, 1) if n_context else None
        self.out = Affine(before * math.prod(sides[-1]), out_features, gain=ENCODER_GAIN)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, C, H, W) -> (n, out_features), in the dtype of x."""
        h = x.to(self.working_dtype(x), memory_format=torch.channels_last)
        for i, layer in enumerate(self.layers):
            h = layer(h)
            if i == 0 and self.context_map is not None and context is not None:
                h = h + self.context_map(context).to(h.dtype)
        features: Tensor = self.out(h.relu().to(x.dtype, memory_format=torch.contiguous_format).flatten(1))
        return features


class ImageDecoder(MixedPrecision):
    """The mirror image of `ImageEncoder`, with at least one residual block at full resolution.

    Parameters
    ----------
    in_features : int
    image_shape, hidden_channels, n_blocks
        As in `ImageEncoder`; `hidden_channels` is the number of output features per pixel.
    n_context : int
        Length of a context, mapped linearly and added to the first hidden layer; 0: none.
    """

    def __init__(
        self, in_features: int, image_shape: tuple[int, int, int], hidden_channels: int, n_blocks: int, n_context: int
    ) -> None:
        super().__init__()
        sides = image_sides(*image_shape[1:])
        channels = hidden_channels * min(2 ** (len(sides) - 1), WIDEST)
        self.coarsest = (channels, *sides[-1])
        self.first = Affine(in_features, math.prod(self.coarsest))
        self.context_map = ContextMap(n_context, math.prod(self.coarsest)) if n_context else None
        layers: list[nn.Module] = []
        for level in range(len(sides) - 1, 0, -1):
            layers += [Block(channels, 3) for _ in range(n_blocks)]
            finer = hidden_channels * min(2 ** (level - 1), WIDEST)
            layers.append(Double(channels, finer, *sides[level - 1]))
            channels = finer
        layers += [Block(channels, 3) for _ in range(1 if len(sides) > 1 else n_blocks)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, in_features) -> (n, hidden_channels, H, W), in the dtype of z."""
        h = self.first(z)
        if self.context_map is not None and context is not None:
            h = h + self.context_map(context)
        h = h.unflatten(1, self.coarsest).to(self.working_dtype(z), memory_format=torch.channels_last)
        features: Tensor = self.layers(h).to(z.dtype, memory_format=torch.contiguous_format)
        return features


class VectorNet(nn.Module):
    """A perceptron with residual blocks, from a row or vector to a vector or to features of every column.

    Parameters
    ----------
    in_features : int
        All axes but the first, flattened.
    hidden_features, n_blocks : int
    out_shape : tuple of int
    n_context : int
        Length of a context, mapped linearly and added to the first hidden layer; 0: none.
    """

    def __init__(
        self, in_features: int, hidden_features: int, n_blocks: int, out_shape: tuple[int, ...], n_context: int
    ) -> None:
        super().__init__()
        self.out_shape = out_shape
        self.context_map = ContextMap(n_context, hidden_features) if n_context else None
        self.first = Affine(in_features, hidden_features)
        self.blocks = nn.Sequential(*(Block(hidden_features) for _ in range(n_blocks)))
        self.out = Affine(hidden_features, math.prod(out_shape), gain=ENCODER_GAIN)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, ...) -> (n, *out_shape)."""
        h = self.first(x.flatten(1))
        if self.context_map is not None and context is not None:
            h = h + self.context_map(context)
        vector: Tensor = self.out(self.blocks(h))
        return vector.reshape(-1, *self.out_shape)


class GaussianHead(nn.Module):
    """Features of a pixel -> a normal distribution of each channel, with log-scale in (-7, 7)."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.n_uniforms = channels
        self.out = pointwise(features, 2 * channels, gain=0.1)

    def _normal(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale, (n, C, H, W) each."""
        mean, raw = self.out(h).chunk(2, 1)
        return mean, MAX_LOG_SCALE * torch.tanh(raw / MAX_LOG_SCALE)

    def log_prob(self, h: Tensor, y: Tensor) -> Tensor:
        """Log-density of each channel: (n, C, H, W)."""
        mean, log_s = self._normal(h)
        return -0.5 * ((y - mean) * (-log_s).exp()).square() - log_s - HALF_LOG_2PI

    def draw(self, h: Tensor, u: Tensor, temperature: float) -> Tensor:
        """Draw values y (n, C, H, W) from uniform numbers u (n, C, H, W); the temperature multiplies the scale."""
        mean, log_s = self._normal(h)
        return mean + temperature * log_s.exp() * standard_normal_quantile(u)

    def mean(self, h: Tensor) -> Tensor:
        """Mean of each channel: (n, C, H, W)."""
        return self._normal(h)[0]


class DecodedMixture(LogisticMixtureHead):
    """`LogisticMixtureHead` with a mean."""

    def mean(self, h: Tensor) -> Tensor:
        """Mean of each channel before rounding, in [-1, 1] for data in bins: (n, C, H, W).

        Within a component, a channel's location is linear in the channels before it, so their means give its mean.
        """
        log_pi, mu, log_s, coefficients = self._mixture(h)
        means: list[Tensor] = []  # (n, M, H, W) each
        for c in range(self.channels):
            before = torch.stack(means, 2) if means else mu
            location, start = mu[:, :, c], c * (c - 1) // 2
            for k in range(c):
                location = location + coefficients[:, :, start + k].tanh() * before[:, :, k]
            means.append(location if self.n_bins is None else _clipped_mean(location, log_s[:, :, c]))
        return (log_pi.exp()[:, :, None] * torch.stack(means, 2)).sum(1)


def _clipped_mean(mu: Tensor, log_s: Tensor) -> Tensor:
    """Mean of a logistic variable clipped to [-1, 1]: -1 + integral of P(y > t) over t from -1 to 1."""
    s = log_s.exp()
    return s * (F.logsigmoid((1 - mu) / s) - F.logsigmoid((-1 - mu) / s)) - 1


class DecodedCategorical(CategoricalHead):
    """`CategoricalHead` with a mean."""

    def mean(self, h: Tensor) -> Tensor:
        """Mean of each channel, given the means of the channels before it: (n, C, H, W)."""
        grid = torch.linspace(-1, 1, self.n_bins, dtype=h.dtype, device=h.device)
        y = h.new_zeros(h.shape[0], 0, *h.shape[2:])
        for c in range(self.channels):
            p = self._logits(h, y, c).log_softmax(1).exp()  # not softmax, which depends on the number of threads
            y = torch.cat([y, (p * grid[:, None, None]).sum(1, keepdim=True)], 1)
        return y

"""Masked layers: outputs depend only on earlier inputs, in raster order or in the order of features."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowdetect.nets.activations import Pads, concat_elu
from flowdetect.nets.conv import map_rows

# One Adam step moves every weight by the learning rate, and so an output by that times its number of weights. In layers
# wider than this, weights are stored multiplied by the ratio of the widths, and so move less (Yang et al. 2021, "Tensor
# Programs V", Table 3)
REFERENCE_FAN_IN = 288
# the same for layers on elus, whose inputs are not bounded: with 288, a PixelCNN++ of 32 filters diverged on MNIST
REFERENCE_FAN_IN_ELU = 96


class Dropout(nn.Module):
    """Dropout with its own generator, which training seeds at every step."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Set each value to 0 with the given probability and scale up the others; in training only."""
        if not self.training or not self.probability:
            return x
        kept = torch.rand(x.shape, generator=self.generator, dtype=torch.float32) >= self.probability
        return x * kept.to(x.device, x.dtype) / (1 - self.probability)


def seed_dropouts(module: nn.Module, seed: int) -> None:
    """Make all dropout layers inside a module draw from one generator with this seed."""
    generator = torch.Generator().manual_seed(seed)
    for each in module.modules():
        if isinstance(each, Dropout):
            each.generator = generator


class CausalConv(nn.Module):
    """A convolution up and to the left: y[i, j] = sum_ab w[a, b] x[i - top + a, j - left + b] + bias.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel : (kh, kw)
    top, left : int
        Distance of the kernel's first row above, and of its first column left of, the pixel. top = kh: only rows above.
    stride : 1 or 2
    mask : (kh, kw) tensor of 0 and 1, or (out_channels, 1, kh, kw), or None
    gain : float
        Gain of the initial weights; 0: the layer starts at zero.
    elu : bool
        Whether the input is the concatenated elus of x and of -x.
    dropout : float
        Dropout rate of the input.
    """

    mask: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        top: int,
        left: int,
        stride: int = 1,
        mask: Tensor | None = None,
        gain: float = 1.0,
        elu: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.kernel, self.top, self.left, self.stride, self.gain, self.elu = kernel, top, left, stride, gain, elu
        self.pads = left, kernel[1] - 1 - left, top, kernel[0] - 1 - top
        self.dropout = Dropout(dropout)
        weight = torch.zeros(out_channels, (1 + elu) * in_channels, *kernel, dtype=torch.float32)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.zeros(out_channels, dtype=torch.float32))
        self.register_buffer("mask", mask, persistent=False)
        seen = kernel[0] * kernel[1] if mask is None else float(mask.sum()) / mask[..., 0, 0].numel()  # per output
        self.fan_in = max(1, weight.shape[1] * seen)
        self.slowness = max(1.0, self.fan_in / (REFERENCE_FAN_IN_ELU if elu else REFERENCE_FAN_IN))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw weights of variance gain^2 / fan in; biases start at zero."""
        noise = torch.randn(self.weight.shape, generator=generator, dtype=torch.float32)
        self.weight.copy_(noise * (self.slowness * self.gain / self.fan_in**0.5))

    def kernel_weight(self) -> Tensor:
        """Return the weights of the convolution, zero where masked."""
        weight = self.weight if self.slowness == 1 else self.weight / self.slowness
        return weight if self.mask is None else weight * self.mask

    def activate(self, x: Tensor, pads: Pads = (0, 0, 0, 0)) -> Tensor:
        """Return the padded input of the convolution, after elus and dropout."""
        if self.elu:
            x = concat_elu(x, pads)
        elif any(pads):
            x = F.pad(x, pads)
        dropped: Tensor = self.dropout(x)
        return dropped

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, H, W) -> (n, out_channels, ceil(H / stride), ceil(W / stride)), in the dtype of x."""
        weight, bias = self.kernel_weight().to(x.dtype), self.bias.to(x.dtype)
        return F.conv2d(self.activate(x, self.pads), weight, bias, self.stride)


class Layers(NamedTuple):
    """The convolutions of a gated residual layer: for x, for the hidden layer, for the skip and for the message."""

    first: CausalConv
    second: CausalConv
    skip: CausalConv | None
    message: CausalConv | None


def degree_mask(in_degrees: Tensor, out_degrees: Tensor, strict: bool = False) -> Tensor:
    """Mask (out, in) of 0 and 1: an output depends on inputs of at most its degree, or below it if strict."""
    below = in_degrees[None] < out_degrees[:, None]
    return (below if strict else below | (in_degrees[None] == out_degrees[:, None])).to(torch.float32)


def masked_linear(x: Tensor, weight: Tensor, bias: Tensor, training: bool) -> Tensor:
    """(n, in, 1, 1) -> (n, out, 1, 1), with weights (out, in).

    In evaluation it is a convolution, which gives equal rows equal results at any position (batch invariance); in
    training a matrix product, in a third of the time.
    """
    if training:
        return F.linear(x.flatten(1), weight, bias)[:, :, None, None]
    return F.conv2d(x, weight[:, :, None, None], bias)


class MaskedLinear(nn.Module):
    """A linear layer: an output of degree d depends on inputs of degree at most d, or below d.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation", eq. 8 and 9.

    Parameters
    ----------
    in_degrees, out_degrees : (in,) and (out,) integer tensors
    strict : bool
        Whether an output depends only on degrees below its own.
    gain : float
        Gain of the initial weights.
    """

    mask: Tensor

    def __init__(self, in_degrees: Tensor, out_degrees: Tensor, strict: bool = False, gain: float = 1.0) -> None:
        super().__init__()
        mask = degree_mask(in_degrees, out_degrees, strict)
        self.register_buffer("mask", mask, persistent=False)
        self.gain = gain
        self.weight = nn.Parameter(torch.zeros(mask.shape, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(len(out_degrees), dtype=torch.float32))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw weights of variance gain^2 / fan in, row by row; biases start at zero."""
        noise = torch.randn(self.weight.shape, generator=generator, dtype=torch.float32)
        self.weight.copy_(noise * self.gain / self.mask.sum(1, keepdim=True).clamp_min(1).sqrt())

    def masked_weight(self) -> Tensor:
        """Return the weights, zero where masked."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, 1, 1) -> (n, out, 1, 1)."""
        return masked_linear(x, self.masked_weight(), self.bias, self.training)


def context_biases(maps: nn.ParameterList, context: Tensor | None) -> list[Tensor | None]:
    """Map a context (n, n_context) to biases of the first hidden layer and of the outputs, (n, width, 1, 1) each."""
    if context is None or not len(maps):
        return [None, None]
    return [map_rows(context.to(weight.dtype), weight, maps.training)[:, :, None, None] for weight in maps]


class MADE(nn.Module):
    """A masked perceptron from the features before each feature to its parameters.

    Germain et al. 2015, "MADE: Masked Autoencoder for Distribution Estimation", https://arxiv.org/abs/1502.03509

    Parameters
    ----------
    n_features : int
    hidden_features : sequence of int
        Widths of the hidden layers; raised to n_features - 1 if smaller, so that every feature reaches all later ones.
    n_outputs : int
        Parameters per feature; all start at zero.
    n_context : int
        Length of a context (n, n_context); 0: it is ignored.
    """

    def __init__(self, n_features: int, hidden_features: Sequence[int], n_outputs: int, n_context: int = 0) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        features = degrees = torch.arange(n_features)
        layers = []
        for width in hidden_features:
            before, degrees = degrees, torch.arange(max(width, n_features - 1)) % max(1, n_features - 1)
            layers.append(MaskedLinear(before, degrees, gain=2**0.5))
        self.hidden = nn.ModuleList(layers)
        self.out = MaskedLinear(degrees, features.repeat(n_outputs), strict=True, gain=0.0)
        # the context also enters the outputs, since the first feature depends on no hidden unit
        widths = [len(layers[0].bias) if layers else n_features, n_features * n_outputs] if n_context else []
        self.context_maps = nn.ParameterList(torch.zeros(n_context, width, dtype=torch.float32) for width in widths)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(D, n) -> (n_outputs, D, n); with the batch last, elementwise maps of the outputs are fastest."""
        of_hidden, of_out = context_biases(self.context_maps, context)
        h = x.t()[:, :, None, None]
        for i, layer in enumerate(self.hidden):
            h = layer(h)
            h = h if i or of_hidden is None else h + of_hidden
            h = h.relu()
        if self.training:
            out = torch.addmm(self.out.bias[:, None], self.out.masked_weight(), h.flatten(1).t())
        else:
            out = self.out(h).flatten(1).t().contiguous()
        out = out if of_out is None else out + of_out.flatten(1).t()
        return torch.unflatten(out, 0, (self.n_outputs, -1))

    def masks_and_parameters(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the mask of each layer, and weights and biases, layer by layer."""
        layers = [*self.hidden, self.out]
        return [layer.mask for layer in layers], [tensor for layer in layers for tensor in (layer.weight, layer.bias)]


class MaskedMLP(nn.Module):
    """Features of every column of a table from the columns before it, by masked layers with residual blocks.

    Parameters
    ----------
    n_columns : int
    hidden : int
        Width; raised to n_columns - 1 if smaller, so that every column reaches all later ones.
    features : int
        Features per column.
    n_blocks : int
    n_context : int
        Length of a context (n, n_context); 0: it is ignored.
    dropout : float
    """

    def __init__(
        self, n_columns: int, hidden: int, features: int, n_blocks: int, n_context: int, dropout: float
    ) -> None:
        super().__init__()
        columns = torch.arange(n_columns)
        degrees = torch.arange(max(hidden, n_columns - 1)) % max(1, n_columns - 1)
        self.first = MaskedLinear(columns, degrees)
        self.blocks = nn.ModuleList(
            nn.ModuleList([MaskedLinear(degrees, degrees, gain=2**0.5), MaskedLinear(degrees, degrees, gain=0.1)])
            for _ in range(n_blocks)
        )
        self.out = MaskedLinear(degrees, columns.repeat_interleave(features), strict=True)
        self.dropout = Dropout(dropout)
        # the context also enters the outputs, since the first column depends on no hidden unit
        widths = [len(degrees), n_columns * features] if n_context else []
        self.context_maps = nn.ParameterList(torch.zeros(n_context, width, dtype=torch.float32) for width in widths)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, 1, D, 1) -> (n, features, D, 1)."""
        of_hidden, of_out = context_biases(self.context_maps, context)
        h = self.first(x.transpose(1, 2))
        h = h if of_hidden is None else h + of_hidden
        for widen, close in self.blocks:
            h = h + close(self.dropout(widen(h.relu()).relu()))
        out: Tensor = self.out(h.relu())
        out = out if of_out is None else out + of_out
        return torch.unflatten(out[..., 0], 1, (x.shape[2], -1)).transpose(1, 2)

    def in_order(
        self, x: Tensor, context: Tensor | None = None
    ) -> Generator[tuple[int, int, Tensor], Tensor | None, None]:
        """Yield the features (n, features, 1, 1) of one column after the other; see `CausalNet.in_order`."""
        for d in range(x.shape[2]):
            index = yield d, 0, self(x, context)[:, :, d : d + 1]
            if index is not None and context is not None:
                context = context[index]

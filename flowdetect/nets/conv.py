"""Convolutional networks inside couplings and standardisations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowdetect.nets.compiled import Convolutions, can_convolve, convolve

# Learning-rate multiplier of learned constants and of per-channel bijections: their values are stored divided by it, so
# one Adam step moves them that many times as far.
SPEED = 30.0


class MixedPrecision(nn.Module):
    """A network that may compute in another type during training, but never in scoring or inversion.

    Attributes
    ----------
    training_dtype : torch.dtype or None
        Type of the computation in training mode; None: that of the input.
    """

    training_dtype: torch.dtype | None = None

    def working_dtype(self, x: Tensor) -> torch.dtype:
        """Return the type to compute in."""
        return self.training_dtype if self.training and self.training_dtype is not None else x.dtype


def set_training_dtype(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Set the type in which all networks inside a model compute during training."""
    for module in model.modules():
        if isinstance(module, MixedPrecision):
            module.training_dtype = dtype


def map_rows(x: Tensor, weight: Tensor, training: bool) -> Tensor:
    """Multiply rows by a matrix, x W: (n, k), (k, m) -> (n, m).

    Outside of training it is a convolution: bitwise independent of a row's position and of the threads.
    """
    if training:
        return x @ weight
    return F.conv2d(x[:, :, None, None], weight.t()[:, :, None, None])[:, :, 0, 0]


class ConvNet(MixedPrecision):
    """Three convolutions, kernel sizes k, 1, k, with ReLU between; the output is initially zero.

    The last convolution starts at zero (Kingma & Dhariwal 2018, section 3.3). A coupling with this network then starts
    as the identity if it is additive or has scale "exp". With scale "sigmoid", Glow's default, it starts as
    z = 0.88 x, although the paper calls that start the identity too.

    Parameters
    ----------
    in_channels, hidden_channels, out_channels : int
    kernel_size : int
        Odd; 1 makes it a perceptron over the channels, for tables.
    n_context : int
        Length of a context (n, n_context), mapped linearly and added to the first hidden layer; 0: it is ignored.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, kernel_size: int = 3, n_context: int = 0
    ) -> None:
        super().__init__()
        self.context_map = ContextMap(n_context, hidden_channels, 1, 1) if n_context else None
        widths = [in_channels, hidden_channels, hidden_channels, out_channels]
        kernels = [kernel_size, 1, kernel_size]
        self.weights = nn.ParameterList(
            torch.zeros(c_out, c_in, k, k, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
            for c_in, c_out, k in zip(widths[:-1], widths[1:], kernels, strict=True)
        )
        self.biases = nn.ParameterList(torch.zeros(c_out, dtype=torch.float32) for c_out in widths[1:])

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the hidden weights and biases, uniform within 1/sqrt(fan in) of 0; the last convolution stays zero."""
        for weight, bias in list(zip(self.weights, self.biases, strict=True))[:-1]:
            bound = weight[0].numel() ** -0.5
            for parameter in (weight, bias):
                parameter.copy_(bound * (2 * torch.rand(parameter.shape, generator=generator, dtype=torch.float32) - 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, in_channels, H, W) -> (n, out_channels, H, W), in the dtype of x."""
        dtype, shift = self.working_dtype(x), None
        if self.context_map is not None and context is not None:
            shift = self.context_map(context)  # (n, hidden_channels, 1, 1)
        # a density's derivatives need second derivatives, which only torch's own functions have
        if can_convolve(x, dtype, self.weights[0].shape[-1]) and (self.training or not torch.is_grad_enabled()):
            return self._compiled(x, shift, dtype)
        h = x.to(dtype, memory_format=torch.channels_last)  # faster for convolutions
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = F.conv2d(h, weight.to(dtype), bias.to(dtype), padding=weight.shape[-1] // 2)
            if i == 0 and shift is not None:
                h = h + shift.to(dtype)
            h = h if i == last else h.relu_()
        return h.to(x.dtype, memory_format=torch.contiguous_format)  # faster to split into halves of channels

    def _compiled(self, x: Tensor, shift: Tensor | None, dtype: torch.dtype) -> Tensor:
        parameters = [tensor for pair in zip(self.weights, self.biases, strict=True) for tensor in pair]
        if shift is not None:
            parameters[1] = parameters[1] + shift[:, :, 0, 0]
        if not torch.is_grad_enabled():
            return convolve(x, parameters, dtype)
        y: Tensor = Convolutions.apply(x, dtype, *parameters)  # type: ignore[no-untyped-call]
        return y


class Constant(nn.Module):
    """A learned tensor, initially zero, the same for all rows: a network without an input."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.raw_value = nn.Parameter(torch.zeros(shape, dtype=torch.float32))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, ...) -> (n, *shape)."""
        return (SPEED * self.raw_value).expand(x.shape[0], *self.raw_value.shape)


class ContextMap(nn.Module):
    """A linear map of a context, initially zero: (n, n_context) -> (n, *shape).

    For one-hot class labels it is a table with one learned tensor per class.
    """

    def __init__(self, n_context: int, *shape: int) -> None:
        super().__init__()
        self.raw_value = nn.Parameter(torch.zeros(n_context, *shape, dtype=torch.float32))

    def forward(self, context: Tensor) -> Tensor:
        """(n, n_context) -> (n, *shape)."""
        flat = context.to(self.raw_value.dtype) @ self.raw_value.flatten(1)
        return SPEED * torch.unflatten(flat, 1, self.raw_value.shape[1:])

"""Recurrent causal networks: convolutional LSTMs down an image's rows or along its diagonals.

van den Oord et al., "Pixel Recurrent Neural Networks" (2016), https://arxiv.org/abs/1601.06759, section 3. A gate
sigma(b) is computed as (1 + tanh(b / 2)) / 2, with the inner 1/2 absorbed by the weights, so that a row has the same
score in any batch.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowdetect.nets.cache import Cache, Whole, whole
from flowdetect.nets.causal import context_bias, pointwise
from flowdetect.nets.conv import MixedPrecision
from flowdetect.nets.masked import CausalConv, Dropout

FIRST_KERNEL = 7
FORGET_BIAS = 0.5  # bias of half the gate's argument: initially a cell keeps sigma(1) = 0.73
WIDEN_GAIN = 0.25  # gain of a layer's last convolution
Memory = dict[str, Tensor]  # the state that a layer stores from pixel to pixel


def lstm(gates: Tensor, cell: Tensor | None, n_directions: int = 1) -> tuple[Tensor, Tensor]:
    """One step: gates (n, 4 d h, ...) before activation -> state and cell (n, d h, ...), for d directions.

    van den Oord et al. 2016, eq. 3; a cell None is zero.
    """
    inner, forget, outer, content = torch.unflatten(gates.tanh(), 1, (n_directions, 4, -1)).unbind(2)
    new = 0.5 * (1 + inner) * content
    if cell is not None:
        new = new + 0.5 * (1 + forget) * torch.unflatten(cell, 1, (n_directions, -1))
    return (0.5 * (1 + outer) * new.tanh()).flatten(1, 2), new.flatten(1, 2)


def skew(x: Tensor) -> Tensor:
    """Shift row i of (n, C, H, W) by i columns: (n, C, H, H + W - 1), so that diagonals become columns."""
    height, width = x.shape[2:]
    flat = F.pad(x, (0, height)).flatten(2)  # row i starts at i (H + W)
    return torch.unflatten(flat[:, :, : height * (height + width - 1)], 2, (height, -1))


def unskew(x: Tensor) -> Tensor:
    """Invert `skew`: (n, C, H, H + W - 1) -> (n, C, H, W)."""
    height, width = x.shape[2], x.shape[3] - x.shape[2] + 1
    return torch.unflatten(F.pad(x.flatten(2), (0, height)), 2, (height, -1))[..., :width]


class StateConv(nn.Module):
    """The convolution from a state to the next gates, without padding and without bias."""

    def __init__(self, hidden: int, kernel: tuple[int, int], n_directions: int) -> None:
        super().__init__()
        weight = torch.zeros(4 * n_directions * hidden, hidden, *kernel, dtype=torch.float32)
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        self.n_directions = n_directions

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw weights of variance 1 / fan in."""
        noise = torch.randn(self.weight.shape, generator=generator, dtype=torch.float32)
        self.weight.copy_(noise * self.weight[0].numel() ** -0.5)

    def forward(self, state: Tensor) -> Tensor:
        """(n, d h, ...) -> (n, 4 d h, ...), with separate weights for each direction."""
        return F.conv2d(state, self.weight.to(state.dtype), groups=self.n_directions)

    def of(self, direction: int, state: Tensor) -> Tensor:
        """As `forward`, for one direction: (n, h, ...) -> (n, 4 h, ...)."""
        return F.conv2d(state, self.weight.to(state.dtype).chunk(self.n_directions)[direction])


class RecurrentLayer(nn.Module):
    """A residual layer around an LSTM: masked convolution to the gates, states, a pointwise convolution back.

    van den Oord et al. 2016, Figure 5. The states have half as many features as the layer.

    Parameters
    ----------
    channels : int
    width : int
        Width of the convolution to the gates, which reaches one row up: 3, or 1 for a strip.
    n_context : int
    dropout : float
        Dropout rate of the states.
    """

    n_directions = 1

    def __init__(self, channels: int, width: int, n_context: int, dropout: float) -> None:
        super().__init__()
        self.hidden, d, self.width = max(1, channels // 2), self.n_directions, width
        mask = torch.ones(2, width, dtype=torch.float32)
        mask[1, width // 2 + 1 :] = 0  # mask "B": includes the pixel itself
        self.to_gates = CausalConv(channels, 4 * d * self.hidden, (2, width), 1, width // 2, mask=mask)
        self.state = StateConv(self.hidden, self._state_kernel(width), d)
        self.widen = pointwise(self.hidden, channels, WIDEN_GAIN)
        self.dropout = Dropout(dropout)
        self.context_bias = context_bias(n_context, 4 * d * self.hidden)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Set the forget gates' biases so that cells are mostly kept initially."""
        torch.unflatten(self.to_gates.bias, 0, (self.n_directions, 4, -1))[:, 1] = FORGET_BIAS

    def forward(self, x: Tensor, image: Tensor, context: Tensor | None) -> Tensor:
        """Map the features of all pixels, (n, channels, H, W), of an image (n, C, H, W); the shape is unchanged."""
        return self._close(x, self.states(self._gates(x, context, whole), image), whole)

    def at_pixel(self, x: Tensor, memory: Memory, j: int, context: Tensor | None, pixels: Cache) -> Tensor:
        """As `forward`, for the current pixel, in column j: (n, channels, 1, 1), shape unchanged."""
        return self._close(x, self.next_state(self._gates(x, context, pixels), memory, j), pixels)

    def _gates(self, x: Tensor, context: Tensor | None, evaluate: Whole) -> Tensor:
        gates = evaluate(self.to_gates, x)
        return gates if self.context_bias is None or context is None else gates + self.context_bias(context).to(x.dtype)

    def _close(self, x: Tensor, states: Tensor, evaluate: Whole) -> Tensor:
        return x + evaluate(self.widen, self.dropout(states))

    def _state_kernel(self, width: int) -> tuple[int, int]:
        raise NotImplementedError

    def states(self, gates: Tensor, image: Tensor) -> Tensor:
        """Gates of all pixels before activation, and the image -> states (n, h, H, W)."""
        raise NotImplementedError

    def memory(self, x: Tensor) -> Memory:
        """Return the memory before the first pixel of images x (n, C, H, W)."""
        raise NotImplementedError

    def begin_row(self, memory: Memory, above: Tensor) -> None:
        """Compute the input of a row from the rows above it; `above` holds the pixels of the last one, (n, C, 1, W)."""
        raise NotImplementedError

    def next_state(self, gates: Tensor, memory: Memory, j: int) -> Tensor:
        """Gates of the pixel in column j -> its state (n, h, 1, 1), which is also stored."""
        raise NotImplementedError


class RowLSTM(RecurrentLayer):
    """Runs down the rows; a state depends on the three states above it (one for a strip).

    van den Oord et al. 2016, section 3.1. A pixel depends on a triangle above it, so there is a blind spot.
    """

    def _state_kernel(self, width: int) -> tuple[int, int]:
        return 1, width

    def states(self, gates: Tensor, image: Tensor) -> Tensor:
        first, *rest = torch.split(gates, 1, 2)
        state, cell = lstm(first, None)
        states = [state]
        for row in rest:
            state, cell = lstm(row + self._from_above(state), cell)
            states.append(state)
        return torch.cat(states, 2)

    def _from_above(self, state: Tensor) -> Tensor:
        half = self.width // 2
        gates: Tensor = self.state(F.pad(state, (half, half)) if half else state)
        return gates

    def memory(self, x: Tensor) -> Memory:
        n, width = x.shape[0], x.shape[3]
        state, cell = x.new_zeros(2, n, self.hidden, 1, width)
        return {"state": state, "cell": cell}

    def begin_row(self, memory: Memory, above: Tensor) -> None:
        memory["given"] = self._from_above(memory["state"])

    def next_state(self, gates: Tensor, memory: Memory, j: int) -> Tensor:
        at = (..., slice(j, j + 1))
        state, memory["cell"][at] = lstm(gates + memory["given"][at], memory["cell"][at])
        memory["state"][at] = state
        return state


class DiagonalBiLSTM(RecurrentLayer):
    """Runs along the diagonals from both upper corners; a state depends on the states above and beside it.

    van den Oord et al. 2016, section 3.2. The states from the right are shifted down by one row, so that they depend on
    earlier pixels only. Since a pixel's features exclude the pixel itself, only nearby pixels would depend on the last
    pixel of the row above. A layer with `image_channels` therefore adds the pixels themselves to the gates from the
    right; then a pixel depends on all earlier pixels.
    """

    n_directions = 2

    def __init__(self, channels: int, width: int, n_context: int, dropout: float, image_channels: int = 0) -> None:
        super().__init__(channels, width, n_context, dropout)
        self.own = pointwise(image_channels, 4 * self.hidden) if image_channels else None

    def _state_kernel(self, width: int) -> tuple[int, int]:
        return 2, 1

    def states(self, gates: Tensor, image: Tensor) -> Tensor:
        left, right = gates.chunk(2, 1)
        if self.own is not None:
            right = right + self.own(image)
        first, *rest = torch.split(skew(torch.cat([left, right.flip(3)], 1)), 1, 3)
        state, cell = lstm(first, None, 2)
        states = [state]
        for diagonal in rest:
            state, cell = lstm(diagonal + self.state(F.pad(state, (0, 0, 1, 0))), cell, 2)
            states.append(state)
        left, right = unskew(torch.cat(states, 3)).chunk(2, 1)
        return left + F.pad(right.flip(3), (0, 0, 1, 0))[:, :, :-1]

    def memory(self, x: Tensor) -> Memory:
        n, width = x.shape[0], x.shape[3]
        left, right = x.new_zeros(2, n, self.hidden, 1, width)
        return {"left": left, "right": right}

    def begin_row(self, memory: Memory, above: Tensor) -> None:
        """Run from the right through the row above, with its stored gates; the first row has no row above."""
        states = memory["right"]
        memory["beside"] = memory["cell"] = state = cell = torch.zeros_like(states[..., :1])
        if "gates" not in memory:
            memory["gates"] = states.new_zeros(states.shape[0], 4 * self.hidden, 1, states.shape[3])
            return
        gates = memory["gates"] if self.own is None else memory["gates"] + self.own(above)
        for j in reversed(range(states.shape[3])):
            at = (..., slice(j, j + 1))
            state, cell = lstm(gates[at] + self.state.of(1, torch.cat([states[at], state], 2)), cell)
            states[at] = state

    def next_state(self, gates: Tensor, memory: Memory, j: int) -> Tensor:
        at = (..., slice(j, j + 1))
        of_left, memory["gates"][at] = gates.chunk(2, 1)
        from_states = self.state.of(0, torch.cat([memory["left"][at], memory["beside"]], 2))
        memory["beside"], memory["cell"] = lstm(of_left + from_states, memory["cell"])
        memory["left"][at] = memory["beside"]
        return memory["beside"] + memory["right"][at]


class RecurrentNet(MixedPrecision):
    """Features of every pixel from the pixels before it: a masked convolution, recurrent layers, a 1x1 convolution.

    Parameters
    ----------
    image_shape : (C, H, W)
    channels : int
    n_blocks : int
    n_context : int
        Length of a context (n, n_context), mapped linearly and added to the gates of every layer; 0: none.
    dropout : float
    variant : "row_lstm" or "diagonal_bilstm"
    is_strip : bool
        Whether the network is a plain LSTM along H pixels, W = 1. Each pixel then has its own learned vector, since the
        columns of a table, unlike an image's pixels, differ in kind.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: int,
        n_blocks: int,
        n_context: int,
        dropout: float,
        variant: str,
        is_strip: bool = False,
    ) -> None:
        super().__init__()
        (c, height, _), half = image_shape, FIRST_KERNEL // 2
        if is_strip:
            self.first = CausalConv(c, channels, (half, 1), half, 0)
        else:
            mask = torch.ones(half + 1, FIRST_KERNEL, dtype=torch.float32)
            mask[half, half:] = 0  # mask "A": neither the pixel itself nor the pixels to its right
            self.first = CausalConv(c, channels, (half + 1, FIRST_KERNEL), half, half, mask=mask)
        self.position = nn.Parameter(torch.zeros(channels, height, 1, dtype=torch.float32)) if is_strip else None
        sizes = channels, 1 if is_strip else 3, n_context, dropout
        layers: list[RecurrentLayer] = []
        for i in range(n_blocks):
            is_row = is_strip or variant == "row_lstm"
            layers.append(RowLSTM(*sizes) if is_row else DiagonalBiLSTM(*sizes, image_channels=0 if i else c))
        self.layers = nn.ModuleList(layers)
        self.last = pointwise(channels, channels, 2**0.5)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, C, H, W) -> (n, channels, H, W)."""
        dtype = self.working_dtype(x)
        image = x.to(dtype, memory_format=torch.channels_last)
        h = self.first(image)
        if self.position is not None:
            h = h + self.position.to(dtype)
        for layer in self.layers:
            h = layer(h, image, context)
        return self._close(h, whole).to(x.dtype)

    def _close(self, h: Tensor, evaluate: Whole) -> Tensor:
        return evaluate(self.last, h.relu()).relu()

    def in_order(
        self, image: Tensor, context: Tensor | None = None
    ) -> Generator[tuple[int, int, Tensor], Tensor | None, None]:
        """Yield the features (n, channels, 1, 1) of one pixel after the other, each at the cost of one pixel.

        See `CausalNet.in_order`.
        """
        pixels = Cache(image, by_row=False)
        layers: list[RecurrentLayer] = list(self.layers)
        memories = [layer.memory(image) for layer in layers]
        for i in range(image.shape[2]):
            for layer, memory in zip(layers, memories, strict=True):
                layer.begin_row(memory, image[:, :, max(0, i - 1) : max(1, i)])
            for j in range(image.shape[3]):
                pixels.move(i, j)
                h = pixels.first(self.first, image)
                if self.position is not None:
                    h = h + self.position[:, i : i + 1]
                for layer, memory in zip(layers, memories, strict=True):
                    h = layer.at_pixel(h, memory, j, context, pixels)
                index = yield i, j, self._close(h, pixels)
                if index is not None:
                    pixels.reorder(index)
                    memories = [{key: value[index] for key, value in memory.items()} for memory in memories]
                    context = None if context is None else context[index]

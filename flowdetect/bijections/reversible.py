"""A backward pass that stores only the output of a run of bijections, and recomputes the input of each.

Gomez et al. 2017, "The Reversible Residual Network: Backpropagation Without Storing Activations",
https://arxiv.org/abs/1707.04585. Layers without a closed-form inverse are recomputed from their stored inputs (Chen et
al. 2016, "Training Deep Nets with Sublinear Memory Cost", https://arxiv.org/abs/1604.06174).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable

from flowdetect.bijections.base import Bijection, Rewound, leaf
from flowdetect.bijections.elementwise import BatchNorm
from flowdetect.nets.conv import MixedPrecision
from flowdetect.nets.masked import Dropout
from flowdetect.nets.residual import FeatureNorm

MOST_GROWTH = 16.0  # limit on the growth of rounding errors through successive inverses; beyond it, an input is stored
GROWTH_OF_NETWORK = 1.2  # growth of errors in a layer with a network
PIXELS_AT_ONCE = 2**14  # limit for one pass of a network


class Parts(NamedTuple):
    """The parts of a layer that matter if it is recomputed, or computed a few rows at a time.

    Attributes
    ----------
    has_network : bool
    dropouts : the generators of its dropout
    averages : the running averages that it updates in training
    """

    has_network: bool
    dropouts: list[Generator]
    averages: list[Tensor]

    @classmethod
    def of(cls, layer: Bijection) -> Parts:
        """Find the parts of a layer."""
        modules = list(layer.modules())
        generators = [
            m.generator or torch.default_generator for m in modules if isinstance(m, Dropout) and m.probability
        ]
        averages = [mean for m in modules if isinstance(m, BatchNorm | FeatureNorm) for mean in (m.mean, m.variance)]
        return cls(any(isinstance(m, MixedPrecision) for m in modules), list(dict.fromkeys(generators)), averages)

    def rows_at_once(self, x: Tensor) -> int:
        """Return the number of rows to compute at once; all rows if they depend on each other."""
        if not self.has_network or self.dropouts or self.averages:
            return max(1, len(x))
        return max(1, PIXELS_AT_ONCE // x[0, 0].numel())


class Memory(NamedTuple):
    """The information for recomputing a layer.

    Attributes
    ----------
    parts : Parts
    keeps_input : bool
        Whether its input is stored.
    draws : states of its dropout's generators before the layer
    """

    parts: Parts
    keeps_input: bool
    draws: list[Tensor]


class Gradients:
    """Gradients of parameters and of a context, summed over layers and rows.

    Parameters
    ----------
    parameters : of all layers
    context : if its gradient is needed
    """

    def __init__(self, parameters: Sequence[Tensor], context: Tensor | None) -> None:
        self.parameters: dict[Tensor, Tensor | None] = dict.fromkeys(parameters)
        self._places = _places(parameters)
        self.context = None if context is None else torch.zeros_like(context)

    def add(
        self, layer: Bijection, again: Rewound, above: tuple[Tensor, Tensor], context: Tensor | None, rows: slice
    ) -> list[Tensor]:
        """Backpropagate through a layer for some rows; return the gradients of the parts of its input."""
        own = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        wanted = [*again.x, *own, *([] if context is None or self.context is None else [context])]
        of_parts = torch.split(above[0], [part.shape[1] for part in again.z], 1)
        ends = zip((*again.z, again.term), (*of_parts, above[1]), strict=True)
        outputs, slopes = zip(*[(end, slope) for end, slope in ends if end.requires_grad], strict=True)
        found = torch.autograd.grad(outputs, wanted, slopes, allow_unused=True)
        n_x, n_before = len(again.x), len(again.x) + len(own)
        for parameter, slope in zip(own, found[n_x:n_before], strict=True):
            before = self.parameters[parameter]
            if slope is not None:
                place = self._places[parameter]
                self.parameters[parameter] = place.copy_(slope) if before is None else before.add_(slope)
        for slope in found[n_before:]:
            if slope is not None and self.context is not None:
                self.context[rows] += slope
        return [torch.zeros_like(x) if slope is None else slope for x, slope in zip(again.x, found[:n_x], strict=True)]


def _places(parameters: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """Allocate all gradients in one block; between short-lived activations they would fragment memory."""
    sizes = [parameter.numel() for parameter in parameters]
    if not sizes or len({(parameter.dtype, parameter.device) for parameter in parameters}) > 1:
        return {parameter: torch.empty_like(parameter) for parameter in parameters}
    parts = torch.split(parameters[0].new_empty(sum(sizes)), sizes)
    pairs = zip(parameters, parts, strict=True)
    return {parameter: part.as_strided(parameter.shape, parameter.stride()) for parameter, part in pairs}


def keeping_little(layers: Sequence[Bijection], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Map by a run of bijections, with gradients: return z (n, ...) and the sum of their terms (n,)."""
    parameters = dict.fromkeys(p for layer in layers for p in layer.parameters() if p.requires_grad)
    z, term = _Run.apply(layers, x, context, *parameters)  # type: ignore[no-untyped-call]
    return z, term


class _Run(torch.autograd.Function):
    """The map of a run of bijections; parameters are inputs, so that the hooks of their gradients are called."""

    @staticmethod
    def forward(
        ctx: Any, layers: Sequence[Bijection], x: Tensor, context: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        memories: list[Memory] = []
        inputs: list[Tensor] = []
        every = [Parts.of(layer) for layer in layers]
        for layer, parts, keeps_input in zip(layers, every, _keep_input(layers, every), strict=True):
            memories.append(Memory(parts, keeps_input, [generator.get_state() for generator in parts.dropouts]))
            if keeps_input:
                inputs.append(x)
            x, term = _by_rows(layer, parts, x, context)
            total += term
        ctx.layers, ctx.memories, ctx.parameters = layers, memories, parameters
        ctx.save_for_backward(x, context, *inputs)
        return x, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_z: Tensor, g_term: Tensor) -> tuple[Any, ...]:
        z, context, *inputs = ctx.saved_tensors
        gradients = Gradients(ctx.parameters, context if ctx.needs_input_grad[2] else None)
        for layer, memory in zip(reversed(ctx.layers), reversed(ctx.memories), strict=True):
            x = inputs.pop() if memory.keeps_input else None
            with _as_before(memory):
                z, g_z = _back(layer, memory.parts, (z, x, context), (g_z, g_term), gradients)
        return None, g_z, gradients.context, *gradients.parameters.values()


def _keep_input(layers: Sequence[Bijection], every: Sequence[Parts]) -> list[bool]:
    """Decide which layers store their input: if they need it, or if the inverses' errors would grow too much."""
    found = [(i, growth) for i, layer in enumerate(layers) if (growth := layer.error_growth()) is not None]
    numbers = torch.stack([growth for _, growth in found]).tolist() if found else []  # one transfer from the GPU
    growths = {i: number for (i, _), number in zip(found, numbers, strict=True)}
    keep, grown = [], 1.0
    for i, (layer, parts) in reversed(list(enumerate(zip(layers, every, strict=True)))):
        grown *= growths.get(i, 1.0) * (GROWTH_OF_NETWORK if parts.has_network else 1.0)
        keeps = layer.needs_input or layer.inverse_tolerance > 0 or not grown <= MOST_GROWTH
        grown = 1.0 if keeps else grown
        keep.append(keeps)
    return keep[::-1]


def by_rows(layer: Bijection, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Map by a layer, for large images a few rows at a time, so that few images are inside a network at once."""
    return _by_rows(layer, Parts.of(layer), x, context)


def _by_rows(layer: Bijection, parts: Parts, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    n = parts.rows_at_once(x)
    if len(x) <= n:
        z, term = layer(x, context)
        return z, term
    contexts = [None] * len(x) if context is None else torch.split(context, n)
    pairs = [layer(rows, own) for rows, own in zip(torch.split(x, n), contexts, strict=False)]
    return torch.cat([z for z, _ in pairs]), torch.cat([term for _, term in pairs])


def _back(
    layer: Bijection,
    parts: Parts,
    values: tuple[Tensor, Tensor | None, Tensor | None],
    above: tuple[Tensor, Tensor],
    gradients: Gradients,
) -> tuple[Tensor, Tensor]:
    """Return a layer's input and its gradient; add the gradients of parameters and context.

    Parameters
    ----------
    values : the layer's output, its input if stored, and the context
    above : the gradients of its output and of its term
    """
    n, found = parts.rows_at_once(values[0]), []
    for start in range(0, len(values[0]), n):
        rows = slice(start, start + n)
        z, x, context = (None if value is None else value[rows] for value in values)
        assert z is not None
        context = context if context is None or gradients.context is None else leaf(context)
        again = layer.rewind(z, context) if x is None else layer.again(x, context)
        slopes = gradients.add(layer, again, (above[0][rows], above[1][rows]), context, rows)
        found.append((_joined([part.detach() for part in again.x], 1), _joined(slopes, 1)))
    return _joined([x for x, _ in found], 0), _joined([slope for _, slope in found], 0)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


@contextmanager
def _as_before(memory: Memory) -> Iterator[None]:
    """Repeat the same dropout, and do not update running averages twice."""
    generators, averages = memory.parts.dropouts, memory.parts.averages
    states, values = [generator.get_state() for generator in generators], [value.clone() for value in averages]
    for generator, state in zip(generators, memory.draws, strict=True):
        generator.set_state(state)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        for average, value in zip(averages, values, strict=True):
            average.copy_(value)

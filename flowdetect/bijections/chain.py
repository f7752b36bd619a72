"""A chain of layers, which may store only its output for the backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Bijection, Layer
from flowdetect.bijections.reshape import MultiScale
from flowdetect.bijections.reversible import by_rows, keeping_little


def set_memory_efficient(model: nn.Module, memory_efficient: bool) -> None:
    """Set whether the bijections inside a model store few activations in training."""
    for module in model.modules():
        if isinstance(module, Chain | MultiScale):
            module.memory_efficient = memory_efficient


class Chain(Layer):
    """Layers applied in the given order; their terms are added, and each takes its own columns of the noise.

    Attributes
    ----------
    memory_efficient : bool
        Whether training stores only outputs of the bijections among the layers, and recomputes their inputs.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Chain, Permute, Squeeze
    >>> chain = Chain([Squeeze(), Permute(4)])  # first Squeeze, then Permute
    >>> z, log_det = chain(torch.arange(4.0).reshape(1, 1, 2, 2))
    >>> z.flatten(), log_det
    (tensor([3., 2., 1., 0.]), tensor([0.]))
    >>> chain.inverse(z)
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """

    memory_efficient: bool = False

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.bijections = nn.ModuleList(layers)
        self.n_noise = sum(layer.n_noise for layer in self.bijections)
        self.is_bound = any(layer.is_bound for layer in self.bijections)
        self.inverse_tolerance = sum(getattr(layer, "inverse_tolerance", 0.0) for layer in self.bijections)

    def _with_noise(self, noise: Tensor | None) -> Iterator[tuple[Layer, Tensor | None]]:
        start = 0
        for layer in self.bijections:
            end = start + layer.n_noise
            yield layer, None if noise is None or start == end else noise[:, start:end]
            start = end

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.memory_efficient and self.training and torch.is_grad_enabled():
            return self._forward_in_runs(x, context, noise)
        total = x.new_zeros(x.shape[0])
        for layer, own in self._with_noise(noise):
            x, term = layer(x, context) if own is None else layer(x, context, own)
            total = total + term
        return x, total

    def _forward_in_runs(self, x: Tensor, context: Tensor | None, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `forward`; neighbouring bijections form one run, and an inner chain forms runs of its own."""
        total = x.new_zeros(x.shape[0])
        run: list[Bijection] = []
        for layer, own in self._with_noise(noise):
            if isinstance(layer, Bijection):
                run.append(layer)
                continue
            if run:
                x, term = keeping_little(run, x, context)
                total, run = total + term, []
            x, term = layer(x, context) if own is None else layer(x, context, own)
            total = total + term
        if run:
            x, term = keeping_little(run, x, context)
            total = total + term
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        for layer in reversed(self.bijections):
            z = layer.inverse(z, context) if isinstance(layer, Bijection) else layer.inverse(z, context, generator)
        return z

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        for layer, own in self._with_noise(noise):
            if self.memory_efficient and isinstance(layer, Bijection) and type(layer).initialize is Layer.initialize:
                x = by_rows(layer, x, context)[0]
            else:
                x = layer.initialize(x, context) if own is None else layer.initialize(x, context, own)
        return x

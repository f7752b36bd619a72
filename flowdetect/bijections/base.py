"""The contract of a layer and of a bijection, and how they compose.

A layer runs data to noise: `forward(x)` gives `(z, term)` with log p(x) = log p(z) + term, term in nats, one per row.
The term of a bijection is log|det dz/dx|. Flows, dequantisation and encoders are all sums of such terms (Nielsen et al.
2020, "SurVAE Flows", https://arxiv.org/abs/2007.02731).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Generator, Tensor, nn


def sum_except_batch(x: Tensor) -> Tensor:
    """Sum over all axes but the first: (n, ...) -> (n,)."""
    return x.flatten(1).sum(1)


def soft_bound(h: Tensor, bound: float, gain: float = 1.0) -> Tensor:
    """Squash gain * h smoothly into (-bound, bound), with slope gain at 0."""
    return bound * torch.tanh(h * (gain / bound))


class Layer(nn.Module):
    """A map of tensors, batch first, with the term that makes log p(x) = log p(z) + term.

    A subclass must ensure that the term has shape (n,) and is in nats, and that a context is taken also where it is
    ignored. A context is any tensor of n rows: class labels pass an embedding first.

    Attributes
    ----------
    n_noise : int
        How many values of noise, in [0, 1), `forward` takes for each row; 0: none.
    is_bound : bool
        Whether the term makes the sum a lower bound of log p(x).
    """

    n_noise: int = 0
    is_bound: bool = False

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data to noise: (n, ...) -> z (n, ...), term (n,) in nats.

        `noise` is (n, n_noise), in [0, 1); None gives the deterministic answer, such as the bins' centres.
        """
        raise NotImplementedError

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Map noise to data: (n, ...) -> (n, ...); whatever a layer draws comes from the generator."""
        raise NotImplementedError

    def reset_parameters(self, generator: Generator) -> None:
        """Draw this layer's own random parameters; layers without any need not override it."""

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Set data-dependent parameters from a first batch and return z; most layers have none."""
        return self.forward(x, context, noise)[0]


class Bijection(Layer):
    """An invertible map of tensors, batch first, that knows the log-determinant of its Jacobian.

    A layer without noise, whose term is log|det dz/dx|. A subclass must ensure that `inverse(forward(x)[0])` is x, that
    every scale is bounded both ways (by an interval that it documents), and what `Layer` asks for. The library relies
    on this and does not verify it at run time; `flowdetect.testing.check_bijection` does.

    Attributes
    ----------
    inverse_tolerance : float
        Largest error of `inverse` relative to 1 + |x|, in float64; 0 where the inverse is a formula.
    """

    inverse_tolerance: float = 0.0


class Chain(Layer):
    """Layers applied in written order; their terms add, and each takes its own columns of the noise."""

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
        total = x.new_zeros(x.shape[0])
        for layer, own in self._with_noise(noise):
            x, term = layer(x, context) if own is None else layer(x, context, own)
            total = total + term
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        for layer in reversed(self.bijections):
            z = layer.inverse(z, context) if isinstance(layer, Bijection) else layer.inverse(z, context, generator)
        return z

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        for layer, own in self._with_noise(noise):
            x = layer.initialize(x, context) if own is None else layer.initialize(x, context, own)
        return x

"""The contract of a bijection, and how bijections compose.

A bijection runs data to noise: `forward(x)` gives `(z, log_det)` with log_det = log|det dz/dx| in nats, one per row;
`inverse(z)` gives x back. Everything a flow does is said with these two methods.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def sum_except_batch(x: Tensor) -> Tensor:
    """Sum over all axes but the first: (n, ...) -> (n,)."""
    return x.flatten(1).sum(1)


def soft_bound(h: Tensor, bound: float, gain: float = 1.0) -> Tensor:
    """Squash gain * h smoothly into (-bound, bound), with slope gain at 0."""
    return bound * torch.tanh(h * (gain / bound))


class Bijection(nn.Module):
    """An invertible map of tensors, batch first, that knows the log-determinant of its Jacobian.

    A subclass must ensure that `inverse(forward(x)[0])` is x, that log_det has shape (n,) and is in nats, that every
    scale is bounded both ways (by an interval that it documents), and that a context is taken also where it is ignored.
    The library relies on this and does not verify it at run time; `flowdetect.testing.check_bijection` does.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data to noise: (n, ...) -> z (n, ...), log_det (n,) in nats."""
        raise NotImplementedError

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map noise to data: (n, ...) -> (n, ...)."""
        raise NotImplementedError

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw this layer's own random parameters; layers without any need not override it."""

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Set data-dependent parameters from a first batch and return z; most layers have none."""
        return self.forward(x, context)[0]


class Chain(Bijection):
    """Bijections applied in written order; log-determinants add."""

    def __init__(self, bijections: Iterable[Bijection]) -> None:
        super().__init__()
        self.bijections = nn.ModuleList(bijections)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for bijection in self.bijections:
            x, term = bijection(x, context)
            log_det = log_det + term
        return x, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        for bijection in reversed(self.bijections):
            z = bijection.inverse(z, context)
        return z

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for bijection in self.bijections:
            x = bijection.initialize(x, context)
        return x

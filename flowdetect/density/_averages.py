"""The weights that a training returns: an average over its last steps, at the best epoch if rows are held out."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from flowdetect.density.model import DensityModel

EMA_DECAY = 0.99


class Averages:
    """The part of a training that averages weights and keeps the best average.

    Attributes
    ----------
    model, average : DensityModel
        With the trained weights; with the averaged weights.
    best : dict of tensors or None
        The average with the lowest bits/dim on held-out rows (`best_bits`); None if no rows are held out.
    step : int
    """

    model: DensityModel
    average: DensityModel
    best: dict[str, Tensor] | None = None
    best_bits: float = math.inf
    step: int = 0

    @torch.no_grad()
    def move_average(self) -> None:
        """Add the weights of a step to the average."""
        weight = 1 - min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        averages, weights = self._parameters
        torch._foreach_lerp_(averages, weights, weight)

    @cached_property
    def _parameters(self) -> tuple[list[Tensor], list[Tensor]]:
        """The averages and the averaged parameters; cached, since collecting them takes longer than averaging."""
        return list(self.average.parameters()), list(self.model.parameters())

    @torch.no_grad()
    def copy_buffers(self) -> None:
        """Copy running statistics to the averaged model."""
        for there, here in zip(self.average.buffers(), self.model.buffers(), strict=True):
            there.copy_(here)

    def keep_if_best(self, bits: float) -> None:
        """Store a copy of the average if it is the best so far."""
        if bits < self.best_bits:
            self.best_bits = bits
            self.best = {name: value.clone() for name, value in self.average.state_dict().items()}

    def best_model(self) -> DensityModel:
        """Return the model with averaged weights, those of the best epoch if rows are held out."""
        if self.best is not None:
            self.average.load_state_dict(self.best)
        else:
            self.copy_buffers()
        return self.average

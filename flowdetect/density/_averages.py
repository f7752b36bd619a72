"""The weights that a training gives: an average of those of its last steps, of the best epoch where there is one."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from flowdetect.density.model import DensityModel

EMA_DECAY = 0.99


class Averages:
    """The part of a training that averages weights and keeps the best.

    Attributes
    ----------
    model, average : DensityModel
        As trained; as averaged.
    best : dict of tensors or None
        The average where `best_bits`, the bits/dim of held-out rows, were lowest; None: nothing is held out.
    step : int
    """

    model: DensityModel
    average: DensityModel
    best: dict[str, Tensor] | None = None
    best_bits: float = math.inf
    step: int = 0

    @torch.no_grad()
    def move_average(self) -> None:
        """Take the weights of a step into the average."""
        weight = 1 - min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        averages, weights = self._parameters
        torch._foreach_lerp_(averages, weights, weight)

    @cached_property
    def _parameters(self) -> tuple[list[Tensor], list[Tensor]]:
        """The averages and what they are of; to collect them takes longer than to move them."""
        return list(self.average.parameters()), list(self.model.parameters())

    @torch.no_grad()
    def copy_buffers(self) -> None:
        """Take running statistics over into the averaged model."""
        for there, here in zip(self.average.buffers(), self.model.buffers(), strict=True):
            there.copy_(here)

    def keep_if_best(self, bits: float) -> None:
        """Keep a copy of the average if it is the best so far."""
        if bits < self.best_bits:
            self.best_bits = bits
            self.best = {name: value.clone() for name, value in self.average.state_dict().items()}

    def best_model(self) -> DensityModel:
        """Give the averaged weights, of the best epoch where rows are held out."""
        if self.best is not None:
            self.average.load_state_dict(self.best)
        else:
            self.copy_buffers()
        return self.average

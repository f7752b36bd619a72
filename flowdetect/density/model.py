"""The contract of a density's torch module."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DensityModel(nn.Module):
    """A density of tensors, batch first.

    Parameters
    ----------
    event_shape : (C, H, W)
        A table of D columns is a 1x1 image of D channels.
    n_classes : int or None
        The number of classes if the density is class-conditional; the context is then (n,) class indices.
    """

    def __init__(self, event_shape: tuple[int, int, int], n_classes: int | None = None) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.n_classes = n_classes

    def log_prob(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """log p(x), (n, C, H, W) -> (n,) nats, of the discrete data if they are in bins.

        noise is the dequantisation noise u in [0, 1), of the shape of x; None is the bins' centre, u = 0.5.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """`log_prob`, since distributed training and compilation hook only `forward`."""
        return self.log_prob(x, context, noise)

    def log_prob_by_class(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """log p(x | k) for every class k: (n, C, H, W) -> (n, K) nats."""
        labels = range(self.n_classes or 0)
        columns = [self.log_prob(x, torch.full((len(x),), k, device=x.device), noise) for k in labels]
        return torch.stack(columns, 1)

    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw n values (n, C, H, W); noise is multiplied by the temperature; the generator lives on the CPU."""
        raise NotImplementedError

    def begin_step(self, seed: int) -> None:
        """Seed whatever noise a training step draws inside the model, such as dropout's; most models draw none."""

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw all random initial parameters from the generator, and from nothing else."""
        for module in self.modules():
            draw = getattr(module, "reset_parameters", None)
            if module is not self and callable(draw):
                draw(generator)

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> None:
        """Set data-dependent parameters from a first batch; most models have none."""

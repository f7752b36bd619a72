"""Bijections that reshape: squeezing space into channels, reordering, and the multi-scale architecture."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple, cast

import torch
from torch import Generator, Tensor, nn

from flowdetect.bijections.base import Bijection, Layer
from flowdetect.bijections.reversible import by_rows, keeping_little


class Squeeze(Bijection):
    """Trade space for channels: (n, C, H, W) -> (n, 4 C, H / 2, W / 2); every 2x2 block becomes four channels.

    Channel 4 * c + 2 * i + j holds row i, column j of the blocks of channel c. The result is channels-last in memory,
    which is faster for the convolutions after it.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Squeeze
    >>> z, log_det = Squeeze()(torch.arange(16.0).reshape(1, 1, 4, 4))
    >>> z.shape
    torch.Size([1, 4, 2, 2])
    >>> z[0, :, 0, 0]  # the block at the top left
    tensor([0., 1., 4., 5.])
    """

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)  # (n, h/2, w/2, c, 2, 2)
        return blocks.reshape(n, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2), x.new_zeros(n)

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        n, c, h, w = z.shape
        blocks = z.reshape(n, c // 4, 2, 2, h, w).permute(0, 4, 2, 5, 3, 1)  # (n, h, 2, w, 2, c/4)
        return blocks.reshape(n, 2 * h, 2 * w, c // 4).permute(0, 3, 1, 2)


class Reorder(Bijection):
    """A fixed permutation of a row's values: value i of the result is value order[i], both in the order (H, W, C).

    Parameters
    ----------
    order : (H * W * C,) integer tensor

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Reorder
    >>> z, log_det = Reorder(torch.tensor([2, 0, 1]))(torch.tensor([10.0, 11.0, 12.0]).reshape(1, 3, 1, 1))
    >>> z.flatten()
    tensor([12., 10., 11.])
    """

    order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)

    def _take(self, x: Tensor, order: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.permute(0, 2, 3, 1).flatten(1)[:, order].reshape(n, h, w, c).permute(0, 3, 1, 2)

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._take(x, self.order), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._take(z, torch.argsort(self.order))


class Levels(NamedTuple):
    """The result of a multi-scale flow for a batch, by level (L levels)."""

    z: Tensor  # (n, D), level 1 first
    log_det: Tensor  # (n, L), nats; including the standardisations
    log_det_split: Tensor  # (n, L), nats; the standardisations only


class MultiScale(Bijection):
    """Several levels; after each but the last, half of the channels leave and the rest continues (Dinh et al. 2016).

    A network of the channels that stay standardises those that leave, so that the latents of all levels are standard
    normal. The whole is one bijection from (n, C, H, W) to flat latents (n, D).

    Parameters
    ----------
    levels : bijections, one per level
    standardizers : bijections whose context is the channels that stay, one per level but the last; if empty, channels
    leave unchanged ("standard" prior)
    latent_shapes : (C, H, W) of the channels that leave at each level
    n_context : int
        Length of a context (n, n_context) that standardizers receive at every pixel, as further channels after those
        that stay; 0: none. The levels always receive the context.

    Attributes
    ----------
    memory_efficient : bool
        Whether training stores no activations of the standardizers; see `Chain` for the levels.

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Chain, MultiScale, Permute, Squeeze
    >>> levels = [Chain([Squeeze(), Permute(4)]), Chain([Squeeze(), Permute(8)])]
    >>> flow = MultiScale(levels, [], [(2, 2, 2), (8, 1, 1)])  # 2 of 4 channels leave after level 1
    >>> z, log_det = flow(torch.arange(16.0).reshape(1, 1, 4, 4))
    >>> z.shape, flow.latent_slices
    (torch.Size([1, 16]), [slice(0, 8, None), slice(8, 16, None)])
    """

    memory_efficient: bool = False

    def __init__(
        self,
        levels: Sequence[Layer],
        standardizers: Sequence[Bijection],
        latent_shapes: Sequence[tuple[int, int, int]],
        n_context: int = 0,
    ) -> None:
        super().__init__()
        self.n_context = n_context
        self.levels = nn.ModuleList(levels)
        self.standardizers = nn.ModuleList(standardizers)
        self.latent_shapes = list(latent_shapes)

    @property
    def latent_slices(self) -> list[slice]:
        """The columns of z that belong to each level, level 1 first."""
        ends = [sum(prod(shape) for shape in self.latent_shapes[: i + 1]) for i in range(len(self.latent_shapes))]
        return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det, _ = self.forward_levels(x, context)
        return z, log_det.sum(1)

    def forward_levels(self, x: Tensor, context: Tensor | None = None) -> Levels:
        """As `forward`, with a separate log-determinant for every level."""
        z: list[Tensor] = []
        log_dets: list[Tensor] = []
        splits: list[Tensor] = []
        for i, level in enumerate(self.levels):
            x, log_det = level(x, context)
            leaves, x = self._split(x, i)
            split = x.new_zeros(x.shape[0])
            if i < len(self.standardizers):
                leaves, split = self._standardized(self.standardizers[i], leaves, self._given(x, context))
            z.append(leaves.flatten(1))
            log_dets.append(log_det + split)
            splits.append(split)
        return Levels(torch.cat(z, 1), torch.stack(log_dets, 1), torch.stack(splits, 1))

    def _standardized(self, layer: nn.Module, leaves: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        if self.memory_efficient and self.training and torch.is_grad_enabled():
            return keeping_little([cast(Bijection, layer)], leaves, given)
        z, term = layer(leaves, given)
        return z, term

    def _initialized(self, layer: Bijection, leaves: Tensor, given: Tensor) -> Tensor:
        if self.memory_efficient:
            return by_rows(layer, leaves, given)[0]
        return layer.initialize(leaves, given)

    def _split(self, x: Tensor, i: int) -> tuple[Tensor, Tensor]:
        channels = self.latent_shapes[i][0]
        return x[:, :channels], x[:, channels:]

    def _given(self, stays: Tensor, context: Tensor | None) -> Tensor:
        """Append a context (n, m) to the channels that stay (n, c, H, W), as m more channels."""
        if context is None or not self.n_context:
            return stays
        everywhere = context[:, :, None, None].expand(-1, -1, *stays.shape[2:])
        return torch.cat([stays, everywhere.to(stays.dtype)], 1)

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        x = z.new_empty(0)
        last = len(self.levels) - 1
        for i in reversed(range(len(self.levels))):
            leaves = z[:, self.latent_slices[i]].reshape(-1, *self.latent_shapes[i])
            if i < len(self.standardizers):
                leaves = self.standardizers[i].inverse(leaves, self._given(x, context))
            x = self.levels[i].inverse(leaves if i == last else torch.cat([leaves, x], dim=1), context)
        return x

    def initialize(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        z: list[Tensor] = []
        for i, level in enumerate(self.levels):
            leaves, x = self._split(level.initialize(x, context), i)
            if i < len(self.standardizers):
                leaves = self._initialized(self.standardizers[i], leaves, self._given(x, context))
            z.append(leaves.flatten(1))
        return torch.cat(z, 1)


class Top(Bijection):
    """Applies a bijection, usually a `Standardize`, to the last level's columns of flat latents.

    Parameters
    ----------
    bijection : Bijection on (n, C, H, W)
    latent_shape : (C, H, W) of the last level, whose values are the last columns of z

    Examples
    --------
    >>> import torch
    >>> from flowdetect.bijections import Rescale, Top
    >>> top = Top(Rescale(torch.tensor(0.0), torch.tensor(2.0), (1, 1, 2)), (1, 1, 2))  # the last two values of a row
    >>> top(torch.tensor([[8.0, 8.0, 8.0]]))[0]
    tensor([[8., 4., 4.]])
    """

    def __init__(self, bijection: Bijection, latent_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.bijection = bijection
        self.latent_shape = latent_shape

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        n_last = prod(self.latent_shape)
        return z[:, :-n_last], z[:, -n_last:].reshape(-1, *self.latent_shape)

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rest, last = self._split(x)
        last, log_det = self.bijection(last, context)
        return torch.cat([rest, last.flatten(1)], dim=1), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        rest, last = self._split(z)
        return torch.cat([rest, self.bijection.inverse(last, context).flatten(1)], dim=1)

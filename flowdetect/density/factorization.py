"""The level at which each dimension of an image leaves a multi-scale flow, and its contribution to the likelihood.

Das et al. 2019, "Likelihood Contribution based Multi-scale Architecture for Generative Flows" (LCMA),
https://arxiv.org/abs/1908.01686
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowdetect.bijections import ActNorm, Bijection, Coupling, MultiScale, Permute, Reorder, Squeeze

# level (1 to L - 1) and arriving input dimensions (h, w, c) -> which of them stay in the flow, (h, w, c)
Choice = Callable[[int, NDArray[np.intp]], NDArray[np.bool_]]


def squeeze(values: NDArray[Any]) -> NDArray[Any]:
    """(h, w, c) -> (h / 2, w / 2, 4 c), in the order of `Squeeze`."""
    h, w, c = values.shape
    blocks = values.reshape(h // 2, 2, w // 2, 2, c).transpose(0, 2, 4, 1, 3)
    return blocks.reshape(h // 2, w // 2, 4 * c)


def factor(shape: tuple[int, int, int], n_levels: int, choice: Choice) -> NDArray[np.int64]:
    """Level, 1 to L, at which each input dimension leaves: (H, W, C), from a choice per level."""
    factored = np.full(shape, n_levels)
    arriving: NDArray[Any] = np.arange(factored.size).reshape(shape)
    for level in range(1, n_levels):
        stays = choice(level, arriving)
        factored.reshape(-1)[arriving[~stays]] = level
        h, w, c = arriving.shape
        # the k-th dimension that stays becomes channel k % 2c of position k // 2c
        arriving = squeeze(arriving)[squeeze(stays)].reshape(h // 2, w // 2, 2 * c)
    return factored


def is_alike(factored: NDArray[Any], other: NDArray[np.int64]) -> bool:
    """Whether the same number of dimensions leave at each level, so that the same networks fit."""
    if factored.shape != other.shape or factored.dtype != other.dtype:
        return False
    return np.array_equal(np.sort(factored, axis=None), np.sort(other, axis=None))


def orders(factored: NDArray[np.int64]) -> Iterator[Tensor]:
    """For each level but the last, the order for `Reorder` that puts leaving values in the first half of channels."""
    arriving: NDArray[Any] = np.arange(factored.size).reshape(factored.shape)
    for level in range(1, factored.max()):
        arriving = squeeze(arriving)
        h, w, c = arriving.shape
        stays = factored.reshape(-1)[arriving] > level
        parts = [np.flatnonzero(part).reshape(h, w, c // 2) for part in (~stays, stays)]
        yield torch.from_numpy(np.concatenate(parts, axis=2).ravel())
        arriving = arriving[stays].reshape(h, w, c // 2)


def checkerboard(level: int, arriving: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Keep the top right and the bottom left of every 2x2 block in the flow."""
    h, w, _ = arriving.shape
    return np.broadcast_to((np.add.outer(np.arange(h), np.arange(w)) % 2 == 1)[:, :, None], arriving.shape)


def random_half(rng: np.random.Generator) -> Choice:
    """Keep a random half of the dimensions in the flow, at any positions."""

    def keeps(level: int, arriving: NDArray[np.intp]) -> NDArray[np.bool_]:
        return (rng.permutation(arriving.size) < arriving.size // 2).reshape(arriving.shape)

    return keeps


def largest_contributions(contributions: NDArray[np.float64], reverse: bool = False) -> Choice:
    """Keep the two largest contributions of each channel's 2x2 block in the flow (ties: raster order), or the others.

    Parameters
    ----------
    contributions : (L, H, W, C)
        Contributions of the layers up to each level.
    """

    def keeps(level: int, arriving: NDArray[np.intp]) -> NDArray[np.bool_]:
        h, w, c = arriving.shape
        values = contributions[level - 1].reshape(-1)[arriving]
        blocks = values.reshape(h // 2, 2, w // 2, 2, c).transpose(0, 2, 4, 1, 3).reshape(h // 2, w // 2, c, 4)
        rank = np.argsort(np.argsort(-blocks, axis=-1, kind="stable"), axis=-1)
        stays = (rank >= 2 if reverse else rank < 2).reshape(h // 2, w // 2, c, 2, 2)
        return stays.transpose(0, 3, 1, 4, 2).reshape(h, w, c)

    return keeps


def flow_contributions(flow: MultiScale, y: Tensor) -> Tensor:
    """`layer_contributions` of a flow with one level, a chain of one chain per squeezing."""
    chains: Any = flow.levels[0].bijections
    return layer_contributions([list(chain.bijections) for chain in chains], y)


def layer_contributions(levels: list[list[Bijection]], y: Tensor) -> Tensor:
    """Log-scales of each input dimension, summed over the layers up to each level: (n, C, H, W) -> (n, L, C, H, W).

    Eq. 9 of the paper. Every layer must move values only, or be a coupling or an activation normalisation: these have a
    scale for each value, and so a term of the log-determinant for it.

    Parameters
    ----------
    levels : the bijections of each level, for a flow that factors nothing out
    y : the preprocessed images
    """
    total, moves, found = torch.zeros_like(y), [], []
    for level in levels:
        for bijection in level:
            if isinstance(bijection, Coupling | ActNorm):
                y, log_s = bijection.forward_each(y)
                total = total + log_s
                continue
            if not isinstance(bijection, Squeeze | Permute | Reorder):
                raise TypeError(f"{type(bijection).__name__} mixes values, so a value has no contribution of its own.")
            y, total = bijection(y)[0], bijection(total)[0]
            moves.append(bijection)
        there = total
        for move in reversed(moves):
            there = move.inverse(there)
        found.append(there)
    return torch.stack(found, 1)

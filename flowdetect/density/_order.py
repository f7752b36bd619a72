"""The order in which rows are read: a permutation, stored if short, computed on demand if long."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

MOST_LISTED = 2**24  # rows; more take over 128 MiB
N_ROUNDS = 6


class Order(Protocol):
    """Indices of rows by position."""

    def __getitem__(self, places: slice, /) -> NDArray[np.intp]:
        """Return the indices at a range of positions."""


def shuffled(n_rows: int, seed: int) -> Order:
    """Draw an order of n rows."""
    if n_rows <= MOST_LISTED:
        listed: NDArray[np.intp] = np.random.default_rng(seed).permutation(n_rows)
        return listed
    return Shuffled(n_rows, seed)


class Shuffled:
    """A permutation of n numbers that is computed on demand and takes no memory.

    It is a Feistel network over the smallest even number of bits that covers n. Outputs of n or more pass through it
    again until they are below n ("Ciphers with arbitrary finite domains", Black and Rogaway, 2002, section 3).
    """

    def __init__(self, n_rows: int, seed: int) -> None:
        self.n_rows = n_rows
        self.half = np.uint64(max(1, -(-(n_rows - 1).bit_length() // 2)))  # bits of each half
        self.mask = np.uint64((1 << int(self.half)) - 1)
        self.keys = np.random.default_rng(seed).integers(0, 2**63, N_ROUNDS, dtype=np.uint64)

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, places: slice) -> NDArray[np.intp]:
        found = self._network(np.arange(*places.indices(self.n_rows), dtype=np.uint64))
        while (beyond := found >= self.n_rows).any():
            found[beyond] = self._network(found[beyond])
        return found.astype(np.intp)

    def _network(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = numbers >> self.half, numbers & self.mask
        for key in self.keys:
            left, right = right, left ^ (_mixed(right ^ key) & self.mask)
        return (left << self.half) | right


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of 64-bit numbers (the finaliser of SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

"""Rows too far from the training data to be scored, and cells that differ from a constant column's value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SAME, SAME_AS_ZERO = 1e-6, 1e-12  # largest rounding error of a constant, relative and absolute


def differs(rows: NDArray[Any], constants: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which cells, (n, k), differ from the constants, (k,), of their columns."""
    return np.abs(rows.astype(np.float64) - constants) > SAME * np.abs(constants) + SAME_AS_ZERO


class OutOfReachError(ValueError):
    """Rows that cannot be scored, because they lie too far from the training data; `rows` are their indices, (k,)."""

    def __init__(self, message: str, rows: ArrayLike) -> None:
        super().__init__(message)
        self.rows = np.asarray(rows, dtype=np.int64)

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.rows)

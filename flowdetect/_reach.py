"""The error of a row that lies too far from the training data to be scored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


class OutOfReachError(ValueError):
    """Rows that cannot be scored, because they lie too far from the training data; `rows` are their indices, (k,)."""

    def __init__(self, message: str, rows: ArrayLike) -> None:
        super().__init__(message)
        self.rows = np.asarray(rows, dtype=np.int64)

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.rows)

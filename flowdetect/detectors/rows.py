"""Rows of frames, arrays and tensors: chosen by their indices, and kept from training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing


def take(X: Any, indices: NDArray[np.int_]) -> Any:
    """Choose rows of a frame, a numpy array or a torch tensor, by sorted indices; all of them without a copy."""
    if len(indices) == len(X):
        return X
    return _safe_indexing(X, indices) if is_frame(X) else X[indices]


def is_frame(X: Any) -> bool:
    """Say whether X has named columns."""
    return hasattr(X, "columns")


def hold_out(n_rows: int, fraction: float, random: np.random.RandomState) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Draw the indices of the rows to train on and of those to keep from it, at least one each, in the order of X."""
    n_held = min(max(round(fraction * n_rows), 1), n_rows - 1)
    shuffled = random.permutation(n_rows)
    return np.sort(shuffled[n_held:]), np.sort(shuffled[:n_held])

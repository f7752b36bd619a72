"""Rows of frames, arrays, tensors and sources: selection by index, hold-out, reading in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing

from flowdetect._images import flatten_images, is_whole, to_rows
from flowdetect._opening import names_compared
from flowdetect._reach import OutOfReachError
from flowdetect._sources import Source, Without, rows_at_once

# most rows, and most values, that are drawn from a source to learn a score and to calibrate
MOST_ROWS_READ, MOST_VALUES_READ = 2**18, 2**24
PART_BYTES = 2**23  # of a source, scored at once
VALUES_AT_ONCE = 2**18

Indices = NDArray[np.int_] | Without
Split = tuple[Indices, NDArray[np.int_], NDArray[np.int_]]  # to train on, to learn from, to calibrate on


def take(X: Any, indices: Indices) -> Any:
    """Select rows of a frame, array, tensor or source by sorted indices; without a copy if all are selected."""
    if len(indices) == len(X):
        return X
    if isinstance(indices, Without) and not isinstance(X, Source):
        indices = indices[np.arange(len(indices))]
    return _safe_indexing(X, indices) if is_frame(X) else X[indices]


def is_frame(X: Any) -> bool:
    """Return whether X is a data frame in memory."""
    return hasattr(X, "columns") and not isinstance(X, Source)


def hold_out(
    n_rows: int, fraction: float, random: np.random.RandomState, most: int | None = None
) -> tuple[Indices, NDArray[np.int_]]:
    """Draw the indices of the training rows and of the held-out rows, at least one each, in the order of X.

    From a source, at most `most` rows are held out.
    """
    n_held = min(max(round(fraction * n_rows), 1), n_rows - 1)
    if most is None or n_rows <= most:
        shuffled = random.permutation(n_rows)
        return np.sort(shuffled[n_held:]), np.sort(shuffled[:n_held])
    held = drawn(n_rows, min(n_held, most), random)
    return Without(n_rows, held), held


def drawn(n_rows: int, most: int, random: np.random.RandomState) -> NDArray[np.int_]:
    """Draw the sorted indices of at most `most` of n rows, without a list of all rows."""
    if n_rows <= most:
        return np.arange(n_rows)
    generator, found = np.random.default_rng(random.randint(2**31)), np.array([], dtype=np.int_)
    while len(found) < most:
        found = np.union1d(found, generator.integers(0, n_rows, most - len(found)))
    return found


def most_read(X: Any) -> int | None:
    """Return the most rows of a source that a score learns from; None for rows in memory: all."""
    if not isinstance(X, Source):
        return None
    return int(max(1, min(MOST_ROWS_READ, MOST_VALUES_READ // max(1, int(np.prod(X.row_shape))))))


def few(X: Any) -> Any:
    """Return rows unchanged; a source as an array of every k-th row, at most `most_read` rows."""
    most = most_read(X)
    return X if most is None else X[:: -(-len(X) // most)].array()


def flat(X: Any) -> Any:
    """Return checked rows or images as rows (n, D), and a frame unchanged."""
    return flatten_images(X) if isinstance(X, np.ndarray) and X.ndim > 2 else to_rows(X)[0]


def extent(X: Any) -> tuple[float, float, bool]:
    """Return the least and the largest value, and whether all are whole numbers; reads in parts."""
    low, high, whole = np.inf, -np.inf, True
    for rows in parts(X):
        low, high, whole = min(low, float(rows.min())), max(high, float(rows.max())), whole and is_whole(rows)
    return low, high, whole


def parts(X: Any) -> Iterator[NDArray[Any]]:
    """Read checked rows or images a few at a time: (k, D)."""
    length = max(1, VALUES_AT_ONCE // max(1, int(np.prod(X.shape[1:]))))
    for start in range(0, len(X), length):
        stop = min(start + length, len(X))
        if isinstance(X, Source):
            yield X.rows(np.arange(start, stop))
            continue
        part = take(X, np.arange(start, stop)) if is_frame(X) else X[start:stop]
        rows = np.asarray(flat(part))
        yield rows.astype(np.float64) if rows.dtype == object else rows  # frames with booleans and numbers


def by_parts(method: Callable[[Any, Any], NDArray[np.float64]]) -> Callable[[Any, Any], NDArray[np.float64]]:
    """Make a method that returns one number for each row read a source in parts; each part is checked like an array."""

    @wraps(method)
    def read(self: Any, X: Any) -> NDArray[np.float64]:
        if not isinstance(X, Source):
            return method(self, X)
        found = np.empty(len(X))
        for start, part in X.parts(rows_at_once(X, PART_BYTES)):
            try:
                with names_compared(X):
                    found[start : start + len(part)] = method(self, self._validated(part, reset=False))
            except OutOfReachError as error:
                raise OutOfReachError(_placed(error, start), error.rows + start) from error
            except ValueError as error:
                raise ValueError(_placed(error, start)) from error
        return found

    return read


def _placed(error: ValueError, start: int) -> str:
    return f"{error} (Rows are counted from row {start} of X.)" if start else str(error)

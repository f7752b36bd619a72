"""What goes into a density: checks of X and y that name the rule, the value received and the remedy."""

from __future__ import annotations

import math
import warnings
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import column_or_1d

# a column is heavily tied if it has this share of distinct values, or less, among this many rows, or more
TIED_SHARE, TIED_ROWS = 0.05, 100
# models compute in float32: a mean may be this many standard deviations, so that these are 80 steps of float32 or more
FLOAT32_STEPS, LARGEST = 1e5, 1e30


def check_finite(rows: NDArray[Any], name: str) -> None:
    """Refuse NaN and infinity, and say where they stand."""
    if rows.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(rows.sum(dtype=np.float64)):  # quick; a sum may also overflow
            return
    lost = np.argwhere(~np.isfinite(rows))
    if len(lost):
        row, column = lost[0]
        found = "NaN" if np.isnan(rows[row, column]) else "infinity"
        raise ValueError(
            f"{name}: X contains {found} in row {row}, column {column} ({len(lost)} such value(s)); a density needs "
            f"finite values: drop or impute them first."
        )


def check_resolved(loc: NDArray[np.float64], scale: NDArray[np.float64], name: str) -> None:
    """Refuse data that vary too little about their mean, or too much, for float32, in which models compute."""
    lost = np.flatnonzero(~((scale * FLOAT32_STEPS > np.abs(loc)) & (scale < LARGEST)))
    if len(lost):
        i = lost[0]
        raise ValueError(
            f"{name}: X has a column of mean {loc[i]:g} and standard deviation {scale[i]:g} ({len(lost)} such "
            f"column(s)), which float32 does not resolve; standardise X first, e.g. with scikit-learn's StandardScaler."
        )


def constant_columns(rows: NDArray[Any]) -> NDArray[np.intp]:
    """Find the columns that hold one value only."""
    return np.flatnonzero(rows.min(0) == rows.max(0))


def warn_of_ties(rows: NDArray[Any], name: str) -> None:
    """Warn of columns with few distinct values: a density on them is unbounded."""
    n_rows = len(rows)
    if n_rows < TIED_ROWS:
        return
    distinct = (np.diff(np.sort(rows, axis=0), axis=0) != 0).sum(0) + 1
    tied = np.flatnonzero(distinct <= TIED_SHARE * n_rows)
    if len(tied):
        warnings.warn(
            f"{name}: column(s) {_some(tied)} hold few distinct values, on which a density is unbounded; "
            f"its likelihoods compare with no other model's. If integers 0..n-1, pass n_bins, else add jitter.",
            UserWarning,
            stacklevel=4,
        )


def warn_of_constants(columns: NDArray[np.intp], name: str) -> None:
    """Warn of the constant columns that a table's density drops."""
    if len(columns):
        warnings.warn(
            f"{name}: column(s) {_some(columns)} are constant and left out; see constant_features_.",
            UserWarning,
            stacklevel=4,
        )


def _some(columns: NDArray[np.intp]) -> str:
    shown = ", ".join(str(column) for column in columns[:5])
    return shown if len(columns) <= 5 else f"{shown}, ... ({len(columns)} in all)"


def encode_labels(
    y: Any, n_rows: int, name: str, classes: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Turn class labels (n,) into the sorted classes and indices into them.

    Raises
    ------
    ValueError
        If y is missing, of the wrong length, or holds a class that training did not see.
    """
    if y is None:
        raise ValueError(
            f"{name}(conditional=True) requires y to be passed, but the target y is None: pass class labels."
        )
    labels = column_or_1d(np.asarray(y))
    if len(labels) != n_rows:
        raise ValueError(f"{name}: y must hold one label a row, {n_rows} in all, got {len(labels)}.")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"{name}: y holds NaN or infinity; labels must name classes.")
    if labels.dtype.kind == "O" and len({type(label) for label in labels}) > 1 or None in labels.tolist():
        raise ValueError(f"{name}: y holds labels of several types or None; give every row a label, all of one type.")
    if labels.dtype.kind == "O":
        labels = np.array(labels.tolist())  # strings in a frame's column; a file keeps no objects
    if classes is None:
        found, codes = np.unique(labels, return_inverse=True)
        return found, codes.astype(np.int64)
    unseen = np.setdiff1d(labels, classes)
    if len(unseen):
        raise ValueError(
            f"{name}: y holds {unseen[:5].tolist()}, which training did not see; known classes are {classes.tolist()}."
        )
    return classes, np.searchsorted(classes, labels).astype(np.int64)


def check_temperature(temperature: Any) -> None:
    """Refuse a temperature that is no factor of a standard deviation."""
    if not isinstance(temperature, Real) or not 0 <= float(temperature) < math.inf:
        raise ValueError(f"temperature must be a finite number >= 0, got {temperature!r}.")

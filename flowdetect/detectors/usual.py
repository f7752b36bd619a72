"""Range and constant columns of the training rows, to find batches in other units.

In a column that was constant in training, any other value is beyond reach, because there is no scale for it. A batch
with another range, such as 0..1 after 0..255, probably has another unit; this gives a warning.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._images import is_whole
from flowdetect._reach import differs
from flowdetect._sources import Source, rows_at_once
from flowdetect._warning import warn
from flowdetect.detectors.reach import warns_of_reach
from flowdetect.detectors.rows import few, parts

FEWEST = 10  # rows, so that no single outlier decides; not needed for images, which have many values
TOO_LARGE, TOO_SMALL = 50.0, 50.0  # factors above the largest and below the smallest training rows


class KnowsUsual:
    """A detector that stores the range and the constant columns of its training rows."""

    _usual: dict[str, Any] | None = None  # None in detectors that an earlier version saved

    def _learn_usual(self: Any, X_train: Any) -> None:
        """Learn both; a fitted density of ours already has the columns that were constant in its training."""
        self._usual = learn_usual(few(X_train), self.image_shape_ is None)
        knows = self.is_frozen or isinstance(X_train, Source)
        columns = getattr(self.density_, "constant_features_", None) if knows else None
        if columns is not None:
            self._usual |= {"constant": np.asarray(columns), "constants": np.asarray(self.density_.constant_values_)}

    def _breaks_out(self, X: Any) -> NDArray[np.bool_]:
        return breaks_out(X, self._usual)

    def _ranges(self, X: Any) -> str:
        return "" if self._usual is None else _ranges(*_range(X, True)[:2], self._usual)

    def _warn_of_range(self: Any, X: Any) -> None:
        """Warn of checked rows with another range, unless scoring them will warn."""
        single, X = next(self._singles()), X[: rows_at_once(X)].array() if isinstance(X, Source) else X
        ranges, row = other_range(X, single._usual, self.image_shape_ is None)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*which does not change its score", category=UserWarning)
            is_known = bool(ranges) and warns_of_reach(single._log_likelihood, X, row)
        if ranges and not is_known:
            warn(
                f"{type(self).__name__} got another range of numbers than it was fitted on: {ranges}. "
                f"Their scores mean nothing; give X the unit and range of the training data."
            )


def learn_usual(X: Any, is_table: bool) -> dict[str, Any]:
    """Learn the range of checked rows or images, and of a table the columns that hold one value.

    Returns
    -------
    usual : dict
        low, high : least and largest value; smallest, largest : 1 % and 99 % quantiles of the sizes of rows; is_whole :
        whether all values are whole numbers; constant, constants : (k,) constant columns, and their values.
    """
    least, most = zip(*((rows.min(axis=0), rows.max(axis=0)) for rows in parts(X)), strict=True)
    lowest, highest = np.min(least, axis=0).astype(np.float64), np.max(most, axis=0).astype(np.float64)
    constant = np.flatnonzero(lowest == highest) if is_table else np.array([], dtype=np.intp)
    low, high, whole, size = _range(X, is_table)
    smallest, largest = np.quantile(size, [0.01, 0.99])
    return {
        "low": low,
        "high": high,
        "smallest": float(smallest),
        "largest": float(largest),
        "is_whole": whole,
        "constant": constant,
        "constants": lowest[constant],
    }


def breaks_out(X: Any, usual: dict[str, Any] | None) -> NDArray[np.bool_]:
    """Mark checked rows with another value in a column that was constant in training, (n,)."""
    if usual is None or not len(usual["constant"]):
        return np.zeros(len(X), dtype=bool)
    columns, constants = usual["constant"], usual["constants"]
    return np.concatenate([differs(rows[:, columns], constants).any(axis=1) for rows in parts(X)])


def other_range(X: Any, usual: dict[str, Any] | None, is_table: bool) -> tuple[str, int]:
    """Describe how the range of checked rows differs from training, or ""; and return the index of a typical row."""
    if usual is None or (is_table and len(X) < FEWEST):
        return "", 0
    low, high, whole, size = _range(X, is_table)
    if not np.isfinite([low, high]).all():
        return "", 0  # raises later
    before = usual["low"], usual["high"], usual["is_whole"]
    is_other = (_looks_divided(low, high, whole) and _looks_counted(*before)) or (
        _looks_counted(low, high, whole) and _looks_divided(*before)
    )
    if len(X) >= FEWEST:
        few, most = np.quantile(size, [0.1, 0.9])
        is_other |= few > TOO_LARGE * usual["largest"] > 0 or 0 < most < usual["smallest"] / TOO_SMALL
    return _ranges(low, high, usual) if is_other else "", int(np.argsort(size)[len(size) // 2])


def _ranges(low: float, high: float, usual: dict[str, Any]) -> str:
    return f"values go from {low:g} to {high:g}, in training they went from {usual['low']:g} to {usual['high']:g}"


def _looks_divided(low: float, high: float, whole: bool) -> bool:
    return low >= 0 and high <= 1 and not whole


def _looks_counted(low: float, high: float, whole: bool) -> bool:
    return low >= 0 and high > 2 and whole


def _range(X: Any, is_table: bool) -> tuple[float, float, bool, NDArray[np.float64]]:
    """Return the least and largest value, whether all are whole numbers, and the size of each row (n,)."""
    low, high, whole, sizes = np.inf, -np.inf, True, []
    for rows in parts(X):
        sizes.append(_sizes(rows, is_table))
        low, high, whole = min(low, float(rows.min())), max(high, float(rows.max())), whole and is_whole(rows)
    return low, high, whole, np.concatenate(sizes)


def _sizes(rows: NDArray[Any], is_table: bool) -> NDArray[np.float64]:
    """Return the largest absolute value of each image, or the median absolute value of each row of a table."""
    if is_table:
        return np.median(np.abs(rows.astype(np.float64)), axis=1)
    return np.maximum(rows.max(axis=1).astype(np.float64), -rows.min(axis=1).astype(np.float64))

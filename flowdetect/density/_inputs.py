"""Checks of a density's inputs; each error names the rule, the value received and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import column_or_1d

from flowdetect._images import is_whole
from flowdetect._limits import is_number, short
from flowdetect._reach import OutOfReachError, differs
from flowdetect._rows import is_torch_tensor, plain, tensor_values
from flowdetect._sources import RowSource, chunks
from flowdetect._warning import warn

# a column has heavy ties if at most this share of its values is distinct, in at least this many rows
TIED_SHARE, TIED_ROWS = 0.05, 100
# largest ratio of mean to standard deviation; the standard deviation is then at least 80 steps of the rows' dtype
RESOLVED = {"float16": 10.0, "float32": 1e5}
RESOLVED_IN_FLOAT64, LARGEST = 1e13, 1e30
# extremes dominate a column's scale if it is this many times the scale of the middle half of its values
EXTREME_RATIO, QUARTILES_OF_NORMAL, FEWEST_FOR_QUARTILES = 20.0, 1.349, 20


@dataclass(frozen=True)
class Inspection:
    """The result of one pass over all rows: dtype, smallest and largest value, and whether all are whole numbers."""

    dtype: np.dtype[Any]
    low: Any
    high: Any
    is_whole: bool


def inspect(source: RowSource, name: str) -> Inspection:
    """Read all rows once; refuse NaN and infinity, and name their position."""
    dtype, lows, highs, whole = np.dtype(np.float64), [], [], True
    for start, rows in chunks(source):
        check_finite(rows, name, start)
        dtype, whole = rows.dtype, whole and is_whole(rows)
        lows.append(rows.min())
        highs.append(rows.max())
    return Inspection(dtype, min(lows), max(highs), whole)


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation, smallest and largest value of each column, and the rows of these two values."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, source: RowSource) -> Moments:
        """Read all rows once; parts are combined in float64 (Chan et al. 1979, eq. 2.1)."""
        n, mean, squares, low, high = 0, np.zeros(1), np.zeros(1), np.full(1, np.inf), np.full(1, -np.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            for _, rows in chunks(source):
                part = rows.astype(np.float64)
                m, part_mean = len(part), part.mean(0)
                delta = part_mean - mean
                squares = squares + ((part - part_mean) ** 2).sum(0) + delta**2 * (n * m / (n + m))
                mean = mean + delta * (m / (n + m))
                low, high, n = np.minimum(low, part.min(0)), np.maximum(high, part.max(0)), n + m
            return cls(mean, np.sqrt(squares / n), low, high)


def check_finite(rows: NDArray[Any], name: str, start: int = 0) -> None:
    """Refuse NaN and infinity, and name their position; `start` is the index of the first of these rows."""
    if rows.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(rows.sum(dtype=np.float64)):  # fast check; a sum of finite values may overflow
            return
    lost = np.argwhere(~np.isfinite(rows))
    if len(lost):
        row, column = lost[0]
        found = "NaN" if np.isnan(rows[row, column]) else "infinity"
        raise ValueError(
            f"{name}: X contains {found} in row {start + row}, column {column} ({len(lost)} such value(s)); a density "
            "needs finite values: drop such rows or impute the values first."
        )


def check_resolved(loc: NDArray[np.float64], scale: NDArray[np.float64], dtype: np.dtype[Any], name: str) -> None:
    """Refuse columns that vary too little around their mean for their dtype, or too much for float32."""
    steps = RESOLVED.get(str(dtype), RESOLVED_IN_FLOAT64)
    lost = np.flatnonzero(~((scale * steps > np.abs(loc)) & (scale < LARGEST)))
    if len(lost):
        i = lost[0]
        raise ValueError(
            f"{name}: X has a column of mean {loc[i]:g} and standard deviation {scale[i]:g} ({len(lost)} such "
            f"column(s)), which {dtype if scale[i] < LARGEST else 'float32'} does not resolve; subtract the mean and "
            f"standardise X where it is computed, in float64, e.g. with scikit-learn's StandardScaler."
        )


def warn_of_ties(rows: NDArray[Any], columns: NDArray[np.intp], name: str) -> None:
    """Warn of columns with few distinct values among some rows: a density on them is unbounded."""
    n_rows = len(rows)
    if n_rows < TIED_ROWS:
        return
    distinct = (np.diff(np.sort(rows, axis=0), axis=0) != 0).sum(0) + 1
    tied = columns[distinct <= TIED_SHARE * n_rows]
    if len(tied):
        warn(
            f"{name}: column(s) {_some(tied)} hold few distinct values, on which a density is unbounded; its "
            "likelihoods are not comparable with those of other models. If the values are integers 0..n-1, pass "
            "n_bins; otherwise add jitter."
        )


def warn_of_extremes(
    rows: NDArray[Any], scale: NDArray[np.float64], moments: Moments, columns: NDArray[np.intp], name: str
) -> None:
    """Warn of columns whose scale is dominated by a few extreme values, such as codes for missing values."""
    if len(rows) < FEWEST_FOR_QUARTILES:
        return
    low, high = np.quantile(np.asarray(rows, dtype=np.float64), [0.25, 0.75], axis=0)
    middle = (high - low) / QUARTILES_OF_NORMAL
    taken = np.flatnonzero((middle > 0) & (scale > EXTREME_RATIO * middle))
    if len(taken):
        i, column = taken[0], columns[taken[0]]
        warn(
            f"{name}: a few extreme values dominate the scale of column(s) {_some(columns[taken])}: column {column} "
            f"has a standard deviation of {scale[i]:.3g}, but the middle half of its values suggests {middle[i]:.3g}; "
            f"its values range from {moments.low[column]:.3g} to {moments.high[column]:.3g}. All other values fall "
            "into a narrow range; drop such rows, impute codes for missing values, or take logarithms of heavy tails."
        )


def warn_of_constants(columns: NDArray[np.intp], name: str) -> None:
    """Warn of constant columns, which a table's density does not model."""
    if len(columns):
        warn(f"{name}: column(s) {_some(columns)} are constant and not modelled; see constant_features_.")


def warns_of_outbreak(
    rows: NDArray[np.float64], columns: NDArray[np.intp], values: NDArray[np.float64], name: str, start: int
) -> bool:
    """Warn of a row with another value in a column that was constant in training; return whether there is one.

    `start` is the index of the first of these rows.
    """
    if not len(columns):
        return False
    found = np.argwhere(differs(rows[:, columns], values))
    if len(found):
        row, i = found[0]
        warn(
            f"{name}: column {columns[i]} was {values[i]:g} in all training rows and is not modelled, but row "
            f"{start + row} has {rows[row, columns[i]]:g} there, which does not change its score; a detector labels "
            "such rows as outliers, see constant_features_."
        )
    return bool(len(found))


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
        If y is missing, has a wrong length, or holds a class that was not in the training data.
    """
    if y is None:
        raise ValueError(
            f"{name}(conditional=True) requires y to be passed, but the target y is None: pass class labels."
        )
    labels = _plain_labels(y, name)
    if len(labels) != n_rows:
        raise ValueError(f"{name}: y must hold one label per row, {n_rows} in all, got {len(labels)}.")
    if classes is None:
        found, codes = np.unique(labels, return_inverse=True)
        return found, codes.astype(np.int64)
    unseen = np.setdiff1d(labels, classes)
    if len(unseen):
        raise ValueError(
            f"{name}: y holds {unseen[:5].tolist()}, which were not in the training data; pass labels among "
            f"{classes.tolist()}."
        )
    return classes, np.searchsorted(classes, labels).astype(np.int64)


def _plain_labels(y: Any, name: str) -> NDArray[Any]:
    """Return labels (n,) as numbers or text, which a file can store; else raise ValueError."""
    if isinstance(y, np.ma.MaskedArray) and np.ma.is_masked(y):
        raise ValueError(f"{name}: y holds masked labels; give every row a label, or drop such rows.")
    if is_torch_tensor(y):
        y = tensor_values(plain(y))
    elif isinstance(y, list | tuple) and len(set(map(type, y))) > 1:
        y = np.fromiter(y, dtype=object, count=len(y))  # numpy would turn numbers into text if y mixes both
    given = np.asarray(y, dtype=object if isinstance(y, list | tuple) and any(np.ndim(label) for label in y) else None)
    if given.dtype.kind == "c" or given.ndim not in (1, 2) or given.shape[1:] not in ((), (1,)):
        example = "np.full(n_rows, y)" if given.ndim == 0 and given.dtype != object else "np.array(list(y))"
        raise ValueError(
            f"{name}: y should be a 1d array of numbers or text, one label per row, got {given.dtype} of shape "
            f"{given.shape} from a {type(y).__name__}; pass such an array, e.g. {example}."
        )
    labels: NDArray[Any] = column_or_1d(given)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(f"{name}: y holds NaN or infinity; labels must be class names or numbers.")
    if labels.dtype.kind in "OT":
        found = [label.item() if isinstance(label, np.generic) else label for label in labels.tolist()]
        kinds = set(map(type, found))
        if len(kinds) > 1 or type(None) in kinds:
            raise ValueError(
                f"{name}: y holds labels of several types or None; give every row a label, all of the same type."
            )
        if found and isinstance(found[0], str | int | float):
            labels = np.array(found)  # strings in a frame's column; files store no objects
    if labels.dtype.kind not in "biufU" or labels.dtype.itemsize > 8 and labels.dtype.kind == "f":
        kind = type(labels[0]).__name__ if len(labels) else labels.dtype
        raise ValueError(
            f"{name}: y must hold whole numbers, text or other plain numbers, which a file can store, got labels of "
            f"{kind}, such as {str(labels[:1].tolist())[1:-1]}; pass y.astype(str), or number the classes by "
            "np.unique(y, return_inverse=True)[1]."
        )
    return labels


def check_time_limit(time_limit: Any) -> None:
    """Refuse a time limit that is neither None nor a positive, finite number of seconds."""
    if time_limit is None:
        return
    if not is_number(time_limit) or time_limit <= 0:
        raise ValueError(
            f"time_limit must be a finite number of seconds > 0, or None for no limit, got {time_limit!r}; pass e.g. "
            f"time_limit=600."
        )


def check_temperature(temperature: Any) -> None:
    """Refuse a temperature that is not a finite number >= 0."""
    if not is_number(temperature) or temperature < 0:
        raise ValueError(
            "temperature must be a finite number >= 0 (for samples of a flow, also a sequence with one number per "
            f"level), got {short(temperature)}; the usual value is 1.0."
        )


def checked_answers(values: NDArray[np.float64], what: str, name: str) -> NDArray[np.float64]:
    """Return results for rows, (n, ...), if all are finite; `what` and `name` say in the error what they are."""
    is_finite = np.isfinite(values)
    if not is_finite.all():
        rows = np.flatnonzero(~is_finite.reshape(len(values), -1).all(1))
        raise OutOfReachError(
            f"{name}: {what} of row {rows[0]} is not finite; the row lies too far from the training data, or the "
            f"weights are broken (see history_).",
            rows,
        )
    return values


def checked_samples(rows: NDArray[Any], temperature: Any, name: str) -> NDArray[Any]:
    """Return samples, (n, D), if all are finite; else raise ValueError."""
    if not np.isfinite(rows).all():
        raise ValueError(
            f"{name}: samples must be finite, but some are not at temperature={short(temperature)}; pass a temperature "
            "nearer to 1, or check the training (history_)."
        )
    return rows

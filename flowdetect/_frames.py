"""Frames of pandas and polars as X: accepted if all cells are numbers, else refused with the columns' names.

Neither library is imported: only methods of the frame are used.
"""

from __future__ import annotations

from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._limits import short

MOST_BITS = 1023  # bits of a whole number that float64 certainly holds
SHOWN = 5  # columns, or sizes of images, per message
ENCODE = (
    "encode categories and text as numbers, with scikit-learn's OrdinalEncoder or OneHotEncoder or skrub's "
    "TableVectorizer in a pipeline"
)
DATES = "turn dates and durations into numbers of a unit, such as (X - X.min()) / np.timedelta64(1, 'D')"
NULLABLE = "drop or impute the missing cells, then X.astype(float)"
NULLABLE_IN_POLARS = 'drop or impute the missing cells, such as X.fill_null(strategy="mean")'
PIPELINE = (
    "or let a pipeline do it: make_pipeline(skrub.TableVectorizer(), SimpleImputer(), "
    "OODDetector()), or with another detector or density at its end"
)
WHAT_A_PIPELINE_DOES = {ENCODE, DATES, NULLABLE, NULLABLE_IN_POLARS}
IMPUTE = (
    "drop such rows, or impute in a pipeline: make_pipeline(SimpleImputer(), OODDetector()), or with "
    "another detector or density at its end"
)


class NoNumberError(TypeError, ValueError):
    """A cell that is not a number; scikit-learn expects a TypeError for it, and a ValueError for other bad data."""


def is_lazy_frame(X: Any) -> bool:
    """Whether X is a polars frame that is not computed yet."""
    return type(X).__name__ == "LazyFrame" and hasattr(type(X), "collect")


def is_polars(X: Any) -> bool:
    """Whether X is a polars frame."""
    return type(X).__module__.split(".")[0] == "polars" and hasattr(X, "schema")


def like(X: Any, rows: NDArray[Any]) -> Any:
    """Return rows (n, D) as a frame of X's kind with X's columns."""
    return type(X)({name: rows[:, i] for i, name in enumerate(X.columns)})


def without_integers(X: Any) -> Any:
    """Convert a frame of whole numbers only to float64; numpy reads any other frame as floats already."""
    if is_polars(X):
        is_whole = all(dtype.is_integer() or str(dtype) == "Boolean" for dtype in X.dtypes)
        return X.cast(dict.fromkeys(X.columns, float)) if is_whole else X
    is_whole = all(getattr(dtype, "kind", "O") in "biu" for dtype in X.dtypes)
    return X.astype(np.float64) if is_whole and hasattr(X, "astype") else X


def plain_frame(X: Any) -> Any:
    """Return a frame whose columns all have plain numeric dtypes; X itself if they already have.

    Raises
    ------
    ValueError
        If columns are not numeric or have missing or infinite cells; the message names them and the remedy.
    """
    if hasattr(X, "compute"):
        raise ValueError(
            f"X must be a frame that is in memory, got a {type(X).__name__}, which is not computed yet; pass "
            f"X.compute()."
        )
    if not hasattr(X, "iloc") and not is_polars(X):
        return X  # a frame of another library: scikit-learn supports some
    names = [str(name) for name in X.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"X must have a different name for each column, got {twice!r} twice; rename one of them.")
    look_at = _look_at_polars if is_polars(X) else _look_at_pandas
    refused: dict[str, list[str]] = {}  # by the remedy
    changed, floats = {}, []
    for i, (name, dtype) in enumerate(zip(X.columns, X.dtypes, strict=True)):
        target, remedy, where = look_at(X, i, dtype)
        if remedy:
            refused.setdefault(remedy, []).append(f"{str(name)!r} ({dtype}){where}")
        elif target is not None:
            changed[name] = target
        if not remedy and (target or getattr(dtype, "kind", "f") == "f"):
            floats.append(name)
    if refused:
        ways = [*refused, *([PIPELINE] if set(refused) & WHAT_A_PIPELINE_DOES else [])]
        columns = [column for group in refused.values() for column in group]
        raise ValueError(f"X must hold numbers, got a frame with column(s) {_listed(columns)}; {'; '.join(ways)}.")
    if changed:
        X = X.cast(changed) if is_polars(X) else X.astype(changed)
    _check_finite(X, floats)
    return X


def _look_at_pandas(X: Any, column: int, dtype: Any) -> tuple[Any, str, str]:
    """Return the new dtype of a column (None: unchanged) and, if it is refused, the remedy and the position."""
    kind, word = getattr(dtype, "kind", "O"), str(dtype)
    if isinstance(dtype, np.dtype) and kind in "biuf":
        return None, "", ""
    if kind in "mM" or word.startswith(("period", "interval", "date", "time", "duration")):
        return None, DATES, ""
    if kind == "c":
        return None, "split complex columns into real and imaginary part", ""
    if kind == "O" and (isinstance(dtype, np.dtype) or word.startswith("decimal")):
        return _look_at_objects(X.iloc[:, column].to_numpy(dtype=object))
    if kind not in "biuf" or word == "category":
        return None, ENCODE, ""
    if hasattr(dtype, "subtype"):
        return dtype.subtype, "", ""
    is_missing = np.asarray(X.iloc[:, column].isna())
    if is_missing.any():
        return None, NULLABLE, f", missing in {_cells(is_missing)}"
    return getattr(dtype, "numpy_dtype", np.float64), "", ""


def _look_at_polars(X: Any, column: int, dtype: Any) -> tuple[Any, str, str]:
    """As `_look_at_pandas`, for a polars frame, which accepts Python's float as a dtype."""
    series, word = X.to_series(column), str(dtype)
    if dtype.is_temporal():
        return None, DATES, ""
    if word == "Object":
        return _look_at_objects(np.array([*series.to_list(), None], dtype=object)[:-1])
    if not dtype.is_numeric() and word not in ("Boolean", "Null"):
        return None, ENCODE, ""
    if series.null_count():
        return None, NULLABLE_IN_POLARS, f", missing in {_cells(series.is_null().to_numpy())}"
    is_plain = dtype.is_float() or (dtype.is_integer() and not word.endswith("128"))
    return None if is_plain else float, "", ""


def _look_at_objects(values: NDArray[Any]) -> tuple[Any, str, str]:
    try:
        numbers_of(values, "X")
    except ValueError:
        is_number = [isinstance(value, Real | Decimal | None) for value in values.tolist()]
        if all(is_number):
            raise
        return None, remedy_of(values[is_number.index(False)]), ""
    return np.float64, "", ""


def _check_finite(X: Any, floats: list[Any]) -> None:
    """Refuse NaN and infinity in some columns, and name their position."""
    lost = []
    for name in floats:
        values = np.asarray(X[name].to_numpy())
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(values.sum(dtype=np.float64)):  # fast check; a sum of finite values may overflow
                continue
        is_lost = ~np.isfinite(values)
        if is_lost.any():
            found = "NaN" if np.isnan(values).any() else "infinity"
            lost.append(f"{str(name)!r} ({found} in {_cells(is_lost)})")
    if lost:
        raise ValueError(f"X must have a finite number in every cell, got column(s) {_listed(lost)}; {IMPUTE}.")


def _cells(is_lost: NDArray[np.bool_]) -> str:
    n = np.count_nonzero(is_lost)
    return f"row {is_lost.argmax()}{f' and {n - 1} more' if n > 1 else ''}"


def _listed(columns: list[str]) -> str:
    return ", ".join(columns[:SHOWN]) + (f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else "")


# ---- cells


def numbers_of(X: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Return an array of Python objects as floats, if each is a number; None becomes NaN."""
    kinds = set(map(type, X.ravel().tolist()))
    lost = tuple(kind for kind in kinds if not issubclass(kind, Real | Decimal | type(None) | np.bool_))
    if lost:
        place = next(place for place, value in np.ndenumerate(X) if isinstance(value, lost))
        where = ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column"), place, strict=False))
        raise NoNumberError(
            f"{name} must hold numbers, got {short(X[place])} of type {type(X[place]).__name__} in {where or 'it'} of "
            "an array of dtype object. The argument must be a number, not a string or other object: "
            f"{remedy_of(X[place])}."
        )
    try:
        return X.astype(np.float64)
    except OverflowError:
        large = next(v for v in X.ravel().tolist() if isinstance(v, int) and v.bit_length() > MOST_BITS)
        raise ValueError(
            f"{name} must hold numbers that float64 can hold, at most 1.8e308, got a whole number of "
            f"{len(str(abs(large)))} digits; divide by a unit, or take logarithms."
        ) from None


def remedy_of(value: Any) -> str:
    """Return the remedy for a cell that is not a number."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return NULLABLE
    is_time = any(hasattr(value, name) for name in ("year", "total_seconds", "hour")) or isinstance(
        value, np.datetime64 | np.timedelta64
    )
    return DATES if is_time else ENCODE

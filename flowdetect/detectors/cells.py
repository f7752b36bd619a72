"""Cells of tables with columns of any type: numbered, compared, and exchanged between rows.

Numbers, dates and durations are compared by their difference; anything else (text, categories, booleans) is equal or
unequal. A missing cell is a value of its own. Nothing here imports pandas or polars.
"""

from __future__ import annotations

import datetime
from collections.abc import Hashable
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._frames import is_polars
from flowdetect.detectors.rows import is_frame

SECONDS_A_DAY = 86_400
MISSING = ("missing",)  # the one key of all missing cells


class Column:
    """One column of the known rows and of the rows to explain, with its distinct cells numbered.

    Parameters
    ----------
    known, asked : list of Python objects
        The column's cells in the known rows, and in the rows to explain.

    Attributes
    ----------
    known, asked : (n,) array of int
        The number of each row's cell.
    values : list of n_distinct cells
        Those of the known rows come first.
    places : (n_distinct_known,) array of int
        Index of a known row that has the cell.
    counts : (n_distinct,) array of int
        Number of known rows that have the cell.
    is_missing : (n_distinct,) array of bool
    numbers : (n_distinct,) array, or None for a column of categories
        Numbers unchanged, dates and durations in days, NaN for a missing cell.
    """

    def __init__(self, known: list[Any], asked: list[Any]) -> None:
        found: dict[Hashable, int] = {}
        cells = [*known, *asked]
        ids = np.array([found.setdefault(_key(cell), len(found)) for cell in cells], dtype=np.intp)
        self.known, self.asked = ids[: len(known)], ids[len(known) :]
        first = np.unique(ids, return_index=True)[1]
        self.values = [cells[place] for place in first]
        self.places = first[first < len(known)]
        self.counts = np.bincount(self.known, minlength=len(first))
        self.is_missing = np.array([_is_missing(value) for value in self.values], dtype=bool)
        self.numbers = _numbers(self.values, self.is_missing)


class Cells:
    """Known rows and rows to explain, with the same columns; builds rows with one cell exchanged.

    Parameters
    ----------
    known, asked : (n, D) arrays, or frames of pandas or polars with the same columns

    Attributes
    ----------
    names : list of D str
    columns : list of D Column
    """

    def __init__(self, known: Any, asked: Any) -> None:
        self._kind, self._names = type(asked), list(asked.columns) if is_frame(asked) else None
        self._known, self._asked = _parts(known, self._names), _parts(asked, self._names)
        self.names = [f"x{i}" for i in range(len(self._asked))] if self._names is None else list(map(str, self._names))
        pairs = zip(self._known, self._asked, strict=True)
        self.columns = [Column(above.tolist(), below.tolist()) for above, below in pairs]

    def exchanged(self, column: int, rows: NDArray[np.intp], cells: NDArray[np.intp]) -> Any:
        """Return rows to explain, by indices (m,), with one column's cells replaced by those of numbers (m,)."""
        parts = [part[rows] for part in self._asked]
        parts[column] = self._known[column][self.columns[column].places[cells]]
        if self._names is None:
            return np.stack(parts, axis=1)
        return self._kind(dict(zip(self._names, parts, strict=True)))

    def values(self, ids: NDArray[np.intp]) -> NDArray[Any]:
        """Return cells by their numbers (m, D): float64 if all are numeric, else objects with None for missing."""
        cells = np.empty(ids.shape, dtype=object)
        for j, column in enumerate(self.columns):
            distinct = np.empty(len(column.values), dtype=object)
            distinct[:] = column.values
            distinct[column.is_missing] = None
            cells[:, j] = distinct[ids[:, j]]
        all_numbers = all(_is_number(value) for column in self.columns for value in column.values)
        return cells.astype(np.float64) if all_numbers else cells


def _parts(X: Any, names: list[Any] | None) -> list[Any]:
    """Return a table's columns, which keep their dtypes, have `tolist` and take arrays of indices."""
    if names is None:
        return list(np.asarray(X).T)
    columns = [X[name] for name in names]
    if hasattr(X, "iloc"):
        return [_Indexed(column.array) for column in columns]  # without the index, which would align
    return [_Indexed(column) for column in columns]


class _Indexed:
    """A column of pandas or polars."""

    def __init__(self, held: Any) -> None:
        self._held = held

    def tolist(self) -> list[Any]:
        to_list = getattr(self._held, "to_list", None) or getattr(self._held, "tolist", None)
        return list(self._held) if to_list is None else list(to_list())

    def __getitem__(self, rows: NDArray[np.intp]) -> Any:
        return self._held[rows]


# ---- one cell


def _is_missing(cell: Any) -> bool:
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, float | np.floating) and cell != cell


def _key(cell: Any) -> Hashable:
    if _is_missing(cell):
        return MISSING
    try:
        hash(cell)
    except TypeError:
        return repr(cell)
    return cell


def _is_number(cell: Any) -> bool:
    if isinstance(cell, bool | np.bool_ | np.timedelta64):  # a timedelta64 is one of numpy's integers
        return False
    return isinstance(cell, Real | Decimal) or _is_missing(cell)


def _numbers(values: list[Any], is_missing: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Convert distinct cells to numbers; None if a cell is not numeric, or all are missing."""
    if is_missing.all():
        return None
    numbers = np.full(len(values), np.nan)
    for i in np.flatnonzero(~is_missing):
        place = _place(values[i])
        if place is None:
            return None
        numbers[i] = place
    return numbers


def _place(cell: Any) -> float | None:
    if isinstance(cell, bool | np.bool_):
        return None
    if isinstance(cell, np.datetime64 | np.timedelta64):
        return float(cell.astype(f"{cell.dtype.kind}8[us]").astype(np.int64)) / (1e6 * SECONDS_A_DAY)
    if isinstance(cell, Real | Decimal):
        return float(cell)
    if isinstance(cell, datetime.datetime):
        naive = cell if cell.tzinfo is None else cell.astimezone(datetime.UTC).replace(tzinfo=None)
        return (naive - datetime.datetime(1970, 1, 1)).total_seconds() / SECONDS_A_DAY
    if isinstance(cell, datetime.date):
        return float(cell.toordinal())
    if isinstance(cell, datetime.timedelta):
        return cell.total_seconds() / SECONDS_A_DAY
    if isinstance(cell, datetime.time):
        return (cell.hour * 3600 + cell.minute * 60 + cell.second + cell.microsecond / 1e6) / SECONDS_A_DAY
    if hasattr(cell, "ordinal") and hasattr(cell, "freqstr"):  # a Period of pandas
        return float(cell.ordinal)
    return None


# ---- two tables


def check_alike(X: Any, background: Any) -> tuple[Any, Any]:
    """Return both as tables of one type, with the same columns in the same order.

    Raises
    ------
    ValueError
        If they differ in type or in columns, or have no rows or columns.
    """
    for each in (X, background):
        if is_frame(each) and not hasattr(each, "iloc") and not is_polars(each):
            raise ValueError(
                f"explain needs X and background as arrays or frames of pandas or polars, got a "
                f"{type(each).__name__}; convert it, e.g. by X.to_pandas() or X.collect()."
            )
    X, background = (each if is_frame(each) else np.asarray(each) for each in (X, background))
    if type(X) is not type(background):
        raise ValueError(
            f"explain needs X and background of one kind, got a {type(X).__name__} and a {type(background).__name__}; "
            f"convert one of them."
        )
    if not is_frame(X):
        if X.ndim != 2 or background.ndim != 2 or X.shape[1] != background.shape[1]:
            raise ValueError(
                f"explain needs X and background as rows (n, D) of one width, got shapes {X.shape} and "
                f"{background.shape}; pass the columns that the pipeline was fitted on."
            )
    else:
        names, given = list(background.columns), list(X.columns)
        if set(names) != set(given) or len(set(names)) < len(names) or len(given) != len(names):
            odd = [name for name in dict.fromkeys([*names, *given]) if (name in names) != (name in given)]
            only = f"only one has {', '.join(repr(str(name)) for name in odd[:5])}" if odd else "a name occurs twice"
            raise ValueError(
                f"explain needs X and background with the same columns, each once; {only}; pass the columns that the "
                f"pipeline was fitted on."
            )
        X = X[names]
    if not len(background) or not background.shape[1]:
        raise ValueError(
            f"explain needs a background of at least one row and column, got shape {background.shape}; pass the rows "
            f"given to fit."
        )
    return X, background

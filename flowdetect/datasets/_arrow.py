"""Arrow columns as arrays of numbers; pyarrow is imported inside functions."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._limits import short
from flowdetect._rows import DATES, ENCODE

if TYPE_CHECKING:
    import pyarrow

LISTED = 5  # columns that a message names


def import_pyarrow() -> ModuleType:
    """Import pyarrow, or raise an ImportError that says how to install it."""
    try:
        import pyarrow
    except ImportError:
        raise ImportError(
            "load_parquet needs pyarrow, which is not installed: pip install 'flowdetect-ood[parquet]'."
        ) from None
    return pyarrow


def is_number_type(kind: pyarrow.DataType) -> bool:
    """Whether a column of this type holds numbers."""
    types = import_pyarrow().types
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    return any(test(kind) for test in tests)


def chosen_columns(schema: pyarrow.Schema, columns: Any, y: Any) -> list[str]:
    """Return the names of the columns that make a row.

    Raises
    ------
    TypeError
        If `columns` or `y` has the wrong type.
    ValueError
        If a column is missing, named twice, or holds no numbers.
    """
    names = list(schema.names)
    if y is not None and not isinstance(y, str):
        raise TypeError(
            f"y must be the name of a column of labels or None, got {short(y)}; pass other labels to fit(X, y)."
        )
    if columns is not None and (isinstance(columns, str) or not isinstance(columns, Sequence | np.ndarray)):
        raise TypeError(f"columns must be a list of names or None for all, got {short(columns)}; pass e.g. ['a', 'b'].")
    wanted = [name for name in names if name != y] if columns is None else [str(name) for name in columns]
    for name in [*wanted, *([] if y is None else [y])]:
        if name not in names:
            raise ValueError(
                f"columns and y must be names of the table's columns, got {name!r}; it has {_some(names)}."
            )
        if names.count(name) > 1 or wanted.count(name) > 1:
            raise ValueError(f"columns must have different names, got {name!r} twice; name each column once.")
    if not wanted:
        raise ValueError(f"columns must name at least one column of numbers, got {short(columns)}, y={y!r}.")
    check_numbers(schema, wanted)
    return wanted


def check_numbers(schema: pyarrow.Schema, wanted: list[str], where: str = "") -> None:
    """Raise if a column holds no numbers; `where` names the file in the message."""
    types = import_pyarrow().types
    others = [name for name in wanted if not is_number_type(schema.field(name).type)]
    if others:
        numbers = [name for name in wanted if name not in others]
        shown = ", ".join(f"{name!r} ({schema.field(name).type})" for name in others[:LISTED])
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        dates = any(types.is_temporal(schema.field(name).type) for name in others)
        raise ValueError(
            f"Columns must hold numbers, got {shown}{more}{where}; pass columns={_some(numbers)} to leave them out, or "
            f"read the table as a frame and {ENCODE}{f'; {DATES}' if dates else ''}."
        )


def check_same(schema: pyarrow.Schema, columns: list[str], y: str | None, name: str, first: str) -> None:
    """Raise if the file `name` lacks a column of the first file, or has no numbers in it."""
    missing = [column for column in [*columns, *([] if y is None else [y])] if column not in schema.names]
    if missing:
        raise ValueError(
            f"The files of a table must have the same columns, got {name} without {_some(missing)}, which {first} has; "
            f"pass columns= of those that all have, or leave the file out."
        )
    check_numbers(schema, columns, f" in {name}")


def dtype_of(schemas: Sequence[pyarrow.Schema], columns: list[str]) -> np.dtype[Any]:
    """Return float32 if all columns are floats of 32 bits or fewer, else float64."""
    kinds = {str(schema.field(name).type) for schema in schemas for name in columns}
    return np.dtype(np.float32 if kinds <= {"float", "halffloat"} else np.float64)


def to_rows(table: Any, columns: Sequence[str], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert columns of a table to rows (k, D); null becomes NaN, True becomes 1."""
    rows = np.empty((table.num_rows, len(columns)), dtype)
    for i, name in enumerate(columns):
        rows[:, i] = _numbers(table.column(name))
    return rows


def _numbers(column: Any) -> NDArray[Any]:
    pyarrow = import_pyarrow()
    kind = column.type
    if kind not in (pyarrow.float64(), pyarrow.float32(), pyarrow.float16()):
        column = column.cast(pyarrow.float64(), safe=False)  # whole numbers beyond 2**53 are rounded
    values: NDArray[Any] = column.to_numpy()
    return values


def to_labels(column: Any, name: str, start: int = 0) -> NDArray[Any]:
    """Convert a column to labels (k,), whole numbers, booleans or text; `start` is the index of its first row.

    Raises
    ------
    ValueError
        If a label is null or of another type.
    """
    types = import_pyarrow().types
    column = column.combine_chunks()
    if column.null_count:
        row = start + int(np.flatnonzero(np.asarray(column.is_null()))[0])
        raise ValueError(f"y={name!r} must name a label in each row, got null in row {row}; leave such rows out.")
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_string(column.type) or types.is_large_string(column.type):
        return np.array(column.to_pylist() or [""], dtype=str)[: len(column)]
    if not (types.is_integer(column.type) or types.is_boolean(column.type)):
        raise ValueError(
            f"y={name!r} must be a column of whole numbers, booleans or text, got {column.type}; pass labels to "
            f"fit(X, y) instead."
        )
    return np.asarray(column)


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[: 2 * LISTED]))
    return f"[{shown}]" if len(names) <= 2 * LISTED else f"[{shown}, ...] ({len(names)} in all)"

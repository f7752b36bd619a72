"""Base of all readers: rows of one form, read in parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUMBERS = "biuf"  # numpy's kinds of numbers
PART_VALUES = 2**21  # values of a part that is read at a time
MOST_PART_ROWS = 2**16


@dataclass(frozen=True)
class Settings:
    """How inputs are read: the options of a call, else those that a model was fitted with."""

    columns: list[str] | None = None
    drop: list[str] = field(default_factory=list)
    if_there: bool = False  # whether columns to leave out may be missing
    label: str | None = None
    separator: str | None = None
    array: str | None = None
    size: tuple[int, int] | None = None
    mode: str = "RGB"
    fit: str = "crop"
    limit: int | None = None
    on_error: str = "skip"


class Reader:
    """One input; subclasses read its rows in parts.

    Attributes
    ----------
    name : str, as given
    columns : names of a table's columns, or None
    row_shape : (D,), (H, W) or (H, W, C)
    n_rows : int, or None until the input is read
    files : list of str, a file for each row, or None
    labels : (n,) array or None; after `whole`
    """

    name: str
    columns: list[str] | None = None
    row_shape: tuple[int, ...]
    n_rows: int | None = None
    files: list[str] | None = None
    labels: Any = None

    @property
    def is_images(self) -> bool:
        """Whether rows have an image's axes."""
        return len(self.row_shape) > 1

    @property
    def part_rows(self) -> int:
        """Number of rows that are read at a time, a multiple of 64."""
        n_values = 1
        for side in self.row_shape:
            n_values *= side
        return max(64, min(MOST_PART_ROWS, PART_VALUES // n_values) // 64 * 64)

    def parts(self) -> Iterator[NDArray[Any]]:
        """Yield checked rows, (k, *row_shape), in order."""
        raise NotImplementedError

    def whole(self) -> Any:
        """Return all rows in a form that `fit` takes; they may be read later."""
        raise NotImplementedError


def what_it_is(reader: Reader) -> str:
    """Describe an input, for a message."""
    if reader.is_images:
        return f"images of {shape_in_words(reader.row_shape)}"
    if reader.columns is None:
        return f"rows of {reader.row_shape[0]} values"
    return f"a table of {len(reader.columns)} column(s), {some(reader.columns)}"


def shape_in_words(shape: Any) -> str:
    """Return "height x width pixels", with the channels if there are several."""
    height, width, *channels = shape
    grey = not channels or channels == [1]
    return f"{height} x {width} pixels, {'grey' if grey else f'{channels[0]} channels'}"


def some(names: Any, shown: int = 6) -> str:
    """List the first names and the number of others."""
    listed = ", ".join(repr(str(name)) for name in list(names)[:shown])
    return listed if len(names) <= shown else f"{listed} and {len(names) - shown} more"


def check_cells(rows: NDArray[Any], start: int, name: str, columns: list[str] | None) -> None:
    """Raise for NaN and infinity, with their place; `start` is the number of the first of these rows."""
    import numpy as np

    if rows.dtype.kind != "f":
        return
    lost = np.argwhere(~np.isfinite(rows))
    if not len(lost):
        return
    row, *place = lost[0].tolist()
    found = rows[tuple(lost[0])]
    where = f"column {columns[place[0]]!r}" if columns else f"place {', '.join(map(str, place))}"
    raise ValueError(
        f"{name!r} must hold a finite number in every cell, got {'NaN (missing)' if np.isnan(found) else found} in row "
        f"{start + row}, {where} (rows are counted from 0); drop such rows, or put a number there"
    )

"""Sources of rows: arrays, memory maps, datasets, folders and files, read in parts and never copied whole.

There are two contracts. Training and scoring read a `RowSource`: flattened rows by index. A user may pass a `Source` as
X if the rows are not in memory: it is a RowSource with the form of a row, the columns' names and labels, and indexing
returns a part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from flowdetect._images import flatten_images
from flowdetect._limits import short

ROWS_AT_ONCE_BYTES = 2**21  # per part in a pass over the data; float64 copies take about eight times as much


class RowSource(Protocol):
    """Rows by index, for training, scoring and learning from the data."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def rows(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows at some indices: (len(indices), D), images in C order with channels last."""


class Source:
    """Rows that are read on demand; a subclass implements `__len__` and `read`.

    Attributes
    ----------
    row_shape : (D,) for a table; (H, W) or (H, W, C) for images
    dtype : type of the values
    columns : list of str, the names of a table's columns, or None
    axes : "rows", "nhw", "nhwc" or "nchw"
        Form of the rows for the user, as in `Layout`; `read` always returns channels last.
    """

    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns: list[str] | None = None
    y: Any = None  # labels (n,), if the source has them

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must implement __len__, its number of rows.")

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Read the rows at some indices, in this order: (k, *row_shape)."""
        raise NotImplementedError(f"{type(self).__name__} must implement read.")

    @property
    def axes(self) -> str:
        """Form of the rows for the user, as in `Layout`."""
        return ("rows", "nhw", "nhwc")[len(self.row_shape) - 1]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, D), (n, H, W) or (n, H, W, C)."""
        return (len(self), *self.row_shape)

    @property
    def ndim(self) -> int:
        """Number of axes of `shape`."""
        return 1 + len(self.row_shape)

    def rows(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Read rows, flattened: (k, D), images in C order with channels last."""
        return flatten_images(self.read(indices)) if len(self.row_shape) > 1 else self.read(indices)

    def __getitem__(self, index: Any) -> Any:
        """Return one row for a number, or a source of some rows for a slice, a mask or indices."""
        if isinstance(index, tuple) and len(index) == 2 and index[1] is Ellipsis:
            index = index[0]  # scikit-learn indexes arrays like this
        if isinstance(index, int | np.integer):
            i = range(len(self))[index]
            return self.read(np.array([i]))[0]
        if isinstance(index, slice):
            return Part(self, range(len(self))[index])
        if isinstance(index, Without):
            return Part(self, index)
        return Part(self, _indices(index, len(self)))

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for _, part in self.parts():
            yield from part

    def parts(self, length: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """Read all rows in order, `length` at a time; yield the first index and rows of each part, (k, *row_shape)."""
        length = length or rows_at_once(self)
        for start in range(0, len(self), length):
            yield start, self.read(np.arange(start, min(start + length, len(self))))

    def array(self) -> NDArray[Any]:
        """Read everything into memory: (n, *row_shape)."""
        return self.read(np.arange(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(f"A {type(self).__name__} is read into an array, which is a copy; omit copy=False.")
        return self.array() if dtype is None else self.array().astype(dtype)


class Part(Source):
    """Some rows of a source, given by indices: an array, a range or `Without`."""

    def __init__(self, source: Source, indices: NDArray[np.intp] | range | Without) -> None:
        self.source, self.indices = source, indices
        self.row_shape, self.dtype, self.columns = source.row_shape, source.dtype, source.columns

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def axes(self) -> str:
        return self.source.axes

    @property
    def y(self) -> Any:
        """The labels of these rows."""
        labels = self.source.y
        return None if labels is None else np.asarray(labels)[self._places(np.arange(len(self)))]

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        return self.source.read(self._places(indices))

    def _places(self, indices: NDArray[np.intp]) -> NDArray[np.intp]:
        if isinstance(self.indices, range):
            return self.indices.start + self.indices.step * indices
        return self.indices[indices]


def nameless(source: Source) -> Source:
    """Return a source without column names."""
    found = source[:]
    found.columns = None
    return cast(Source, found)


class Mapped(Source):
    """The rows of a source, mapped by a function of an array when they are read."""

    def __init__(self, source: Source, function: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        first = function(source.read(np.arange(1)))
        self.source, self.function = source, function
        self.row_shape, self.dtype = tuple(first.shape[1:]), first.dtype

    def __len__(self) -> int:
        return len(self.source)

    @property
    def y(self) -> Any:
        """The labels of the source."""
        return self.source.y

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        return self.function(self.source.read(indices))


class Without:
    """The indices of all of n rows except some, in order; computed rather than stored, so that n may be large."""

    def __init__(self, n_rows: int, left_out: NDArray[np.intp]) -> None:
        self.n_rows, self.left_out = n_rows, np.sort(left_out)
        self._ahead = self.left_out - np.arange(len(left_out))  # number of kept rows before each

    def __len__(self) -> int:
        return self.n_rows - len(self.left_out)

    def __getitem__(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        return places + np.searchsorted(self._ahead, places, side="right")

    def __iter__(self) -> Iterator[int]:
        return iter(np.asarray(self).tolist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[np.arange(len(self))].astype(dtype or np.intp)


class ArraySource:
    """Rows of an array, which may be a memory map: (n, D), or images (n, H, W[, C])."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def rows(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Read the rows."""
        part = np.asarray(self.array[_as_slice(indices)])
        return part if part.ndim == 2 else flatten_images(part)


class ArrayElsewhere(Source):
    """Rows of an array outside of memory, e.g. in an HDF5 or Zarr file, read by slices and increasing indices."""

    def __init__(self, array: Any) -> None:
        self.values, self.row_shape, self.dtype = array, tuple(map(int, array.shape[1:])), np.dtype(array.dtype)

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        increasing, places = np.unique(indices, return_inverse=True)
        return np.asarray(self.values[_as_slice(increasing)])[places]


class Subset:
    """Some rows of a RowSource, given by indices."""

    def __init__(self, source: RowSource, indices: NDArray[np.intp] | Without) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Read the rows."""
        return self.source.rows(self.indices[indices])


# ---- reading


def rows_at_once(source: Any, n_bytes: int = ROWS_AT_ONCE_BYTES) -> int:
    """Return the number of rows in `n_bytes` bytes (default: 2 MiB)."""
    width = source.rows(np.arange(min(1, len(source)))).nbytes
    return max(1, n_bytes // max(1, width))


def chunks(source: RowSource, length: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read all rows in order, `length` at a time; yield the first index and the rows of each part.

    None: about 2 MiB of rows at a time.
    """
    length = length or rows_at_once(source)
    for start in range(0, len(source), length):
        yield start, source.rows(np.arange(start, min(start + length, len(source))))


def sample_rows(source: RowSource, most: int) -> NDArray[Any]:
    """Read every k-th row, with the smallest k that gives at most `most` rows."""
    return source.rows(np.arange(0, len(source), -(-len(source) // most)))


def digest_of_source(source: RowSource) -> str:
    """Hash the shape, dtype and all rows of a source, a few rows at a time."""
    found = hashlib.sha256()
    for start, rows in chunks(source):
        if start == 0:
            found.update(f"{len(source)}{rows.shape[1:]}{rows.dtype}".encode())
        found.update(np.ascontiguousarray(rows).data)
    return found.hexdigest()


def _indices(index: Any, n_rows: int) -> NDArray[np.intp]:
    """Return the indices, 0 .. n_rows - 1, of a mask or a list of numbers."""
    chosen = np.asarray(index) if isinstance(index, list | range | np.ndarray) or hasattr(index, "__array__") else None
    if chosen is None or chosen.ndim != 1 or (chosen.dtype.kind not in "biu" and len(chosen)):
        raise IndexError(
            f"A source is indexed by rows: a number, a slice, a mask or a list of numbers, got {short(index)}; choose "
            "columns when you open the source, or index its array()."
        )
    if chosen.dtype == bool:
        if len(chosen) != n_rows:
            raise IndexError(f"A mask must have one entry per row, {n_rows}, got {len(chosen)}; correct it.")
        return np.flatnonzero(chosen)
    chosen = chosen.astype(np.intp)
    if len(chosen) and not (-n_rows <= chosen.min() and chosen.max() < n_rows):
        raise IndexError(
            f"Indices must be rows of the source, {-n_rows}..{n_rows - 1}, got {chosen.min()}..{chosen.max()}; "
            f"correct them."
        )
    return np.where(chosen < 0, chosen + n_rows, chosen)


def _as_slice(indices: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return consecutive indices as a slice, which reads a view instead of a copy."""
    if len(indices) and indices[-1] - indices[0] == len(indices) - 1 and bool((np.diff(indices) == 1).all()):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices

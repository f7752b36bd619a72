"""Where rows come from: arrays, memory maps and map-style datasets, read in parts and never copied whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowdetect._images import Layout, find_layout, flatten_images
from flowdetect._rows import is_dataset, is_read_in_parts, is_torch_tensor

ROWS_AT_ONCE_BYTES = 2**21  # of one pass over the data, whose float64 copies take some eight times as much


class RowSource(Protocol):
    """Rows by index: what training, scoring and learning from the data read."""

    def __len__(self) -> int:
        """Give the number of rows."""

    def rows(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Give the rows of some indices: (len(indices), D), images in C order with channels last."""


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


class PartsSource:
    """Rows of an array that lies elsewhere, such as in an HDF5 file; it is read by slices and increasing indices."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def rows(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Read the rows."""
        increasing, places = np.unique(indices, return_inverse=True)
        part = np.asarray(self.array[_as_slice(increasing)])
        return (part if part.ndim == 2 else flatten_images(part))[places]


class DatasetSource:
    """Rows of a map-style dataset: items that are arrays, tensors or images, or tuples that begin with one."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.shape: tuple[int, ...] | None = None  # of an item, known from the first

    def __len__(self) -> int:
        return len(self.dataset)

    def first(self) -> Any:
        """Give the first item with an axis for rows before its own: an array or a tensor."""
        item = _item(self.dataset, 0)
        self.shape = tuple(item.shape)
        return item[None]

    def rows(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Read the items one by one."""
        return np.concatenate([self._row(int(i)) for i in indices])

    def _row(self, i: int) -> NDArray[Any]:
        item = _item(self.dataset, i)
        if self.shape is not None and tuple(item.shape) != self.shape:
            raise ValueError(
                f"All items of a dataset must have one shape, got {tuple(item.shape)} in item {i} after {self.shape} "
                f"in item 0; resize, crop or pad them in the dataset's transform."
            )
        values, layout = find_layout(item[None])
        row = np.asarray(values) if layout.axes == "rows" else flatten_images(values)
        return row.reshape(1, -1)


class Subset:
    """Some rows of a source, by their indices."""

    def __init__(self, source: RowSource, indices: NDArray[np.intp]) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Read the rows."""
        return self.source.rows(self.indices[indices])


def open_source(X: Any, image_shape: Any) -> tuple[Any, RowSource | None, Layout]:
    """Tell the layout of the user's data and open a source of its rows.

    Returns
    -------
    head : what scikit-learn validates: X itself where it has two axes, else its first two rows (k, D)
    source : RowSource, or None where X must first be validated (lists, frames, tables)
    layout : Layout
    """
    if is_dataset(X):
        source = DatasetSource(X)
        if not len(source):
            raise ValueError(
                f"X must have rows, got a dataset of length 0 ({type(X).__name__}), hence 0 sample(s); look at the "
                f"folder or the split that it reads."
            )
        _, layout = find_layout(source.first(), image_shape)
        return source.rows(np.arange(min(2, len(source)))), source, layout
    if is_read_in_parts(X) and len(X.shape) > 1:
        _, layout = find_layout(np.asarray(X[:2]), image_shape)
        lazy = PartsSource(X)
        return lazy.rows(np.arange(min(2, len(lazy)))), lazy, layout
    values, layout = find_layout(X, image_shape)
    if layout.axes == "rows":
        return values, None, layout
    return flatten_images(values[:2]), ArraySource(values), layout


def chunks(source: RowSource, length: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read all rows in order, `length` at a time: the first index and the rows of each part.

    None: as many as make some 2 MiB.
    """
    if length is None:
        width = source.rows(np.arange(min(1, len(source)))).nbytes
        length = max(1, ROWS_AT_ONCE_BYTES // max(1, width))
    for start in range(0, len(source), length):
        yield start, source.rows(np.arange(start, min(start + length, len(source))))


def sample_rows(source: RowSource, most: int) -> NDArray[Any]:
    """Read every k-th row, so that at most `most` are read."""
    return source.rows(np.arange(0, len(source), -(-len(source) // most)))


def _as_slice(indices: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Give consecutive indices as a slice, which reads a view rather than a copy."""
    if len(indices) and indices[-1] - indices[0] == len(indices) - 1 and bool((np.diff(indices) == 1).all()):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices


def _item(dataset: Any, i: int) -> Any:
    """Give the data of one item, without its label: an array or a tensor."""
    try:
        item = dataset[i]
    except Exception as error:
        raise ValueError(
            f"The dataset must give item {i} of its {len(dataset)}, but raised {type(error).__name__}: {error}; "
            f"correct its __getitem__, or leave that item out with torch.utils.data.Subset."
        ) from error
    item = item[0] if isinstance(item, tuple | list) and len(item) else item
    item = item if is_torch_tensor(item) else np.asarray(item)
    if item.dtype == object or getattr(item.dtype, "kind", "f") not in "biuf":
        raise ValueError(
            f"Items of a dataset must be arrays, tensors or images of numbers, or tuples that begin with one, got "
            f"{str(dataset[i])[:60]!r} of type {type(dataset[i]).__name__} in item {i}; give the array alone, e.g. by "
            f"a dataset that wraps this one."
        )
    return item

"""Map-style datasets as sources: those of torch and Hugging Face, and any object with a length and items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._images import find_layout
from flowdetect._rows import is_hugging_face, is_loader, is_torch_tensor
from flowdetect._sources import Source

IMAGE_KEYS = "image", "img", "pixel_values", "x", "X", "data"  # keys of data in an item, by preference;
# without any of them, the only array among the entries
LABEL_KEYS = "label", "labels", "fine_label", "y", "target"


def dataset_source(X: Any, image_shape: Any = None) -> Source:
    """Return a dataset, or the dataset of a DataLoader, as a source.

    Only the dataset of a DataLoader is used: `fit` shuffles and builds batches itself, and scores are in the dataset's
    order.
    """
    X = X.dataset if is_loader(X) else X
    if is_hugging_face(X) and (names := _numeric_columns(X)):
        return HuggingFaceTable(X, names)
    return DatasetSource(X, image_shape)


class DatasetSource(Source):
    """Rows of a map-style dataset: items that are arrays, tensors or images, or tuples or mappings that hold one."""

    def __init__(self, dataset: Any, image_shape: Any = None) -> None:
        self.dataset, self._image_shape = dataset, image_shape
        if not len(dataset):
            self.row_shape, self.dtype, self._axes, self._item_shape = (1,), np.dtype(float), "rows", None
            return
        first = _item(dataset, 0)
        self._item_shape = tuple(first.shape)
        values, layout = find_layout(first[None], image_shape)
        self._axes, self.dtype = layout.axes, np.asarray(values).dtype
        self.row_shape = tuple(np.shape(values)[1:]) or (1,)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def axes(self) -> str:
        return self._axes

    @property
    def y(self) -> NDArray[Any] | None:
        """Labels: the items' second entries or labels; every item is read for them."""
        known = getattr(self.dataset, "targets", None)
        if known is not None and len(known) == len(self):
            return np.asarray(known)
        labels = [_label(self.dataset[i]) for i in range(len(self))]
        return None if any(label is None for label in labels) else np.asarray(labels)

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        """Read the items one by one."""
        if not len(indices):
            return np.empty((0, *self.row_shape), self.dtype)
        return np.concatenate([self._row(int(i)) for i in indices])

    def _row(self, i: int) -> NDArray[Any]:
        item = _item(self.dataset, i)
        if tuple(item.shape) != self._item_shape:
            raise ValueError(
                f"All items of a dataset must have the same shape, got {tuple(item.shape)} in item {i} after "
                f"{self._item_shape} in item 0; resize, crop or pad them in the dataset's transform."
            )
        return np.asarray(find_layout(item[None], self._image_shape)[0]).reshape(1, *self.row_shape)


class HuggingFaceTable(Source):
    """The numeric columns of a Hugging Face dataset, in the dataset's order."""

    def __init__(self, dataset: Any, columns: list[str]) -> None:
        self.columns, self.row_shape, self.dtype = columns, (len(columns),), np.dtype(np.float64)
        self.dataset, self._labels = (
            dataset.with_format("numpy", columns=columns, dtype=np.float64),
            _label_column(dataset),
        )
        self._whole = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def y(self) -> NDArray[Any] | None:
        """The column of labels."""
        return None if self._labels is None else np.asarray(self._whole[self._labels])

    def read(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        found = self.dataset[indices.tolist()]
        return np.stack([np.asarray(found[name], dtype=np.float64) for name in self.columns or ()], axis=1)


def _numeric_columns(dataset: Any) -> list[str]:
    """Names of the columns with one number per row, without the labels; empty if there are images or arrays."""
    kinds = {name: str(getattr(feature, "dtype", "")) for name, feature in dataset.features.items()}
    if any(type(feature).__name__.startswith(("Image", "Array")) for feature in dataset.features.values()):
        return []
    numbers = [name for name, kind in kinds.items() if kind.startswith(("int", "uint", "float", "bool"))]
    return [name for name in numbers if name != _label_column(dataset)]


def _label_column(dataset: Any) -> str | None:
    labelled = [name for name, feature in dataset.features.items() if type(feature).__name__ == "ClassLabel"]
    return labelled[0] if labelled else next((name for name in LABEL_KEYS if name in dataset.features), None)


def _label(item: Any) -> Any:
    """Return the label of an item, a number or text; None if it has none."""
    if isinstance(item, Mapping):
        found = next((item[key] for key in LABEL_KEYS if key in item), None)
    else:
        found = item[1] if isinstance(item, tuple | list) and len(item) > 1 else None
    if found is None or isinstance(found, str):
        return found
    label = np.asarray(found)
    return label.item() if label.size == 1 else None


def _item(dataset: Any, i: int) -> Any:
    """Return the data of one item, without its label: an array or a tensor."""
    try:
        whole = dataset[i]
    except Exception as error:
        raise ValueError(
            f"The dataset must return item {i} of its {len(dataset)}, but raised {type(error).__name__}: {error}; "
            "correct its __getitem__, or exclude the item with torch.utils.data.Subset."
        ) from error
    item = whole
    if isinstance(whole, Mapping):
        item = _data_of(whole)
    elif isinstance(whole, tuple | list) and len(whole):
        item = whole[0]
    item = item if is_torch_tensor(item) else np.asarray(item)
    if item.dtype == object or getattr(item.dtype, "kind", "f") not in "biuf":
        raise ValueError(
            "Items of a dataset must be arrays, tensors or images of numbers, tuples that begin with one, or mappings "
            f"with one, got {str(whole)[:60]!r} of type {type(whole).__name__} in item {i}; return only the array, or "
            f"name it {IMAGE_KEYS[0]!r}, e.g. in a dataset that wraps this one."
        )
    return item


def _data_of(item: Mapping[Any, Any]) -> Any:
    """Return the only array among the entries of an item; the item itself if there is none, or more than one."""
    for key in IMAGE_KEYS:
        if key in item:
            return item[key]
    arrays = [value for key, value in item.items() if key not in LABEL_KEYS and np.ndim(value)]
    return arrays[0] if len(arrays) == 1 else item

"""From a user's X to a source of rows: handles all kinds of data that are read in parts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from flowdetect._datasets import dataset_source
from flowdetect._images import Layout, check_image_shape, find_layout, flatten_images
from flowdetect._rows import is_dataset, is_loader, is_read_in_parts
from flowdetect._sources import ArrayElsewhere, ArraySource, RowSource, Source

SHOWN = 5  # names of columns per message


def is_lazy(X: Any) -> bool:
    """Whether the rows of X must be read in parts: sources, datasets, DataLoaders, arrays in files."""
    if isinstance(X, Source):
        return True
    try:
        return is_dataset(X) or is_loader(X) or (is_read_in_parts(X) and len(X.shape) > 1)
    except RuntimeError as error:  # h5py raises it for every attribute
        raise ValueError(
            f"X must be open for reading, got a {type(X).__name__} ({error}); open its file again."
        ) from error


def as_source(X: Any, image_shape: Any = None) -> Source:
    """Return lazy data as a Source.

    Raises
    ------
    ValueError
        If X has no rows, or its rows are not arrays of the same form.
    """
    kind = type(X).__name__
    if not isinstance(X, Source):
        X = dataset_source(X, image_shape) if is_dataset(X) or is_loader(X) else ArrayElsewhere(X)
    if not len(X):
        raise ValueError(
            f"X must have rows, got {'a dataset' if kind != 'Part' else 'a part'} of length 0 ({kind}), hence 0 "
            "sample(s); check the folder, the file or the split that it reads."
        )
    return X


def layout_of(source: Source, image_shape: Any) -> Layout:
    """Find the layout of a source's rows, as `find_layout` for arrays, and check it against `image_shape`."""
    if source.axes != "nchw":
        return find_layout(source.read(np.arange(min(2, len(source)))), image_shape)[1]
    height, width, channels = source.row_shape
    if check_image_shape(image_shape) not in (None, source.row_shape):
        raise ValueError(
            f"image_shape={image_shape!r} disagrees with X, whose images are {source.row_shape} (height, width, "
            f"channels); pass image_shape=None, or images of that shape."
        )
    return Layout((height, width, channels), "nchw")


def open_source(X: Any, image_shape: Any) -> tuple[Any, RowSource | None, Layout]:
    """Find the layout of the user's data and open a source of its rows.

    Returns
    -------
    head : the part that scikit-learn validates: X itself if it has two axes, else its first two rows (k, D)
    source : RowSource, or None if X must be validated first (lists, frames, tables)
    layout : Layout
    """
    if is_lazy(X):
        source = as_source(X, image_shape)
        return source.rows(np.arange(min(2, len(source)))), source, layout_of(source, image_shape)
    values, layout = find_layout(X, image_shape)
    if layout.axes == "rows":
        return values, None, layout
    return flatten_images(values[:2]), ArraySource(values), layout


@contextmanager
def names_compared(source: Any) -> Iterator[None]:
    """Suppress scikit-learn's warning that an array read from a source with column names has no names."""
    with ExitStack() as stack:
        if isinstance(source, Source) and source.columns is not None:
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
        yield


def check_columns(estimator: Any, source: Any, *, reset: bool) -> None:
    """Store the names of a source's columns in an estimator, or compare them with the stored ones.

    scikit-learn does this for frames only.
    """
    columns = source.columns if isinstance(source, Source) else None
    if columns is None:
        return
    if reset:
        estimator.feature_names_in_ = np.asarray(columns, dtype=object)
        return
    known = getattr(estimator, "feature_names_in_", None)
    if known is None or list(known) == list(columns):
        return
    missing, unknown = [n for n in known if n not in columns], [n for n in columns if n not in known]
    told = [f"missing are {missing[:SHOWN]}"] * bool(missing) + [f"unknown are {unknown[:SHOWN]}"] * bool(unknown)
    raise ValueError(
        f"X must have the columns passed during fit, in their order: {'; '.join(told) or 'the order differs'}; pass "
        f"columns={list(known)} when you open X."
    )

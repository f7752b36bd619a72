"""From what a user passes as X to a source of its rows: the one place that knows all kinds that are read in parts."""

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

SHOWN = 5  # names of columns that a message lists


def is_lazy(X: Any) -> bool:
    """Whether the rows of X are to be read in parts: sources, datasets, DataLoaders, arrays in files."""
    if isinstance(X, Source):
        return True
    try:
        return is_dataset(X) or is_loader(X) or (is_read_in_parts(X) and len(X.shape) > 1)
    except RuntimeError as error:  # h5py's, whatever is asked
        raise ValueError(
            f"X must be open to be read, got a {type(X).__name__} ({error}); open its file anew."
        ) from error


def as_source(X: Any, image_shape: Any = None) -> Source:
    """Return what is lazy as a Source.

    Raises
    ------
    ValueError
        If it has no rows, or none that are arrays of one form.
    """
    kind = type(X).__name__
    if not isinstance(X, Source):
        X = dataset_source(X, image_shape) if is_dataset(X) or is_loader(X) else ArrayElsewhere(X)
    if not len(X):
        raise ValueError(
            f"X must have rows, got {'a dataset' if kind != 'Part' else 'a part'} of length 0 ({kind}), hence 0 "
            f"sample(s); look at the folder, the file or the split that it reads."
        )
    return X


def layout_of(source: Source, image_shape: Any) -> Layout:
    """Tell the layout of a source's rows as `find_layout` does that of arrays, and check it against `image_shape`."""
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
    """Tell the layout of the user's data and open a source of its rows.

    Returns
    -------
    head : what scikit-learn validates: X itself where it has two axes, else its first two rows (k, D)
    source : RowSource, or None where X must first be validated (lists, frames, tables)
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
    """Let scikit-learn not miss the names of the columns of an array that was read from a source with names."""
    with ExitStack() as stack:
        if isinstance(source, Source) and source.columns is not None:
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
        yield


def check_columns(estimator: Any, source: Any, *, reset: bool) -> None:
    """Let an estimator remember the names of a source's columns, or compare them with those it remembers.

    scikit-learn does this for frames, and a source is none.
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
        f"X must have the columns passed during fit, in their order: {'; '.join(told) or 'the order differs'}; "
        f"choose columns={list(known)} where X is opened."
    )

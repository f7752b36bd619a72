"""Conversion of user input to rows and labels: layouts, scikit-learn's checks, and held-out rows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from flowdetect._images import Layout, check_in_reach, find_layout, to_rows, warn_of_channels_first
from flowdetect._opening import check_columns, names_compared, open_source
from flowdetect._sources import ArraySource, RowSource, Subset, Without
from flowdetect.density import _inputs
from flowdetect.density._checkpoint import Checkpoint
from flowdetect.density._order import shuffled
from flowdetect.density.spec import DataSpec
from flowdetect.density.streams import SPLIT, stream

MIN_ROWS_TO_HOLD_OUT = 20
MOST_HELD_OUT = 2**20


@dataclass(frozen=True)
class TrainingRows:
    """The rows of one fit: training rows, held-out rows, and the fit's start.

    Attributes
    ----------
    training, held_out : RowSource
        Nothing is learned from held-out rows; None: no rows are held out.
    labels, held_out_labels : (n,) indices of classes, or None
    seed : int
    device : str
    checkpoints : dict of Checkpoint
        By the stage of training; empty if none are written.
    continues : bool
        Whether training continues from the present weights.
    started : float
        Value of time.monotonic() from which the seconds of a time limit count.
    events : FitEvents or None
        The callbacks of this fit.
    """

    training: RowSource
    held_out: RowSource | None
    labels: NDArray[np.int64] | None
    held_out_labels: NDArray[np.int64] | None
    seed: int
    device: str
    checkpoints: dict[str, Checkpoint]
    continues: bool
    started: float = field(default_factory=time.monotonic)
    events: Any = None


def read_rows(estimator: BaseEstimator, X: Any, image_shape: Any, *, reset: bool) -> tuple[RowSource, Layout]:
    """Open the user's X as a source; scikit-learn checks and stores its columns."""
    head, source, layout = open_source(X, image_shape)
    if reset:
        warn_of_channels_first(layout.image_shape)
    options = {"reset": reset, "dtype": "numeric", "ensure_min_samples": 2 if reset else 1, "ensure_all_finite": False}
    with names_compared(source):
        rows = validate_data(estimator, head, **options)
    check_columns(estimator, source, reset=reset)
    if source is None:
        if layout.image_shape is not None:
            find_layout(rows, layout.image_shape)  # the width of a list or frame is known only now
        source = ArraySource(rows)
    return source, layout


def read_labels(spec: DataSpec, y: Any, n_rows: int, name: str) -> NDArray[np.int64] | None:
    """Turn class labels into indices of the classes seen in fit; None if there are no labels or no classes."""
    if y is None or spec.classes is None:
        return None
    return _inputs.encode_labels(y, n_rows, name, spec.classes)[1]


def read_one(estimator: BaseEstimator, spec: DataSpec, x0: Any) -> NDArray[np.float64]:
    """Read one row, (D,) or (1, D), or one image; return its modelled values (D,)."""
    one = np.ndim(x0) == 1 or (spec.image_shape or ())[: np.ndim(x0)] == np.shape(x0)
    source, _ = read_rows(estimator, np.asarray(x0)[None] if one else x0, spec.image_shape, reset=False)
    if len(source) != 1:
        raise ValueError(
            f"{_name(estimator)} computes derivatives at one row, got {len(source)} rows; call it once per row."
        )
    rows = np.asarray(source.rows(np.arange(1)), dtype=np.float64)
    _inputs.check_finite(rows, _name(estimator))
    if spec.n_bins is not None:
        check_in_reach(rows, spec.n_bins)
    row: NDArray[np.float64] = spec.modelled_rows(rows)[0]
    return row


def read_directions(spec: DataSpec, directions: Any) -> NDArray[np.float64]:
    """Read directions (n, D) in units of x; return their modelled columns."""
    rows = np.asarray(to_rows(directions, spec.image_shape)[0], dtype=np.float64)
    found: NDArray[np.float64] = spec.modelled_rows(rows)
    return found


def split_rows(
    source: RowSource,
    labels: NDArray[np.int64] | None,
    fraction: float,
    seed: int,
    device: str,
    checkpoints: dict[str, Checkpoint],
    continues: bool,
) -> TrainingRows:
    """Hold out a random fraction of the rows: at least 1 and at most 2**20, but none if there are fewer than 20."""
    n_rows = len(source)
    order = shuffled(n_rows, stream(seed, SPLIT))
    n_held_out = 0
    if fraction and n_rows >= MIN_ROWS_TO_HOLD_OUT:
        n_held_out = min(max(1, round(fraction * n_rows)), n_rows - 2, MOST_HELD_OUT)
    held_out = np.sort(order[:n_held_out])
    kept = Without(n_rows, held_out)
    return TrainingRows(
        training=Subset(source, kept),
        held_out=Subset(source, held_out) if n_held_out else None,
        labels=None if labels is None else np.delete(labels, held_out),
        held_out_labels=None if labels is None else labels[held_out],
        seed=seed,
        device=device,
        checkpoints=checkpoints,
        continues=continues,
    )


def _name(estimator: BaseEstimator) -> str:
    return type(estimator).__name__

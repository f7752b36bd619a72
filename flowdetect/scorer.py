"""Scores of a saved density or detector in the workers of Ray Data, Spark, Dask, joblib or another engine."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from flowdetect._batches import SHOWN, Batch, Outputs, answer_for_rows, open_batch
from flowdetect._files import as_path
from flowdetect._limits import check_count
from flowdetect._persistence import check_load_options, load
from flowdetect._protocols import PathName
from flowdetect._tensor_file import MOST_BYTES
from flowdetect._threads import torch_threads

MODELS_KEPT = 4  # in a process, at most
DTYPES = {"score": np.float64, "p_value": np.float64, "label": np.int64}
SPARK_TYPES = {"score": "double", "p_value": "double", "label": "bigint"}
_ONE_AT_A_TIME = threading.Lock()


class Scorer:
    """A small picklable function that maps batches of rows to a saved model's scores, p-values and labels.

    It contains the path of the file, not the model. Each process reads the file once, when it scores its first batch.
    It keeps the model for later batches and for other scorers of the same file.

    Parameters
    ----------
    path : str or path
        File of a saved density or detector, which every worker can read at this path. The file must not change later: a
        worker raises an error for another file, so that one job never mixes two models.
    columns : list of names, or one name, default=None
        Columns with the model's features, in its order; or one column whose cells are whole rows or images. None: the
        column names that the model was fitted to; if it was fitted to an array, all columns except those in `keep`.
        Other columns are ignored.
    keep : list of names, or one name, default=()
        Columns of the batch to copy into the result, such as a key; they come first.
    outputs : list of names, default=None
        Outputs among "score", "p_value" and "label". None: all; a density has only the score.
    n_threads : int, default=1
        Threads of torch for a batch. Scores do not depend on it. Engines run one worker for each core, so 1 is usual.
    trusted, max_bytes
        As in `load`.

    Attributes
    ----------
    path : str, absolute
    outputs : tuple of str
    schema : str
        Names and types of the outputs for Spark, such as "score double, p_value double, label bigint". With `keep`, put
        the kept columns before it.
    meta : pandas.DataFrame without rows
        The outputs for Dask. With `keep`, put the kept columns first.

    Notes
    -----
    A call returns a frame of the same type as the batch, with one row for each row of the batch. A pandas frame gives a
    pandas frame with its index; a numpy array or torch tensor (n, D), (n, H, W) or (n, H, W, C) also gives pandas.
    Polars gives polars, an Arrow Table or RecordBatch the same, and a dict of arrays, Ray's usual batch, a dict of
    arrays.

    Results are batch-invariant: on one type of machine a row's result is bitwise the same for every batch, worker and
    number of threads. Threads may share a scorer.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not a complete model of flowdetect, or a parameter does not suit the model.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, pandas as pd
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import LikelihoodDetector, Scorer
    >>> table = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["height", "weight"])
    >>> path = os.path.join(tempfile.mkdtemp(), "detector.safetensors")
    >>> LikelihoodDetector(GaussianMixture(), random_state=0).fit(table).save(path)
    >>> scorer = Scorer(path, keep=["id"])
    >>> scorer(pd.DataFrame({"id": [7, 8], "weight": [0.0, 9.0], "height": [0.0, 9.0]})).round(2)
       id  score  p_value  label
    0   7  -1.85     1.00      1
    1   8 -78.28     0.05     -1
    >>> scorer.schema
    'score double, p_value double, label bigint'
    """

    def __init__(
        self,
        path: PathName,
        *,
        columns: Sequence[Hashable] | Hashable | None = None,
        keep: Sequence[Hashable] | Hashable = (),
        outputs: Sequence[str] | None = None,
        n_threads: int = 1,
        trusted: Sequence[str] = (),
        max_bytes: int = MOST_BYTES,
    ) -> None:
        self.path: str = str(as_path(path))
        self.columns: tuple[Hashable, ...] | None = None if columns is None else _names("columns", columns)
        self.keep: tuple[Hashable, ...] = _names("keep", keep)
        self.n_threads: int = check_count("n_threads", n_threads)
        check_load_options(trusted, max_bytes)
        self._load_options = (tuple(trusted), int(max_bytes))
        self._digest = _digest(self.path)
        model = self._model()
        self.outputs = _outputs(model, outputs)
        clash = [name for name in self.keep if name in self.outputs]
        if clash:
            raise ValueError(
                f"keep must not name columns like the outputs {list(self.outputs)}, got {clash}; rename them in X."
            )
        n_features = getattr(model, "n_features_in_", None)
        if self.columns is not None and len(self.columns) not in (1, n_features):
            raise ValueError(
                f"columns must name the {n_features} features of the model, in its order, or one column that holds "
                f"whole rows, got {len(self.columns)} names; the model's own are {_own_names(model)}."
            )

    def __repr__(self) -> str:
        return f"Scorer({self.path!r})"

    @property
    def schema(self) -> str:
        """Names and types of the outputs, in the form that Spark takes."""
        return ", ".join(f"{name} {SPARK_TYPES[name]}" for name in self.outputs)

    @property
    def meta(self) -> Any:
        """An empty pandas frame with the columns of the outputs."""
        return answer_for_rows(self._answers(None, 0))

    def __call__(self, batch: Any) -> Any:
        """Score a batch.

        Parameters
        ----------
        batch : array or frame of n rows
            See Notes for the types.

        Returns
        -------
        answer : frame of n rows
            The kept columns, then the `outputs`: `score`, float64, higher is more normal; `p_value`, float64; `label`,
            int64, +1 normal and -1 outlier.

        Raises
        ------
        TypeError
            If the type of the batch is not supported.
        ValueError
            If it lacks a column, or has a row that the model cannot score, such as one with NaN.
        """
        opened = open_batch(batch)
        if opened is None:
            if self.keep:
                raise ValueError(
                    f"keep={list(self.keep)} names columns, got a batch that is a plain {type(batch).__name__}; pass "
                    f"frames or dicts, or keep=()."
                )
            return answer_for_rows(self._answers(batch, len(batch)))
        if not len(opened) and not opened.names:  # empty blocks of an engine may have no columns
            return opened.answer((), self._answers(None, 0))
        _check_has(opened, self.keep, "keep")
        X = self._features(opened)
        return opened.answer(self.keep, self._answers(X, len(opened)))

    def map_frames(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Score batches one after the other, for Spark's mapInPandas and mapInArrow.

        Parameters
        ----------
        frames : iterable of batches

        Yields
        ------
        answer : frame
            As from a call with one batch.
        """
        for frame in frames:
            yield self(frame)

    def _model(self) -> Any:
        with _ONE_AT_A_TIME:
            return _loaded(self.path, self._digest, *self._load_options)

    def _features(self, batch: Batch) -> Any:
        """Select what the model scores: a frame with the model's names, an array (n, D), or images."""
        model = self._model()
        own = _own_names(model)
        columns = self.columns or own or tuple(name for name in batch.names if name not in self.keep)
        _check_has(batch, columns, "columns" if self.columns else "the model")
        n_features = getattr(model, "n_features_in_", len(columns))
        values = {name: batch.column(name) for name in columns}
        if len(columns) == 1 and values[columns[0]].ndim > 1:
            return values[columns[0]]
        if len(columns) != n_features:
            raise ValueError(
                f"The model was fitted to arrays of {n_features} columns without names, got a batch with {len(columns)}"
                f" besides keep={list(self.keep)}: {_short(columns)}; pass columns=, their names in the model's order."
            )
        return _frame(own or columns, list(values.values()), is_named=own is not None)

    def _answers(self, X: Any, n_rows: int) -> Outputs:
        found: Outputs = {name: np.zeros(0, DTYPES[name]) for name in self.outputs}
        if n_rows:
            with torch_threads(self.n_threads):
                found = _judged(self._model(), X, self.outputs)
        return {name: np.asarray(found[name], DTYPES[name]) for name in self.outputs}


# ---- the model


@lru_cache(MODELS_KEPT)
def _loaded(path: str, digest: str, trusted: Any, max_bytes: int) -> Any:
    found = _digest(path)
    if found != digest:
        raise ValueError(
            f"{path!r} must be the file that the Scorer was made with (SHA-256 {digest[:12]}...), got another one on "
            f"{socket.gethostname()} ({found[:12]}...); make a new Scorer, or copy the file there."
        )
    return load(path, trusted=trusted, max_bytes=max_bytes)


def _digest(path: str) -> str:
    if not Path(path).exists():
        raise FileNotFoundError(
            f"path={path!r} must be a saved model, got no such file on {socket.gethostname()}; save it where every "
            f"worker can read it."
        )
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_names(model: Any) -> tuple[Hashable, ...] | None:
    found = getattr(model, "feature_names_in_", None)
    return None if found is None else tuple(np.asarray(found).tolist())


def _judged(model: Any, X: Any, outputs: Sequence[str]) -> Outputs:
    """Score rows once, and return all outputs that follow from the scores."""
    if outputs == ("score",):
        return {"score": model.score_samples(X)}
    return dict(model.verdicts(X))


# ---- parameters and columns


def _names(parameter: str, value: Any) -> tuple[Hashable, ...]:
    found = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if len(set(found)) < len(found) or any(name is None for name in found):
        raise ValueError(f"{parameter} must be names of columns, each once, got {value!r}.")
    return found


def _outputs(model: Any, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the outputs: all that the model has, or those asked for."""
    try:
        check_is_fitted(model)
    except NotFittedError:
        told = f"The file must hold a fitted model, got an unfitted {type(model).__name__}; fit it, then save it."
        raise ValueError(told) from None
    given = tuple(DTYPES) if hasattr(model, "calibration_scores_") else ("score",)
    if asked is None:
        return given
    asked = (asked,) if isinstance(asked, str) else tuple(asked)
    lacking = [name for name in asked if name not in given]
    if lacking or not asked or len(set(asked)) < len(asked):
        raise ValueError(
            f"outputs must be of {list(given)}, each once, for a {type(model).__name__}, got {list(asked)}; p-values "
            f"and labels come from a detector, such as LikelihoodDetector."
        )
    return asked


def _check_has(batch: Batch, wanted: Sequence[Hashable], who: str) -> None:
    there = set(batch.names)
    lacking = [name for name in wanted if name not in there]
    if lacking:
        raise ValueError(
            f"A batch must have the columns that {who} names, and lacks {_short(lacking)}; it has "
            f"{_short(batch.names)}. Rename them, or pass columns=, the names in the model's order."
        )


def _short(names: Sequence[Hashable]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more


def _frame(names: Sequence[Hashable], columns: Sequence[NDArray[Any]], *, is_named: bool) -> Any:
    """Join columns (n,) to a frame, or to an array (n, D) for a model without column names."""
    import pandas as pd

    if not is_named and all(column.dtype.kind in "biuf" for column in columns):
        return np.column_stack(columns)
    frame = pd.DataFrame(dict(zip(names, columns, strict=True)))
    return frame if is_named else frame.to_numpy()

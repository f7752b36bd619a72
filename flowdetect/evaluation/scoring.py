"""Names and scores of anything with `score_samples`; rows that cannot be scored are found and listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from flowdetect._images import find_layout, to_rows
from flowdetect._opening import as_source, check_columns, is_lazy, names_compared
from flowdetect._rows import plain
from flowdetect._sources import Source, rows_at_once

SHOWN_ROWS = 10  # indices of unscored rows that a text lists
AT_ONCE, AT_ONCE_BYTES = 8192, 2**23  # rows that are converted to float64 at a time, and their bytes in a source


@dataclass(frozen=True)
class Unscored:
    """Rows of one set that one scorer could not score.

    Attributes
    ----------
    scorer, set_name : str
    rows : tuple of int
    reason : str
        The first error's message, or that the score was NaN.
    """

    scorer: str
    set_name: str
    rows: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.rows[:SHOWN_ROWS])) + (", ..." if len(self.rows) > SHOWN_ROWS else "")
        return f"{self.scorer} could not score {len(self.rows)} of {self.set_name} (rows {listed}): {self.reason}"


def name_all(
    given: Mapping[str, Any] | Sequence[Any],
    argument: str,
    kind: str,
    needed: str,
    name_of: Callable[[Any], str],
) -> dict[str, Any]:
    """Name the objects of a list, with numbers for equal names; raise if one lacks the needed method."""
    if isinstance(given, Mapping):
        named = dict(given)
    elif isinstance(given, list | tuple):
        named = {}
        for item in given:
            base = name_of(item)
            n_same = sum(key == base or key.startswith(f"{base} ") for key in named)
            named[base if n_same == 0 else f"{base} {n_same + 1}"] = item
    else:
        raise TypeError(f"{argument} must be a dict or a list, each a {kind}, got {type(given).__name__}.")
    if not named:
        raise ValueError(f"{argument} must hold at least one {kind}, got none.")
    for key, item in named.items():
        if not hasattr(item, needed):
            raise TypeError(f"Each of {argument} needs {needed}, which {key!r} ({type(item).__name__}) lacks.")
    return named


def name_scorers(scorers: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Name the scorers of a list by their classes; raise if one is not a scorer."""
    return name_all(scorers, "scorers", "fitted density or detector", "score_samples", class_name)


def class_name(scorer: Any) -> str:
    """Return the name of the class; of a frozen estimator, the class inside."""
    return type(scorer.estimator if isinstance(scorer, FrozenEstimator) else scorer).__name__


def plain_set(set_name: str, X: Any) -> Any:
    """Return a set as an array, frame or tensor of numbers, or as a source if it is read in parts."""
    try:
        if is_lazy(X):
            return as_source(X)
        X = plain(X)
        find_layout(X)
    except ValueError as error:
        raise ValueError(f"The set {set_name!r} cannot be scored: {error}") from error
    ndim = getattr(X, "ndim", 2)
    if ndim == 0 or (ndim == 1 and len(X)):
        raise ValueError(
            f"The set {set_name!r} must be a 2D array (n, D) or images, got a {ndim}D array of shape "
            f"{tuple(X.shape)}; pass X.reshape(-1, 1) for one column, X.reshape(1, -1) for one row."
        )
    if n_rows_of(X) == 0:
        raise ValueError(f"Each set needs at least one row, {set_name!r} has none; look at what was read or selected.")
    return X


def set_in_memory(set_name: str, X: Any) -> Any:
    """Return a set as `plain_set` does, but a source as an array."""
    X = plain_set(set_name, X)
    return X.array() if isinstance(X, Source) else X


def score_set(
    scorer_name: str,
    scorer: Any,
    set_name: str,
    X: Any,
    unscored: list[Unscored],
    method: str = "score_samples",
    finite: bool = False,
) -> NDArray[np.float64]:
    """Score X by a method of the scorer: (n,), with NaN for failed rows, which are added to `unscored`.

    With `finite`, infinite scores count as failed: an AUROC can use them, a mean cannot.
    """
    scores, error = _score_rows(scorer, X, method)
    if finite and np.isinf(scores).any():
        scores, error = np.where(np.isinf(scores), np.nan, scores), error or "the score is infinite"
    if np.isnan(scores).any():
        rows = tuple(np.flatnonzero(np.isnan(scores)).tolist())
        unscored.append(Unscored(scorer_name, set_name, rows, error or "the score is NaN"))
    return scores


def _score_rows(scorer: Any, X: Any, method: str) -> tuple[NDArray[np.float64], str | None]:
    """Score X; after a ValueError, halve X until the failing rows are found, which score NaN.

    Returns the scores and the message of the first error. One failing row among 10,000 takes about thirteen more calls.
    """
    n_rows = n_rows_of(X)
    try:
        return _score_batch(scorer, X, n_rows, method), None
    except NotFittedError:  # a ValueError that does not depend on rows
        raise
    except ValueError as error:
        message = str(error)
    if n_rows == 1:
        return np.full(1, np.nan), message
    middle = n_rows // 2
    first, first_error = _score_rows(scorer, _rows_between(X, 0, middle), method)
    second, second_error = _score_rows(scorer, _rows_between(X, middle, n_rows), method)
    return np.concatenate([first, second]), first_error or second_error or message


def _score_batch(scorer: Any, X: Any, n_rows: int, method: str) -> NDArray[np.float64]:
    knows_images = hasattr(scorer, "image_shape")
    if not knows_images and isinstance(X, Source):
        check_columns(scorer, X, reset=False)
        length = min(AT_ONCE, rows_at_once(X, AT_ONCE_BYTES))
        with names_compared(X):
            return np.concatenate([_score_batch(scorer, part, len(part), method) for _, part in X.parts(length)])
    if not knows_images and isinstance(X, np.ndarray) and X.dtype.kind in "iub":
        # GaussianMixture squares uint8 pixels as uint8, which overflows
        parts = (X[i : i + AT_ONCE].astype(np.float64) for i in range(0, n_rows, AT_ONCE))
        return np.concatenate([_score_batch(scorer, part, len(part), method) for part in parts])
    try:
        scores = getattr(scorer, method)(X)
    except NotFittedError:
        raise
    except ValueError:
        if knows_images or getattr(X, "ndim", 2) == 2:
            raise
        scores = getattr(scorer, method)(to_rows(X)[0])  # scikit-learn's estimators take rows only
    scores = np.asarray(scores)
    if scores.dtype.kind not in "biuf":
        raise TypeError(f"{type(scorer).__name__}.{method} must give real numbers, got {scores.dtype}.")
    scores = scores.astype(np.float64)
    if scores.shape != (n_rows,):
        raise TypeError(
            f"{type(scorer).__name__}.{method} must give one score a row, shape ({n_rows},), got {scores.shape}."
        )
    return scores


def _rows_between(X: Any, start: int, stop: int) -> Any:
    return X.iloc[start:stop] if hasattr(X, "iloc") else X[start:stop]


def n_rows_of(X: Any) -> int:
    """Count the rows of an array, frame, tensor or list."""
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)

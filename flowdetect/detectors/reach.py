"""Rows too far out to be scored: to a density an error, to a detector outliers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._reach import OutOfReachError
from flowdetect._warning import warn
from flowdetect.detectors.rows import take

LOWEST_SCORE = -1e250  # finite, so that differences, means and ranks of scores are
FEWEST_WARNED_OF = 10  # rows

RowFunction = Callable[[Any], NDArray[np.float64]]


def lowest_beyond_reach(
    score: RowFunction, log_likelihood: RowFunction, X: Any, ranges: Callable[[], str]
) -> NDArray[np.float64]:
    """Score rows, and give the lowest score to those whose likelihood the density cannot tell.

    Parameters
    ----------
    score, log_likelihood : functions of rows to (n,) arrays
        The second raises an OutOfReachError, or gives -inf, where a row lies too far out. What else goes wrong with
        either is an error here too.
    X : rows (n, D) or images, checked
    ranges : function that names the ranges of X and of the training data, for a warning

    Returns
    -------
    scores : (n,) array, at least LOWEST_SCORE
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows lies far out; a NaN is an error here
        try:
            scores = score(X)
        except ValueError:
            scores = _scores_in_reach(score, log_likelihood, X, ranges)
    return np.maximum(scores, LOWEST_SCORE) if scores.min() < LOWEST_SCORE else scores


def lowest_where(is_out: NDArray[np.bool_], score: RowFunction, X: Any) -> NDArray[np.float64]:
    """Score the rows that are not out, and give the others the lowest score."""
    rest, scores = np.flatnonzero(~is_out), np.full(len(X), LOWEST_SCORE)
    if len(rest):
        scores[rest] = score(take(X, rest))
    return scores


def warns_of_reach(log_likelihood: RowFunction, X: Any, row: int) -> bool:
    """Say whether scoring will warn that most rows of X lie too far out, as this usual one of them does."""
    if len(X) < FEWEST_WARNED_OF:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            return bool(_beyond_reach(log_likelihood, take(X, np.array([row]))).all())
        except ValueError:  # comes again where X is scored
            return True


def _scores_in_reach(
    score: RowFunction, log_likelihood: RowFunction, X: Any, ranges: Callable[[], str]
) -> NDArray[np.float64]:
    """Score what remains without the rows that the density refuses, which must be some."""
    is_far = _beyond_reach(log_likelihood, X)
    reached, scores = np.flatnonzero(~is_far), np.full(len(X), LOWEST_SCORE)
    if not is_far.any() or len(reached):  # if none is far, the error was another, and comes again
        scores[reached] = score(take(X, reached))
    n_far = len(X) - len(reached)
    if len(X) >= FEWEST_WARNED_OF and 2 * n_far > len(X):
        warn(
            f"{n_far} of {len(X)} rows lie too far from the training data to be scored, and are taken for outliers; "
            f"check that X has their unit and range of values: {ranges()}."
        )
    return scores


def _beyond_reach(log_likelihood: RowFunction, X: Any) -> NDArray[np.bool_]:
    """Ask which rows the density refuses as too far out, (n,)."""
    is_far = np.zeros(len(X), dtype=bool)
    while not is_far.all():
        rest = np.flatnonzero(~is_far)
        try:
            log_likelihood(take(X, rest))
        except OutOfReachError as error:
            is_far[rest[error.rows]] = True
        else:
            break
    return is_far

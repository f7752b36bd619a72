"""Rows too far out to be scored: a density raises an error, a detector calls them outliers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._reach import OutOfReachError
from flowdetect._warning import warn
from flowdetect.detectors.rows import take

LOWEST_SCORE = -1e250  # finite, so that differences and means of scores are finite
FEWEST_WARNED_OF = 10  # rows

RowFunction = Callable[[Any], NDArray[np.float64]]


def lowest_beyond_reach(
    score: RowFunction, log_likelihood: RowFunction, X: Any, ranges: Callable[[], str]
) -> NDArray[np.float64]:
    """Score rows; those whose likelihood the density cannot compute get the lowest score.

    Parameters
    ----------
    score, log_likelihood : functions of rows to (n,) arrays
        `log_likelihood` raises an OutOfReachError, or returns -inf, for a row that lies too far out. Any other error of
        either function is raised here too.
    X : rows (n, D) or images, checked
    ranges : function
        Describes the ranges of X and of the training data, for a warning.

    Returns
    -------
    scores : (n,) array, at least LOWEST_SCORE
    """
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow means far out; NaN raises later
        try:
            scores = score(X)
        except ValueError:
            scores = _scores_in_reach(score, log_likelihood, X, ranges)
    return np.maximum(scores, LOWEST_SCORE) if scores.min() < LOWEST_SCORE else scores


def lowest_where(is_out: NDArray[np.bool_], score: RowFunction, X: Any) -> NDArray[np.float64]:
    """Score the rows that are not far out; the others get the lowest score."""
    rest, scores = np.flatnonzero(~is_out), np.full(len(X), LOWEST_SCORE)
    if len(rest):
        scores[rest] = score(take(X, rest))
    return scores


def warns_of_reach(log_likelihood: RowFunction, X: Any, row: int) -> bool:
    """Return whether scoring will warn that most rows of X lie too far out, judged by one typical row."""
    if len(X) < FEWEST_WARNED_OF:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            return bool(_beyond_reach(log_likelihood, take(X, np.array([row]))).all())
        except ValueError:  # raised again when X is scored
            return True


def _scores_in_reach(
    score: RowFunction, log_likelihood: RowFunction, X: Any, ranges: Callable[[], str]
) -> NDArray[np.float64]:
    """Score the rows that the density can score; raise the other error if all of them are within reach."""
    is_far = _beyond_reach(log_likelihood, X)
    reached, scores = np.flatnonzero(~is_far), np.full(len(X), LOWEST_SCORE)
    if not is_far.any() or len(reached):  # if no row is far out, this raises the other error again
        scores[reached] = score(take(X, reached))
    n_far = len(X) - len(reached)
    if len(X) >= FEWEST_WARNED_OF and 2 * n_far > len(X):
        warn(
            f"{n_far} of {len(X)} rows lie too far from the training data to be scored, and are called outliers; "
            f"check that X has their unit and range of values: {ranges()}."
        )
    return scores


def _beyond_reach(log_likelihood: RowFunction, X: Any) -> NDArray[np.bool_]:
    """Find the rows that the density cannot score because they are too far out, (n,)."""
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

"""Explanations by replacement: which columns of a row, or regions of an image, make it unusual.

They use the detector's score and some training rows, and work for every detector. Each row is explained on its own: one
column at a time is changed to training values, or one patch of the image is replaced, and the row is scored again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from flowdetect._frames import like
from flowdetect._images import to_rows
from flowdetect.detectors.occlusion import occlusion_maps
from flowdetect.detectors.rows import flat, is_frame, take
from flowdetect.explanation import Explanation, ImageExplanation, TableExplanation

Score = Callable[[NDArray[Any]], NDArray[np.float64]]  # of rows (n, D)

MOST_REMEMBERED = 2048  # rows
MOST_REMEMBERED_IMAGES = 256
MOST_VALUES_REMEMBERED = 2**19  # 4 MiB of float64
N_QUANTILES = 16  # candidate values spread over a column
N_NEAREST = 16  # candidate values of the nearest neighbours
N_NEIGHBORS = 64
SCORED_AT_ONCE = 65_536  # rows
VALUES_AT_ONCE = 2**24
BEYOND_REACH = -1e200  # only rows that cannot be scored have a lower score
RIDGE = 0.1  # weight of the identity in the correlation matrix
MOST_COLUMNS_REGRESSED = 1024
ROUNDING = 1e-9  # relative; a smaller gain may come from another order of summation


def remembered_rows(X: Any, *, is_image: bool) -> NDArray[Any]:
    """Sample the training rows that explanations use; the sample depends only on the number of rows.

    Parameters
    ----------
    X : the checked rows or images given to `fit`
    is_image : bool

    Returns
    -------
    rows : (n_remembered, D) array
    """
    n_features = max(math.prod(X.shape[1:]), 1)
    most = min(MOST_REMEMBERED_IMAGES if is_image else MOST_REMEMBERED, max(MOST_VALUES_REMEMBERED // n_features, 1))
    if len(X) > most:
        chosen = np.sort(np.random.default_rng(0).choice(len(X), most, replace=False))
        X = take(X, chosen)
    return _numbers(flat(X)).copy()


class Explains:
    """The `explain` method of every detector."""

    def explain(self: Any, X: ArrayLike) -> Explanation:
        """Explain what makes each row unusual: which columns of a table, or which region of an image.

        In a table, one column at a time is changed to training values, and the row is scored again. In an image,
        overlapping patches of three sizes are replaced, once by their surroundings and once by the mean of similar
        training images; this takes at most 196 scores for an image. The explanation of a row does not depend on the
        other rows.

        Parameters
        ----------
        X : (n, D) array or frame, or images

        Returns
        -------
        explanation : TableExplanation or ImageExplanation
            For a table: how important each column is, and the nearest value with which the row would be normal. For
            images: a map of the pixels. Both have `to_frame()` and `plot(row)`.

        Raises
        ------
        ValueError
            If X does not match the data given to `fit`, or if an old version of flowdetect fitted the detector and kept
            no rows.

        Notes
        -----
        A row of a table costs 32 scores for each column. A column that is unusual together with others is harder to
        find, because no change of it alone makes the row normal. Replacement values come from a sample of at most 2,048
        rows given to `fit` (256 images), which the detector keeps.

        References
        ----------
        Images: "Visualizing and Understanding Convolutional Networks" (Zeiler and Fergus, 2014),
        https://arxiv.org/abs/1311.2901, section 4.2.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.mixture import GaussianMixture
        >>> from flowdetect import LikelihoodDetector
        >>> X = np.random.default_rng(0).normal(size=(200, 3))
        >>> explanation = LikelihoodDetector(GaussianMixture(), random_state=0).fit(X).explain([[0.0, 7.0, 0.5]])
        >>> explanation.to_frame()[["column", "value", "usual_value", "suffices"]].head(1)
          column  value  usual_value  suffices
        0     x1    7.0     2.002393      True
        """
        check_is_fitted(self, "offset_")
        checked = self._check_X(X, reset=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*lie too far from the training data", category=UserWarning)
            return explain(
                self.score_samples,
                checked,
                getattr(self, "_remembered_rows", None),
                threshold=self.offset_,
                image_shape=self.image_shape_,
                names=getattr(self, "feature_names_in_", None),
            )


def explain(
    score: Callable[[Any], NDArray[np.float64]],
    X: Any,
    remembered: NDArray[Any] | None,
    *,
    threshold: float,
    image_shape: tuple[int, int, int] | None,
    names: Sequence[str] | None,
) -> Explanation:
    """Explain rows or images.

    Parameters
    ----------
    score : callable
        Maps rows or images, in the form of X, to scores (n,).
    X : checked rows or images
    remembered : (n_remembered, D) array or None
        From `remembered_rows`; None in a detector that an old version fitted.
    threshold : float
        Least score of a normal row.
    image_shape : (H, W, C), or None for a table
    names : sequence of D str or None
        Names of the columns; None: x0, x1, ...

    Returns
    -------
    explanation : TableExplanation or ImageExplanation

    Raises
    ------
    ValueError
        If there are no remembered rows.
    """
    if remembered is None:
        raise ValueError(
            "explain needs training rows, and this detector was fitted by an old version of flowdetect that kept none; "
            "fit it again."
        )
    rows, as_given = _rows_of(X, image_shape)
    rows = rows.astype(np.result_type(rows, remembered), copy=False)

    def score_rows(changed: NDArray[Any]) -> NDArray[np.float64]:
        scores = np.asarray(score(as_given(changed)), dtype=np.float64)
        return np.where(scores > BEYOND_REACH, scores, -np.inf)  # of NaN too

    scores = np.asarray(score(as_given(rows)), dtype=np.float64)
    own = np.where(scores > BEYOND_REACH, scores, -np.inf)
    if image_shape is not None:
        maps = occlusion_maps(score_rows, rows, own, remembered, image_shape)
        return ImageExplanation(scores, threshold, maps, rows.reshape(-1, *image_shape))
    columns = [f"x{i}" for i in range(rows.shape[1])] if names is None else [str(name) for name in names]
    found = _explain_table(score_rows, rows, own, remembered, threshold)
    return TableExplanation(scores=scores, threshold=threshold, columns=columns, values=rows, **found)


def _rows_of(X: Any, image_shape: Any) -> tuple[NDArray[Any], Callable[[NDArray[Any]], Any]]:
    """Return X as rows (n, D), and a function that converts such rows to the form of X."""
    if is_frame(X):
        return _numbers(X), lambda rows: like(X, rows)
    rows, layout = to_rows(X, image_shape)
    return _numbers(rows), layout.as_numpy().restore


def _numbers(X: Any) -> NDArray[Any]:
    """Convert an array or frame to an array of integers or floats."""
    array = np.asarray(X)
    return array if array.dtype.kind in "iuf" else array.astype(np.float64)


def parts(n_rows: int, n_features: int) -> Iterator[slice]:
    """Cut rows into parts that are scored together."""
    at_once = min(SCORED_AT_ONCE, max(VALUES_AT_ONCE // n_features, 1))
    return (slice(start, start + at_once) for start in range(0, n_rows, at_once))


# ---- tables


def _explain_table(
    score: Score,
    rows: NDArray[Any],
    own: NDArray[np.float64],
    remembered: NDArray[Any],
    threshold: float,
) -> dict[str, NDArray[Any]]:
    """Return the (n, D) arrays of a `TableExplanation` by name."""
    neighborhood = Neighborhood(remembered)
    spread = np.stack([_spread(column) for column in remembered.T])  # (D, N_QUANTILES)
    candidates = np.empty((*rows.shape, N_QUANTILES + N_NEAREST), dtype=rows.dtype)
    cell_p_values, residual_p_values = np.empty(rows.shape), np.empty(rows.shape)
    for i, row in enumerate(rows):
        nearest, cell_p_values[i], residual_p_values[i] = neighborhood.look_up(row)
        closest = nearest[np.arange(N_NEAREST) % len(nearest)]
        candidates[i] = np.concatenate([spread, closest.T], axis=1)
    changed_scores = _changed_scores(score, rows, own, candidates)
    distances = np.abs(candidates.astype(np.float64) - rows[:, :, None])
    found = choose(rows, own, candidates, changed_scores, threshold, distances)
    return with_importance(found, cell_p_values, residual_p_values)


def with_importance(
    found: dict[str, NDArray[Any]], cell_p_values: NDArray[np.float64], residual_p_values: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """Add both p-values, and the importance computed from them and the gains, to the arrays of `choose`."""
    importance = found["gains"] / (cell_p_values * residual_p_values)
    total = importance.sum(axis=1, keepdims=True)
    importance /= np.where(total > 0, total, 1)
    return {**found, "importance": importance, "cell_p_values": cell_p_values, "residual_p_values": residual_p_values}


def _spread(column: NDArray[Any]) -> NDArray[Any]:
    """Return N_QUANTILES values of a column: all distinct ones if they are few, else quantiles."""
    distinct = np.unique(column)
    if len(distinct) <= N_QUANTILES:
        return np.resize(distinct, N_QUANTILES)
    return np.quantile(column, np.linspace(0, 1, N_QUANTILES), method="nearest")


class Neighborhood:
    """A column's values among the remembered rows that are nearest to a row in the other columns.

    Distances are in standard deviations. In the distances for other columns, a value outside the remembered range is
    clipped to it, so that one extreme value does not determine the neighbours.

    Parameters
    ----------
    remembered : (n_remembered, D) array
    """

    def __init__(self, remembered: NDArray[Any]) -> None:
        self.remembered = remembered
        self.mean = remembered.mean(axis=0, dtype=np.float64)
        deviation = remembered.std(axis=0, dtype=np.float64)
        self.scale = np.where(deviation > 0, deviation, 1)
        self.standardized = (remembered - self.mean) / self.scale
        self.low, self.high = self.standardized.min(axis=0), self.standardized.max(axis=0)
        n_columns = remembered.shape[1]
        self.residual_of = np.eye(n_columns)  # (D, D): standardized row -> residual of each column
        if n_columns <= MOST_COLUMNS_REGRESSED:
            covariance = (1 - RIDGE) * self.standardized.T @ self.standardized / len(remembered)
            precision = np.linalg.inv(covariance + RIDGE * np.eye(n_columns))
            self.residual_of = precision / np.diag(precision)
        self.residuals = self.standardized @ self.residual_of

    def look_up(self, row: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
        """Return the neighbours' values (n_neighbors, D), the closest 16 first, and two p-values of each value (D,).

        The first p-value belongs to the value. The second belongs to its residual in a ridge regression on the other
        columns, and corrects for neighbours that are not near.
        """
        standardized = (row - self.mean) / self.scale
        clipped = np.clip(standardized, self.low, self.high)
        squares = (self.standardized - clipped) ** 2
        elsewhere = squares.sum(axis=1, keepdims=True) - squares
        n_neighbors = min(N_NEIGHBORS, len(elsewhere))
        ends = sorted({min(N_NEAREST, n_neighbors) - 1, n_neighbors - 1})
        nearest = np.argpartition(elsewhere, ends, axis=0)[:n_neighbors]
        values = np.take_along_axis(self.remembered, nearest, axis=0)
        residuals = np.take_along_axis(self.residuals, nearest, axis=0)
        residual = clipped @ self.residual_of + (standardized - clipped)
        return values, two_sided_p_values(values, row), two_sided_p_values(residuals, residual)


def two_sided_p_values(reference: NDArray[Any], row: NDArray[Any]) -> NDArray[np.float64]:
    """Two-sided rank p-value of each value among those of its column, with ties counted half: (D,)."""
    below, equal = (reference < row).sum(axis=0), (reference == row).sum(axis=0)
    rank = below + equal / 2
    return np.minimum((2 * np.minimum(rank, len(reference) - rank) + 1) / len(reference), 1)


def _changed_scores(
    score: Score, rows: NDArray[Any], own: NDArray[np.float64], candidates: NDArray[Any]
) -> NDArray[np.float64]:
    """Score each row with each candidate in its column: (n, D, n_candidates)."""
    scores = np.repeat(own, candidates[0].size).reshape(candidates.shape)
    row_of, column_of, candidate_of = np.nonzero(candidates != rows[:, :, None])
    for part in parts(len(row_of), rows.shape[1]):
        row, column, candidate = row_of[part], column_of[part], candidate_of[part]
        changed = rows[row]
        changed[np.arange(len(changed)), column] = candidates[row, column, candidate]
        scores[row, column, candidate] = score(changed)
    return scores


def choose(
    rows: NDArray[Any],
    own: NDArray[np.float64],
    candidates: NDArray[Any],
    scores: NDArray[np.float64],
    threshold: float,
    distances: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    """Return the best values, their gains, the usual values and whether these suffice, each (n, D).

    Candidates, their scores, and their distances from the row's own value are (n, D, n_candidates).
    """

    def chosen(of: NDArray[Any], index: NDArray[np.intp]) -> NDArray[Any]:
        return np.take_along_axis(of, index[..., None], axis=2)[..., 0]

    best = scores.argmax(axis=2)
    lowest = np.where(np.isfinite(scores), scores, np.inf).min(axis=(1, 2))
    base = np.where(np.isfinite(own), own, lowest - 1)[:, None]  # a change that makes a row scorable has a gain above 0
    best_scores = chosen(scores, best)
    gains = np.maximum(np.where(np.isfinite(best_scores), best_scores - base, 0), 0)
    gains[gains <= ROUNDING * np.abs(np.where(np.isfinite(base), base, 0))] = 0
    best_values = np.where(gains > 0, chosen(candidates, best), rows)
    distances = np.where(scores < threshold, np.inf, distances)
    nearest = distances.argmin(axis=2)
    is_usual = (own >= threshold)[:, None]
    suffices = np.isfinite(chosen(distances, nearest)) | is_usual
    usual_values = np.where(suffices, chosen(candidates, nearest), best_values)
    return {
        "best_values": best_values,
        "gains": gains,
        "usual_values": np.where(is_usual, rows, usual_values),
        "suffices": suffices,
    }

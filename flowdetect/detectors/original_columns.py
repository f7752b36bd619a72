"""`explain` of a whole pipeline: in the columns that the user has, whatever its transformers make of them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect._fitting import is_pipeline
from flowdetect.detectors.cells import Cells, check_alike
from flowdetect.detectors.explanations import (
    BEYOND_REACH,
    MOST_REMEMBERED,
    MOST_VALUES_REMEMBERED,
    N_NEAREST,
    N_QUANTILES,
    choose,
    parts,
    with_importance,
)
from flowdetect.detectors.neighborhood import MixedNeighborhood
from flowdetect.detectors.rows import take
from flowdetect.explanation import TableExplanation


def explain(detector: Any, X: ArrayLike, background: ArrayLike) -> TableExplanation:
    """Say what makes each row unusual to a pipeline that ends in a detector, in the pipeline's own columns.

    Each column alone is changed to cells that occur in the background, and the row goes through the whole pipeline
    again: a column of cities is exchanged as a whole, however many columns a transformer makes of it.

    Parameters
    ----------
    detector : fitted estimator with `score_samples` and `offset_`
        A detector, such as `OODDetector` or scikit-learn's IsolationForest, or a Pipeline that ends in one.
    X : (n, D) array or frame of pandas or polars
        The rows to explain, as the pipeline takes them: categories, dates and missing cells included.
    background : (n_background, D) array or frame
        Rows that are usual, such as those given to `fit`. Cells come from a sample of at most 2,048 of them.

    Returns
    -------
    explanation : TableExplanation
        As a detector's own `explain` gives it, with a category's or a date's cells as they are.

    Raises
    ------
    TypeError
        If the detector has no `score_samples`, or no threshold.
    ValueError
        If X and background differ in kind or columns, or are no tables.

    See Also
    --------
    OODDetector.explain : the same of a detector without a pipeline, which needs no background.

    Notes
    -----
    It costs 32 times D scorings of each row. Which usual value is nearest is a question for numbers and dates; of
    categories it is the most frequent one that suffices.

    Of a category, `cell_p_values` is the share of the nearest background rows whose cells are at most as frequent
    among them, and `residual_p_values` the share whose cells are at most as well predicted, linearly, by the row's
    other columns. A missing cell counts as a category of its own. Neither p-value depends on the pipeline.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.compose import make_column_transformer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> from flowdetect import OODDetector, explain
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"city": rng.choice(["Lima", "Oslo"], 200), "cold": rng.normal(size=200)})
    >>> X["cold"] += 9.0 * (X["city"] == "Oslo")
    >>> encode = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    >>> pipeline = make_pipeline(encode, OODDetector(random_state=0)).fit(X)
    >>> found = explain(pipeline, pd.DataFrame({"city": ["Lima"], "cold": [9.0]}), background=X)
    >>> found.to_frame()[["column", "value", "usual_value", "suffices"]]
      column value usual_value  suffices
    0   cold   9.0    1.643252      True
    1   city  Lima        Oslo      True
    """
    threshold = _threshold(detector)
    asked, known = check_alike(X, background)
    most = min(MOST_REMEMBERED, max(MOST_VALUES_REMEMBERED // known.shape[1], 1))
    if len(known) > most:
        chosen = np.random.default_rng(0).choice(len(known), most, replace=False)
        known = take(known, np.sort(chosen))
    cells = Cells(known, asked)
    neighborhood = MixedNeighborhood(cells)
    rows = np.stack([column.asked for column in cells.columns], axis=1)  # (n, D), numbers of cells
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lie too far from the training data", category=UserWarning)
        scores = _scores(detector, asked)
        warnings.simplefilter("ignore")  # what a transformer has to say, it has said of the rows themselves
        found = _explained(detector, cells, neighborhood, rows, scores, threshold)
    for name in ("usual_values", "best_values"):
        found[name] = cells.values(found[name])
    return TableExplanation(scores=scores, threshold=threshold, columns=cells.names, values=cells.values(rows), **found)


def _threshold(detector: Any) -> float:
    """Find the score that a usual row has at least."""
    last = detector
    while True:
        if is_pipeline(last):
            last = last.steps[-1][1]
        elif hasattr(last, "best_estimator_"):
            last = last.best_estimator_
        else:
            break
    name = type(last).__name__
    if isinstance(last, type) or not hasattr(detector, "score_samples"):
        raise TypeError(
            f"explain needs a detector with score_samples, or a pipeline that ends in one, such as "
            f"make_pipeline(TableVectorizer(), OODDetector()); {name} has none."
        )
    if getattr(last, "image_shape_", None) is not None:
        raise ValueError(f"explain looks at a table's columns, and this {name} has images; call its own explain(X).")
    if not hasattr(last, "offset_"):
        raise TypeError(
            f"explain needs a detector's threshold, offset_, and {name} has none; fit it first, and if it is a density "
            f"put it into LikelihoodDetector."
        )
    return float(last.offset_)


def _scores(detector: Any, X: Any) -> NDArray[np.float64]:
    return np.asarray(detector.score_samples(X), dtype=np.float64)


def _reached(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(scores > BEYOND_REACH, scores, -np.inf)  # of NaN too


def _explained(
    detector: Any,
    cells: Cells,
    neighborhood: MixedNeighborhood,
    rows: NDArray[np.intp],
    scores: NDArray[np.float64],
    threshold: float,
) -> dict[str, NDArray[Any]]:
    """Give the arrays (n, D) of a `TableExplanation`, values as numbers of cells."""
    own, shape = _reached(scores), (*rows.shape, N_QUANTILES + N_NEAREST)
    candidates, distances = np.empty(shape, dtype=np.intp), np.empty(shape)
    cell_p_values, residual_p_values = np.empty(rows.shape), np.empty(rows.shape)
    for i, row in enumerate(rows):
        closest, cell_p_values[i], residual_p_values[i] = neighborhood.look_up(row)
        candidates[i, :, N_QUANTILES:] = closest.T
    changed = np.repeat(own, candidates[0].size).reshape(shape)
    for j in range(rows.shape[1]):
        candidates[:, j, :N_QUANTILES] = neighborhood.candidates(j)
        for i, cell in enumerate(rows[:, j]):
            distances[i, j] = neighborhood.distances(j, cell, candidates[i, j])
        row_of, candidate_of = np.nonzero(candidates[:, j] != rows[:, j, None])
        for part in parts(len(row_of), rows.shape[1]):
            row, candidate = row_of[part], candidate_of[part]
            exchanged = cells.exchanged(j, row, candidates[row, j, candidate])
            changed[row, j, candidate] = _reached(_scores(detector, exchanged))
    found = choose(rows, own, candidates, changed, threshold, distances)
    return with_importance(found, cell_p_values, residual_p_values)

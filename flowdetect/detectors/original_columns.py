"""`explain` for a whole pipeline, in the columns of the user's table."""

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
    """Explain what makes each row unusual to a pipeline that ends in a detector, in the pipeline's input columns.

    One column at a time is changed to cells of the background, and the row passes through the whole pipeline again. A
    column of cities, for example, is changed as a whole, even if a transformer encodes it as many columns.

    Parameters
    ----------
    detector : fitted estimator with `score_samples` and `offset_`
        A detector, such as `OODDetector` or scikit-learn's IsolationForest, or a Pipeline that ends in one.
    X : (n, D) array or frame of pandas or polars
        Rows to explain, in the form that the pipeline takes; categories, dates and missing cells are allowed.
    background : (n_background, D) array or frame
        Normal rows, such as those given to `fit`. Replacement cells come from a sample of at most 2,048 of them.

    Returns
    -------
    explanation : TableExplanation
        As from a detector's own `explain`; cells with categories or dates are kept unchanged.

    Raises
    ------
    TypeError
        If the detector has no `score_samples`, or no threshold.
    ValueError
        If X and background differ in type or columns, or are not tables.

    See Also
    --------
    OODDetector.explain : the method of a detector without a pipeline; it needs no background.

    Notes
    -----
    A row costs 32 * D scores. `usual_values` is the nearest value that suffices, for numbers and dates; for categories
    it is the most frequent one that suffices.

    For a category, `cell_p_values` is the share of the nearest background rows whose cells are at most as frequent
    among them. `residual_p_values` is the share of them whose cells are predicted at most as well, linearly, from the
    other columns. A missing cell counts as a category of its own. Both p-values are independent of the pipeline.

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
        warnings.simplefilter("ignore")  # transformers have already given their warnings for the rows themselves
        found = _explained(detector, cells, neighborhood, rows, scores, threshold)
    for name in ("usual_values", "best_values"):
        found[name] = cells.values(found[name])
    return TableExplanation(scores=scores, threshold=threshold, columns=cells.names, values=cells.values(rows), **found)


def _threshold(detector: Any) -> float:
    """Return the least score of a normal row."""
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
    """Return the (n, D) arrays of a `TableExplanation`, with cell numbers as values."""
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

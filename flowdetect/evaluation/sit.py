"""The SIT report: how much a score changes if pixels change and meaning does not.

A scorer is anything with `score_samples`; a semantic-invariant transformation (SIT) is a scikit-learn transformer. The
report stores the raw scores for further analysis.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from flowdetect._frames import like
from flowdetect._limits import MOST_RESAMPLES, check_count, check_seed
from flowdetect._protocols import Scorer, Transformer
from flowdetect.evaluation._waiting import waiting
from flowdetect.evaluation.intervals import auroc_interval
from flowdetect.evaluation.metrics import auroc
from flowdetect.evaluation.resampling import Counts, draw_counts, interval_of, resampled_means
from flowdetect.evaluation.scoring import class_name, n_rows_of, name_all, name_scorers, score_set, set_in_memory
from flowdetect.evaluation.sit_results import ALL, BITS, CLEAN, COLUMNS, SPREADS, SITReport

LONGEST_NAME = 40  # characters of a SIT's repr that is used as its name


def sit_report(
    scorers: Mapping[str, Scorer] | Sequence[Scorer],
    X: ArrayLike,
    sits: Mapping[str, Transformer] | Sequence[Transformer],
    y: ArrayLike | None = None,
    X_out: ArrayLike | None = None,
    *,
    n_bootstrap: int = 1000,
    random_state: int | None = 0,
    verbose: int = 1,
) -> SITReport:
    r"""Test scorers with semantic-invariant transformations (SITs).

    For each scorer s and each SIT t, over all images and over those of each class, the report contains

    (a) the shift of the mean, in bits/dim if the scorer has them, else in standard deviations of its scores of the
    original images; positive is less normal;

    (b) the AUROC of clean against transformed images, where transformed is positive; 0.5 is ideal:

    .. math:: P(s(t(x')) < s(x)) + \tfrac{1}{2} P(s(t(x')) = s(x))

    (c) with `X_out`, the AUROC of transformed images against `X_out`, which is positive: how well OoD images are
    detected after the in-distribution images were transformed.

    The 95 % interval of a shift is a percentile interval of a bootstrap over images; all scorers and SITs share the
    resamples. Intervals of AUROCs are those of `auroc_interval`, which keep their coverage near 0 and 1: for pairs of
    clean and transformed images in (b), and for independent sets in (c). They describe the sampling of images, not of
    trainings or seeds.

    Parameters
    ----------
    scorers : dict of name to fitted density or detector, or list of them
        Anything with `score_samples(X)`, where higher is more normal; `bits_per_dim(X)` is used instead if it exists.
        In a list the name is that of the class, with a number if it occurs twice.
    X : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)
        Held-out data like the training data of the scorers.
    sits : dict of name to transformer, or list of them
        A fitted SIT is used directly; of an unfitted one a clone is fitted to X and y. In a list the name is the repr
        if it is short, else the class.
    y : (n,) array, default=None
        Class labels, for results of each class. They are also passed to a SIT whose `transform` takes y, such as
        `ZeroLatents` of a conditional flow.
    X_out : data in any of these layouts, default=None
        Out-of-distribution data.
    n_bootstrap : int, default=1000
    random_state : int or None, default=0
        Seed of the bootstrap of the shifts.
    verbose : int, default=1
        1: lines on stderr name what is being scored, if the report takes longer than a few seconds. 0: silent.

    Returns
    -------
    report : SITReport
        With `to_frame()`, `to_markdown()`, `save_html()`, `plot()` (by class), `plot_shifts()`, `plot_examples()`,
        `scores` and `unscored`. Rows for which a scorer raises ValueError or returns NaN are left out of the numbers,
        and listed in `unscored`.

    Raises
    ------
    TypeError
        If a scorer has no `score_samples`, or a SIT no `transform`.
    ValueError
        If there is no scorer or no SIT, if X is empty, if two names are equal, or if y and X differ in length.
    NotFittedError
        If a scorer is not fitted.

    References
    ----------
    "Exploring the Correlation Between Likelihood of Flow-based Generative Models and Image Semantics" (anonymous, under
    double-blind review).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import AddNoise, Translate, sit_report
    >>> X = np.random.default_rng(0).normal(size=(200, 4))
    >>> mixture = GaussianMixture(random_state=0).fit(X)
    >>> report = sit_report([mixture], X, {"moved": Translate(dx=1), "noise": AddNoise(0.01, random_state=0)})
    >>> report
    SITReport(scorers=['GaussianMixture'], sits=['none', 'moved', 'noise'], n_images=200)
    >>> bool(report.to_frame().auroc_clean[1] > 0.7)
    True
    """
    named = name_scorers(scorers)
    check_count("n_bootstrap", n_bootstrap, most=MOST_RESAMPLES)
    check_seed(random_state)
    X = set_in_memory("X", X)
    X_out = None if X_out is None else set_in_memory("X_out", X_out)
    labels = _check_labels(y, n_rows_of(X))
    fitted = _fitted_sits(sits, X, labels)
    units = {name: BITS if hasattr(scorer, "bits_per_dim") else SPREADS for name, scorer in named.items()}
    report = SITReport([], {name: {} for name in named}, {}, fitted, units, X, labels)

    n_steps = len(named) * (1 + len(fitted) + (X_out is not None))
    with waiting("sit_report", n_steps, verbose) as begin:
        _score_all(report, named, X_out, begin)
    report.results.extend(_results(report, n_bootstrap, np.random.default_rng(random_state)))
    return report


def _score_all(report: SITReport, named: dict[str, Any], X_out: Any, begin: Callable[[str], None]) -> None:
    """Score the original images, their transformed versions and `X_out`, and store the scores in the report."""

    def scores_of(name: str, set_name: str, rows: Any) -> NDArray[np.float64]:
        begin(f"{name} scores {n_rows_of(rows):,} rows, {set_name}")
        if report.units[name] == BITS:
            return -score_set(name, named[name], set_name, rows, report.unscored, "bits_per_dim", finite=True)
        return score_set(name, named[name], set_name, rows, report.unscored, finite=True)

    for sit_name, sit in {CLEAN: None, **report.sits}.items():
        with sklearn.config_context(transform_output="default"):  # a data frame cannot hold images
            changed = report.X if sit is None else _transformed(sit, report.X, report.y)
        for name in named:
            report.scores[name][sit_name] = scores_of(name, "the images" if sit is None else sit_name, changed)
    if X_out is not None:
        report.scores_out.update({name: scores_of(name, "X_out", X_out) for name in named})


def _results(report: SITReport, n_bootstrap: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Compute all numbers from the scores, with the same resamples for every scorer and SIT."""
    n_images = n_rows_of(report.X)
    groups: dict[Any, NDArray[np.bool_]] = {ALL: np.ones(n_images, dtype=bool)}
    if report.y is not None:
        groups.update({str(label): report.y == label for label in np.unique(report.y)})
    counts = {label: draw_counts(int(rows.sum()), n_bootstrap, generator) for label, rows in groups.items()}
    results = []
    for scorer in report.scores:
        scores_out = report.scores_out.get(scorer, np.empty(0))
        scores_out = scores_out[~np.isnan(scores_out)]
        for sit in report.scores[scorer]:
            for label, rows in groups.items():
                numbers = _numbers(report, scorer, sit, rows, counts[label], scores_out)
                results.append({"scorer": scorer, "sit": sit, "label": label, **numbers})
    return results


def _numbers(
    report: SITReport,
    scorer: str,
    sit: str,
    rows: NDArray[np.bool_],
    counts: Counts,
    scores_out: NDArray[np.float64],
) -> dict[str, Any]:
    """Return the numbers of one scorer, SIT and group of images, over the rows with both scores."""
    clean, moved = report.values(scorer)[rows], report.values(scorer, sit)[rows]
    kept = ~np.isnan(clean) & ~np.isnan(moved)
    clean, moved, counts = clean[kept], moved[kept], counts[:, kept] if not kept.all() else counts
    unit = report.units[scorer]
    numbers = {"unit": unit, "n_images": len(moved)}
    if not len(moved):
        return {**dict.fromkeys(COLUMNS[3:], np.nan), **numbers}
    shift = interval_of(resampled_means(moved - clean, counts))
    numbers |= _with_ends("shift", float((moved - clean).mean()), shift)
    numbers |= _with_ends("auroc_clean", auroc(-clean, -moved), auroc_interval(-clean, -moved, paired=True))
    raw = report.scores[scorer][sit][rows][kept]
    if len(scores_out):
        numbers |= _with_ends("auroc_ood", auroc(raw, scores_out), auroc_interval(raw, scores_out))
    shown = moved if unit == BITS else raw
    summary = {"shift_median": np.median(moved - clean), "mean": shown.mean(), "median": np.median(shown)}
    return {**dict.fromkeys(COLUMNS[9:12], np.nan), **numbers, **{name: float(x) for name, x in summary.items()}}


def _with_ends(name: str, value: float, ends: tuple[float, float]) -> dict[str, float]:
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _transformed(sit: Any, X: Any, y: Any) -> Any:
    """Transform X, with labels if the SIT takes them; a data frame stays a data frame."""
    takes_y = y is not None and "y" in inspect.signature(sit.transform).parameters
    moved = sit.transform(X, y=y) if takes_y else sit.transform(X)
    is_table = hasattr(X, "dtypes") and isinstance(moved, np.ndarray) and moved.shape == X.shape
    return like(X, moved) if is_table else moved


def _fitted_sits(sits: Any, X: Any, y: Any) -> dict[str, Any]:
    named = name_all(sits, "sits", "transformer", "transform", _short_name)
    if CLEAN in named:
        raise ValueError(f"A SIT is called {CLEAN!r}, the name of the images as they are; give it another.")
    with sklearn.config_context(transform_output="default"):  # a data frame cannot hold images
        return {name: sit if _is_fitted(sit) else _fitted_clone(sit, X, y) for name, sit in named.items()}


def _fitted_clone(sit: Any, X: Any, y: Any) -> Any:
    takes_labels = y is not None and has_fit_parameter(sit, "y")
    return clone(sit).fit(X, y) if takes_labels else clone(sit).fit(X)


def _short_name(sit: Any) -> str:
    return repr(sit) if len(repr(sit)) <= LONGEST_NAME else class_name(sit)


def _is_fitted(sit: Any) -> bool:
    try:
        check_is_fitted(sit)
    except NotFittedError:
        return False
    return True


def _check_labels(y: Any, n_images: int) -> NDArray[Any] | None:
    if n_images == 0:
        raise ValueError("sit_report needs at least one image, got none.")
    if y is None:
        return None
    labels = np.asarray(y)
    if (labels.astype(str) == ALL).any():
        raise ValueError(f"A class of y is called {ALL!r}, the name of all images together; rename it.")
    if labels.shape != (n_images,):
        raise ValueError(f"y must hold one label an image, shape ({n_images},), got {labels.shape}.")
    return labels

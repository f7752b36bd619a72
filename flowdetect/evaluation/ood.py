"""The OoD report: how well and how fast scorers separate an in-distribution set from other sets.

A scorer is anything with `score_samples`, where higher is more normal: a fitted density, a detector, or scikit-learn's
GaussianMixture. A report has one in-distribution set, any number of scorers and any number of other sets. It stores the
raw scores for further analysis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect._limits import MOST_RESAMPLES, check_count, check_seed
from flowdetect._protocols import Scorer
from flowdetect.evaluation._waiting import waiting
from flowdetect.evaluation.intervals import auroc_interval
from flowdetect.evaluation.metrics import aupr_in, aupr_out, auroc, bootstrap_intervals, fpr_at_95_tpr
from flowdetect.evaluation.ood_results import RESAMPLED, OODReport
from flowdetect.evaluation.scoring import n_rows_of, name_scorers, plain_set, score_set


def ood_report(
    scorers: Mapping[str, Scorer] | Sequence[Scorer],
    X_in: ArrayLike,
    X_out: Mapping[str, ArrayLike],
    *,
    name: str | None = None,
    n_bootstrap: int = 1000,
    random_state: int | None = 0,
    verbose: int = 1,
) -> OODReport:
    r"""Compare how well scorers separate an in-distribution set from other sets.

    For each scorer s and each out set, with OoD as the positive class, the report contains

    .. math:: \text{AUROC} = P(s(x_\text{out}) < s(x_\text{in})) + \tfrac{1}{2} P(s(x_\text{out}) = s(x_\text{in}))

    with the 95 % interval of `auroc_interval`, which keeps its coverage near 1. It also contains both average
    precisions, the false positive rate at 95 % true positives, and the time. Their intervals are percentile intervals
    of a bootstrap over both sets, and are too narrow near the best value. The intervals describe the sampling of rows,
    not of trainings or seeds.

    Parameters
    ----------
    scorers : dict of name to fitted density or detector, or list of them
        Anything with `score_samples(X)`, where higher is more normal. In a list the name is that of the class, with a
        number if it occurs twice.
    X_in : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)
        Held-out data like the training data of the scorers. A scorer that does not accept images receives them as rows.
    X_out : dict of name to data in any of these layouts
    name : str, default=None
        Name of the in-distribution set; None is "in".
    n_bootstrap : int, default=1000
    random_state : int or None, default=0
        Seed of the bootstrap.
    verbose : int, default=1
        1: lines on stderr name the set that is being scored, if the report takes longer than a few seconds. 0: silent.

    Returns
    -------
    report : OODReport
        With `to_frame()`, `to_markdown()`, `save_html()`, `plot()`, `plot_intervals()`, `scores` and `unscored`. Rows
        for which a scorer raises ValueError or returns NaN are left out of the numbers, and listed in `unscored`. Other
        errors are not caught.

    Raises
    ------
    TypeError
        If a scorer has no `score_samples`, or `X_out` is not a mapping.
    ValueError
        If there is no scorer or no out set, if two names are equal, or if a set is empty.
    NotFittedError
        If a scorer is not fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import ood_report
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> report = ood_report([GaussianMixture(random_state=0).fit(X[:100])], X[100:], {"shifted": X + 3}, name="normal")
    >>> report
    OODReport(in_set='normal', scorers=['GaussianMixture'], out_sets=['shifted'])
    >>> bool(report.to_frame().auroc[0] > 0.95)
    True
    """
    in_set = "in" if name is None else name
    named = name_scorers(scorers)
    check_count("n_bootstrap", n_bootstrap, most=MOST_RESAMPLES)
    check_seed(random_state)
    sets = _checked_sets(in_set, X_in, X_out)
    report = OODReport(in_set, [], {})
    with waiting("ood_report", len(named) * len(sets), verbose) as begin:
        for scorer_name, scorer in named.items():
            seconds = _score_sets(report, scorer_name, scorer, sets, begin)
            _add_results(report, scorer_name, list(X_out), seconds, n_bootstrap, random_state)
    return report


def _score_sets(
    report: OODReport, scorer_name: str, scorer: Any, sets: Mapping[str, Any], begin: Callable[[str], None]
) -> dict[str, float]:
    """Score all sets, store the scores in the report, and return the seconds of each."""
    seconds = {}
    report.scores[scorer_name] = {}
    for set_name, X in sets.items():
        begin(f"{scorer_name} scores {n_rows_of(X):,} rows of {set_name}")
        start = time.perf_counter()
        report.scores[scorer_name][set_name] = score_set(scorer_name, scorer, set_name, X, report.unscored)
        seconds[set_name] = time.perf_counter() - start
    return seconds


def _add_results(
    report: OODReport,
    scorer_name: str,
    out_sets: Sequence[str],
    seconds: Mapping[str, float],
    n_bootstrap: int,
    random_state: int | None,
) -> None:
    in_set = report.in_set
    for set_name in out_sets:
        scores_in, scores_out = (report.scores[scorer_name][key] for key in (in_set, set_name))
        milliseconds = 1000 * (seconds[in_set] + seconds[set_name]) / (len(scores_in) + len(scores_out))
        numbers = _numbers(scores_in, scores_out, n_bootstrap, random_state)
        result = {"scorer": scorer_name, "in_set": in_set, "out_set": set_name, **numbers}
        report.results.append({**result, "ms_per_image": milliseconds})


def _numbers(
    scores_in: NDArray[np.float64], scores_out: NDArray[np.float64], n_bootstrap: int, random_state: int | None
) -> dict[str, float]:
    """Return the metrics with their intervals, over the scored rows; NaN if a set has none."""
    both = scores_in[~np.isnan(scores_in)], scores_out[~np.isnan(scores_out)]
    names = ("auroc", *RESAMPLED)
    if not all(map(len, both)):
        return {f"{name}{end}": np.nan for name in names for end in ("", "_low", "_high")}
    values = dict(zip(names, (auroc(*both), aupr_out(*both), aupr_in(*both), fpr_at_95_tpr(*both)), strict=True))
    ends = bootstrap_intervals(*both, RESAMPLED, n_bootstrap, random_state=random_state)
    for name, (low, high) in {"auroc": auroc_interval(*both), **ends}.items():
        values |= {f"{name}_low": low, f"{name}_high": high}
    return values


def _checked_sets(in_set: str, X_in: Any, X_out: Any) -> dict[str, Any]:
    if not isinstance(X_out, Mapping):
        raise TypeError(f'X_out must map names to data, such as {{"letters": X}}, got {type(X_out).__name__}.')
    if not X_out:
        raise ValueError("X_out must hold at least one set, got an empty mapping.")
    if in_set in X_out:
        raise ValueError(f"The in-distribution set and one of X_out are both called {in_set!r}; give another name=.")
    return {set_name: plain_set(set_name, X) for set_name, X in {in_set: X_in, **X_out}.items()}

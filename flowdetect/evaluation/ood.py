"""The OoD report: which scorer tells the in-distribution set from which other set, how surely and how fast.

A scorer is whatever has `score_samples`, higher being more normal: a fitted density, a detector, scikit-learn's
GaussianMixture. One report holds one in-distribution set, any number of scorers and any number of other sets, and the
raw scores, so that no question needs a second run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect._ctrl_c import whole_imports
from flowdetect._limits import MOST_RESAMPLES, check_count, check_seed
from flowdetect._protocols import Scorer
from flowdetect.evaluation.metrics import aupr_in, aupr_out, auroc, bootstrap_interval, fpr_at_95_tpr
from flowdetect.evaluation.plots import plot_roc, plot_score_histograms
from flowdetect.evaluation.report import Report
from flowdetect.evaluation.scoring import Unscored, name_scorers, plain_set, score_set

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = (
    "scorer",
    "in_set",
    "out_set",
    "auroc",
    "auroc_low",
    "auroc_high",
    "aupr_out",
    "aupr_in",
    "fpr95",
    "ms_per_image",
)


@dataclass(frozen=True, eq=False, repr=False)
class OODReport(Report):
    """What `ood_report` found.

    Attributes
    ----------
    in_set : str
    results : list of dict
        One for each scorer and out set, with the keys of `to_frame`'s columns.
    scores : dict of scorer to dict of set name to (n,) array
        The raw scores, NaN where a row could not be scored.
    unscored : list of Unscored
        Empty if every row was scored.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import ood_report
    >>> random = np.random.default_rng(0)
    >>> X, X_near, X_far = (random.normal(shift, size=(300, 2)) for shift in (0, 1, 3))
    >>> report = ood_report([GaussianMixture().fit(X[:200])], X[200:], {"near": X_near, "far": X_far}, name="normal")
    >>> figure = report.plot()
    """

    in_set: str
    results: list[dict[str, Any]]
    scores: dict[str, dict[str, NDArray[np.float64]]]
    unscored: list[Unscored] = field(default_factory=list)
    n_text_cells: ClassVar[int] = 3

    def to_frame(self) -> pd.DataFrame:
        """Give a pandas frame, one row for each scorer and out set.

        Returns
        -------
        frame : columns scorer, in_set, out_set, auroc, auroc_low, auroc_high (95 % bootstrap interval), aupr_out,
            aupr_in, fpr95 (shares in [0, 1]; OoD is positive), ms_per_image (wall-clock, both sets)
        """
        with whole_imports():
            import pandas as pd

        return pd.DataFrame(self.results, columns=list(COLUMNS))

    def __repr__(self) -> str:
        sets = list(dict.fromkeys(result["out_set"] for result in self.results))
        return f"OODReport(in_set={self.in_set!r}, scorers={list(self.scores)}, out_sets={sets})"

    def plot(self, *, fig: Figure | None = None) -> Figure:
        """Draw, a column for each out set, each scorer's histograms and below them the ROC curves of all.

        Parameters
        ----------
        fig : matplotlib Figure, default=None
            Resized and drawn into; None: a new one, which pyplot does not know.

        Returns
        -------
        fig : matplotlib Figure
        """
        out_sets = list(dict.fromkeys(result["out_set"] for result in self.results))
        if fig is None:
            with whole_imports():
                from matplotlib.figure import Figure

            fig = Figure()
        column_inches = min(4.5, 9 / len(out_sets))
        heights = [1.9] * len(self.scores) + [column_inches + 0.4]
        fig.set_size_inches(column_inches * len(out_sets), sum(heights))
        fig.set_layout_engine("constrained")
        axes = fig.subplots(len(heights), len(out_sets), squeeze=False, gridspec_kw={"height_ratios": heights})
        for column, out_set in enumerate(out_sets):
            for ax, (scorer, by_set) in zip(axes[:, column], self.scores.items(), strict=False):
                self._plot_histograms(ax, scorer, {key: by_set[key] for key in (self.in_set, out_set)})
            curves = {scorer: (by_set[self.in_set], by_set[out_set]) for scorer, by_set in self.scores.items()}
            plot_roc(curves, title=f"{self.in_set} against {out_set}", ax=axes[-1, column])
        for ax in axes[-1, 1:]:
            ax.set_ylabel("")
        return fig

    @staticmethod
    def _plot_histograms(ax: Axes, scorer: str, scores: dict[str, NDArray[np.float64]]) -> None:
        if any(np.isfinite(values).any() for values in scores.values()):
            plot_score_histograms(scores, xlabel="score (higher is more normal)", ax=ax)
            ax.set_title(scorer, fontsize="medium", loc="left")
            return
        ax.set_axis_off()
        ax.text(0.5, 0.5, f"{scorer}: not scored", ha="center", va="center")

    def _cells(self) -> list[list[str]]:
        head = ["scorer", "in", "out", "AUROC [95 % interval]", "AUPR out", "AUPR in", "FPR at 95 % TPR", "ms/image"]
        body = [
            [
                *(str(result[name]) for name in ("scorer", "in_set", "out_set")),
                f"{result['auroc']:.3f} [{result['auroc_low']:.3f}, {result['auroc_high']:.3f}]",
                *(f"{result[name]:.3f}" for name in ("aupr_out", "aupr_in", "fpr95")),
                f"{result['ms_per_image']:.3g}",
            ]
            for result in self.results
        ]
        return [head, *body]


def ood_report(
    scorers: Mapping[str, Scorer] | Sequence[Scorer],
    X_in: ArrayLike,
    X_out: Mapping[str, ArrayLike],
    *,
    name: str | None = None,
    n_bootstrap: int = 1000,
    random_state: int | None = 0,
) -> OODReport:
    r"""Compare scorers at telling an in-distribution set from others.

    For each scorer s and each out set the report gives, with OoD as the positive class,

    .. math:: \text{AUROC} = P(s(x_\text{out}) < s(x_\text{in})) + \tfrac{1}{2} P(s(x_\text{out}) = s(x_\text{in}))

    with its 95 % interval from a bootstrap of both sets, both average precisions, the share of false alarms at 95 % of
    the OoD rows found, and the time.

    Parameters
    ----------
    scorers : dict of name to fitted density or detector, or list of them
        Anything with `score_samples(X)`, higher being more normal. In a list the class gives the name, numbered if it
        occurs twice.
    X_in : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)
        Held-out data of the kind the scorers were trained on. A scorer that refuses images gets them as rows.
    X_out : dict of name to data in any of these layouts
    name : str, default=None
        The in-distribution set's name; None is "in".
    n_bootstrap : int, default=1000
    random_state : int or None, default=0
        Seeds the bootstrap.

    Returns
    -------
    report : OODReport
        With `to_frame()`, `to_markdown()`, `plot()`, `scores` and `unscored`. Rows for which a scorer raises ValueError
        or gives NaN are left out of the numbers, counted and named there; other errors are not caught.

    Raises
    ------
    TypeError
        If a scorer has no `score_samples`, or `X_out` is no mapping.
    ValueError
        If there is no scorer or no out set, names clash, or a set is empty.
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
    for scorer_name, scorer in named.items():
        seconds = {}
        report.scores[scorer_name] = {}
        for set_name, X in sets.items():
            start = time.perf_counter()
            report.scores[scorer_name][set_name] = score_set(scorer_name, scorer, set_name, X, report.unscored)
            seconds[set_name] = time.perf_counter() - start
        for set_name in X_out:
            scores_in, scores_out = (report.scores[scorer_name][key] for key in (in_set, set_name))
            milliseconds = 1000 * (seconds[in_set] + seconds[set_name]) / (len(scores_in) + len(scores_out))
            numbers = _numbers(scores_in, scores_out, n_bootstrap, random_state)
            result = {"scorer": scorer_name, "in_set": in_set, "out_set": set_name, **numbers}
            report.results.append({**result, "ms_per_image": milliseconds})
    return report


def _numbers(
    scores_in: NDArray[np.float64], scores_out: NDArray[np.float64], n_bootstrap: int, random_state: int | None
) -> dict[str, float]:
    """Give the metrics over the rows that were scored; NaN if a set has none."""
    both = scores_in[~np.isnan(scores_in)], scores_out[~np.isnan(scores_out)]
    names = COLUMNS[3:-1]
    if not all(map(len, both)):
        return dict.fromkeys(names, np.nan)
    low, high = bootstrap_interval(*both, n_bootstrap=n_bootstrap, random_state=random_state)
    values = auroc(*both), low, high, aupr_out(*both), aupr_in(*both), fpr_at_95_tpr(*both)
    return dict(zip(names, values, strict=True))


def _checked_sets(in_set: str, X_in: Any, X_out: Any) -> dict[str, Any]:
    if not isinstance(X_out, Mapping):
        raise TypeError(f'X_out must map names to data, such as {{"letters": X}}, got {type(X_out).__name__}.')
    if not X_out:
        raise ValueError("X_out must hold at least one set, got an empty mapping.")
    if in_set in X_out:
        raise ValueError(f"The in-distribution set and one of X_out are both called {in_set!r}; give another name=.")
    return {set_name: plain_set(set_name, X) for set_name, X in {in_set: X_in, **X_out}.items()}

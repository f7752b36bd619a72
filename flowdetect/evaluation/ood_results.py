"""The result of `ood_report`: tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect._ctrl_c import whole_imports
from flowdetect._files import PathName
from flowdetect.evaluation import ood_page
from flowdetect.evaluation.area_plots import plot_auroc_intervals, plot_roc
from flowdetect.evaluation.plots import plot_score_histograms
from flowdetect.evaluation.report import Report, area_cell, milliseconds, times
from flowdetect.evaluation.scoring import Unscored
from flowdetect.evaluation.text import Column

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESAMPLED = ("aupr_out", "aupr_in", "fpr95")  # their intervals come from a bootstrap
COLUMNS = (
    "scorer",
    "out_set",
    "auroc",
    "auroc_low",
    "auroc_high",
    "in_set",
    "aupr_out",
    "aupr_in",
    "fpr95",
    "ms_per_image",
    *(f"{name}_{end}" for name in RESAMPLED for end in ("low", "high")),
)


@dataclass(frozen=True, eq=False, repr=False)
class OODReport(Report):
    """The result of `ood_report`.

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
        """Return a pandas frame with one row for each scorer and out set.

        Returns
        -------
        frame : columns scorer, out_set, auroc, auroc_low, auroc_high (95 % interval of `auroc_interval`), in_set,
            aupr_out, aupr_in, fpr95 (shares in [0, 1]; OoD is positive), ms_per_image (wall-clock time a row, both
            sets), and aupr_out, aupr_in and fpr95 with _low and _high (95 % interval by bootstrap)
        """
        with whole_imports():
            import pandas as pd

        return pd.DataFrame(self.results, columns=list(COLUMNS))

    def __repr__(self) -> str:
        sets = list(dict.fromkeys(result["out_set"] for result in self.results))
        return f"OODReport(in_set={self.in_set!r}, scorers={list(self.scores)}, out_sets={sets})"

    def plot(self, *, fig: Figure | None = None) -> Figure:
        """Draw the histograms of each scorer and below them all ROC curves, with one column for each out set.

        Parameters
        ----------
        fig : matplotlib Figure, default=None
            Resized and used for the plot; None: a new figure, without pyplot.

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

    def plot_intervals(self, *, ax: Axes | None = None) -> Axes:
        """Draw the AUROC of each scorer on each out set, with its interval.

        Parameters
        ----------
        ax : matplotlib Axes, default=None

        Returns
        -------
        ax : matplotlib Axes
        """
        areas = {
            scorer: {r["out_set"]: interval_of_result(r) for r in self.results if r["scorer"] == scorer}
            for scorer in self.scores
        }
        if len(areas) == 1:  # a line for each set
            areas = {name: {"": area} for name, area in next(iter(areas.values())).items()}
        return plot_auroc_intervals(areas, title="OoD set" if len(self.scores) > 1 else None, ax=ax)

    def save_html(self, path: PathName, *, images: Mapping[str, ArrayLike] | None = None) -> None:
        """Write one HTML page with the table and all pictures inside, which needs no other file and no network.

        Parameters
        ----------
        path : str or path-like
            Replaced as a whole if it exists; a page that could not be written leaves the old one as it was.
        images : mapping of set name to (n, H, W) or (n, H, W, C) array, default=None
            The images that were scored, in the same order. Of each set those that score lowest are shown.

        Raises
        ------
        ValueError
            If a set has another number of images than of scores.
        OSError
            If the page cannot be written.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> from sklearn.neighbors import KernelDensity
        >>> from flowdetect import ood_report
        >>> images = np.random.default_rng(0).normal(size=(40, 4, 4))
        >>> scorer = KernelDensity().fit(images[:20].reshape(20, 16))
        >>> report = ood_report([scorer], images[20:], {"brighter": images + 1})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report.save_html(os.path.join(folder, "report.html"), images={"brighter": images + 1})
        """
        self._write_page(path, ood_page.sections(self, images))

    def _title(self) -> str:
        n_in = max((len(by_set[self.in_set]) for by_set in self.scores.values()), default=0)
        return f"OoD detection; in-distribution set: {self.in_set}, {n_in:,} rows"

    def _columns(self) -> tuple[Sequence[Column], Sequence[Column]]:
        def column(head: str, form: str, key: str) -> Column:
            return [head, *(f"{result[key]:{form}}" for result in self.results)]

        names = [
            [head, *(str(r[key]) for r in self.results)] for head, key in (("scorer", "scorer"), ("OoD set", "out_set"))
        ]
        numbers = [
            ["AUROC [95 % interval]", *(area_cell(result, "auroc") for result in self.results)],
            column("FPR95", ".3f", "fpr95"),
            column("AUPR out", ".3f", "aupr_out"),
            column("AUPR in", ".3f", "aupr_in"),
        ]
        return names, numbers

    def _notes(self) -> list[str]:
        return [times(self.results)]

    def _cells(self) -> list[list[str]]:
        head = ["scorer", "in", "out", "AUROC [95 % interval]", "FPR at 95 % TPR", "AUPR out", "AUPR in", "ms/row"]
        body = [
            [
                *(str(result[name]) for name in ("scorer", "in_set", "out_set")),
                area_cell(result, "auroc"),
                *(area_cell(result, name) for name in ("fpr95", "aupr_out", "aupr_in")),
                milliseconds(result),
            ]
            for result in self.results
        ]
        return [head, *body]


def interval_of_result(result: dict[str, Any]) -> tuple[float, float, float]:
    """Return the AUROC and both ends of its interval."""
    return result["auroc"], result["auroc_low"], result["auroc_high"]

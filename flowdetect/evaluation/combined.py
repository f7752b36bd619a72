"""Several OoD reports combined: every scorer on every pair of sets, and its worst case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from flowdetect._ctrl_c import whole_imports
from flowdetect._files import PathName
from flowdetect.evaluation.area_plots import plot_auroc_intervals
from flowdetect.evaluation.ood_results import OODReport, interval_of_result
from flowdetect.evaluation.page import as_html, figures
from flowdetect.evaluation.report import Report, area_cell, times
from flowdetect.evaluation.scoring import Unscored
from flowdetect.evaluation.text import Column

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class CombinedReport(Report):
    """The result of `combine`.

    Attributes
    ----------
    reports : list of OODReport
    unscored : list of Unscored
        Unscored rows of all reports.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import LikelihoodDetector, TypicalityDetector, combine, ood_report
    >>> near, far = np.random.default_rng(0).normal(size=(2, 200, 5)) * [[[1.0]], [[1.5]]]
    >>> def compare(X_in, X_out, name, other):
    ...     detectors = [LikelihoodDetector(GaussianMixture()), TypicalityDetector(GaussianMixture())]
    ...     return ood_report([d.fit(X_in[:100]) for d in detectors], X_in[100:], {other: X_out}, name=name)
    >>> report = combine([compare(near, far, "near", "far"), compare(far, near, "far", "near")])
    >>> ax = report.plot()
    """

    reports: list[OODReport]
    unscored: list[Unscored] = field(default_factory=list)
    n_text_cells: ClassVar[int] = 1

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs (in_set, out_set), in the order of the reports."""
        return list(dict.fromkeys((result["in_set"], result["out_set"]) for result in self._results()))

    @property
    def scorers(self) -> list[str]:
        """Names of the scorers, in the order of the reports."""
        return list(dict.fromkeys(result["scorer"] for result in self._results()))

    def _results(self) -> list[dict[str, Any]]:
        return [result for report in self.reports for result in report.results]

    def _by_pair(self, scorer: str) -> dict[tuple[str, str], dict[str, Any]]:
        return {(r["in_set"], r["out_set"]): r for r in self._results() if r["scorer"] == scorer}

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas frame with one row for each scorer and pair; columns as in `OODReport.to_frame`."""
        with whole_imports():
            import pandas as pd

        return pd.concat([report.to_frame() for report in self.reports], ignore_index=True)

    def worst(self) -> pd.DataFrame:
        """Return the row of `to_frame` with the lowest AUROC of each scorer.

        A scorer that a pair lacks is compared over the pairs that it has.

        Returns
        -------
        frame : one row for each scorer, best worst case first; n_pairs is the number of its pairs
        """
        frame = self.to_frame()
        by_scorer = frame.assign(auroc=frame.auroc.fillna(np.inf)).groupby("scorer", sort=False).auroc
        worst = frame.loc[by_scorer.idxmin()]  # a scorer that scored nothing anywhere has NaN, and comes last
        n_pairs = frame.groupby("scorer").auroc.count()
        return worst.assign(n_pairs=worst.scorer.map(n_pairs)).sort_values("auroc", ascending=False, ignore_index=True)

    def __repr__(self) -> str:
        return f"CombinedReport(scorers={self.scorers}, pairs={self.pairs})"

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the AUROC of every scorer on every pair, with its interval; scorers are sorted by their worst case.

        Parameters
        ----------
        ax : matplotlib Axes, default=None

        Returns
        -------
        ax : matplotlib Axes
        """
        areas = {
            name: {" / ".join(pair): interval_of_result(result) for pair, result in self._by_pair(name).items()}
            for name in self.worst().scorer
        }
        in_order = {" / ".join(pair): (np.nan, np.nan, np.nan) for pair in self.pairs}
        return plot_auroc_intervals(
            {name: {**in_order, **by_pair} for name, by_pair in areas.items()}, title="trained on / OoD set", ax=ax
        )

    def save_html(self, path: PathName) -> None:
        """Write one HTML page with the table and the picture inside, which needs no other file and no network.

        Parameters
        ----------
        path : str or path-like
            Replaced as a whole if it exists; a page that could not be written leaves the old one as it was.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        picture = as_html(self.plot(), "AUROC of each scorer and pair of sets, with its 95 % interval")
        self._write_page(path, ["<h2>AUROC</h2>", figures([picture])])

    def _title(self) -> str:
        return f"AUROC of {len(self.scorers)} scorer(s) on {len(self.pairs)} pair(s) of sets, best worst case first"

    def _columns(self) -> tuple[Sequence[Column], Sequence[Column]]:
        worst = self.worst()
        rows = [
            (name, pair, result, not np.isnan(result["auroc"]) and result["auroc"] == lowest)
            for name, lowest in zip(worst.scorer, worst.auroc, strict=True)
            for pair, result in self._by_pair(name).items()
        ]
        names = [
            ["scorer", *(name for name, _, _, _ in rows)],
            ["trained on / OoD set", *(" / ".join(pair) for _, pair, _, _ in rows)],
        ]
        numbers = [
            ["AUROC [95 % interval]", *(area_cell(result, "auroc") for _, _, result, _ in rows)],
            ["", *("worst" if is_worst else "" for _, _, _, is_worst in rows)],
        ]
        return names, numbers

    def _notes(self) -> list[str]:
        return [times(self._results())]

    def _cells(self) -> list[list[str]]:
        pairs = self.pairs
        worst = self.worst().set_index("scorer")
        body = []
        for name in worst.index:
            by_pair = self._by_pair(name)
            cells = [area_cell(by_pair[pair], "auroc") if pair in by_pair else "" for pair in pairs]
            milliseconds = sum(r["ms_per_image"] for r in by_pair.values()) / len(by_pair)
            body.append([name, *cells, f"{worst.auroc[name]:.3f}", f"{milliseconds:.3g}"])
        return [["AUROC", *(" / ".join(pair) for pair in pairs), "worst", "ms/row"], *body]


def combine(reports: Sequence[OODReport]) -> CombinedReport:
    """Combine OoD reports of several in-distribution sets, such as both directions of a pair, in one table.

    Parameters
    ----------
    reports : sequence of OODReport
        Scorers of one name are taken for the same recipe, trained on each report's own set.

    Returns
    -------
    report : CombinedReport
        With `to_frame()`, `worst()`, `to_markdown()` and `plot()`.

    Raises
    ------
    TypeError
        If something else is among them.
    ValueError
        If there is none, or a scorer and pair come twice.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import combine, ood_report
    >>> near, far = np.random.default_rng(0).normal(size=(2, 100, 2)) * [[[1.0]], [[3.0]]]
    >>> sets = {"near": near, "far": far}
    >>> reports = [
    ...     ood_report({"likelihood": GaussianMixture().fit(sets[a])}, sets[a], {b: sets[b]}, name=a)
    ...     for a, b in [("near", "far"), ("far", "near")]
    ... ]
    >>> combine(reports).worst()[["scorer", "in_set", "out_set"]].values.tolist()
    [['likelihood', 'far', 'near']]
    """
    given = list(reports)
    for report in given:
        if not isinstance(report, OODReport):
            raise TypeError(f"combine needs reports of ood_report, got {type(report).__name__}.")
    if not given:
        raise ValueError("combine needs at least one report, got none.")
    seen: set[tuple[str, str, str]] = set()
    for result in (result for report in given for result in report.results):
        key = result["scorer"], result["in_set"], result["out_set"]
        if key in seen:
            raise ValueError(
                f"combine got {key[0]!r} on {key[1]!r} against {key[2]!r} twice; give the sets other names."
            )
        seen.add(key)
    return CombinedReport(given, [problem for report in given for problem in report.unscored])

"""The parts of an OoD report's page: intervals, histograms, ROC curves and the images that score lowest."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect.evaluation._style import own_axes
from flowdetect.evaluation.area_plots import plot_roc
from flowdetect.evaluation.images import plot_image_grid
from flowdetect.evaluation.page import as_html, figures, wide
from flowdetect.evaluation.plots import plot_score_histograms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flowdetect.evaluation.ood_results import OODReport

N_SHOWN = 8  # images of each set


def sections(report: OODReport, images: Mapping[str, ArrayLike] | None = None) -> list[str]:
    """Return the parts that stand below the table, as HTML."""
    out_sets = list(dict.fromkeys(result["out_set"] for result in report.results))
    alt = "AUROC of each scorer and OoD set, with its 95 % interval"
    parts = [
        "<h2>AUROC</h2><p>The chance that an OoD row scores lower than a normal one: 1 is perfect, 0.5 is guessing, "
        "and below 0.5 the score prefers the OoD set.</p>",
        figures([as_html(report.plot_intervals(), alt)]),
        "<h2>Scores</h2><p>Right is more normal; each histogram is scaled to its own peak, and scores far outside are "
        "counted in the outermost bins.</p>",
        figures([_histogram(report, scorer, out) for out in out_sets for scorer in report.scores]),
        "<h2>ROC curves</h2>",
        figures([_roc(report, out) for out in out_sets]),
    ]
    if images:
        parts.append("<h2>Images</h2><p>Of each set, those that score lowest; below each its score.</p>")
        for scorer in report.scores:
            grid = lowest_images(report.scores[scorer], images)
            parts += [f"<h3>{escape(scorer)}</h3>", wide(grid, f"images that {scorer} scores lowest")]
    return parts


def lowest_images(
    scores: Mapping[str, NDArray[np.float64]],
    images: Mapping[str, ArrayLike],
    *,
    value_range: tuple[float, float] | None = None,
) -> Axes:
    """Draw the images of each set that score lowest, a row for each set, with their scores.

    `value_range` are the values drawn black and white; None: the smallest and the largest of the first set.
    """
    chosen, captions, names = [], [], [name for name in scores if name in images]
    for name in names:
        shown = np.asarray(images[name])
        if len(shown) != len(scores[name]):
            raise ValueError(
                f"images of {name!r} must be as many as its scores, {len(scores[name])}, got {len(shown)}; "
                "give the images that were scored, in the same order."
            )
        order = np.argsort(scores[name])[np.minimum(np.arange(N_SHOWN), len(shown) - 1)]  # NaN, not scored, come last
        drawn = shown[order]
        chosen.append(drawn if drawn.ndim < 4 or drawn.shape[3] in (1, 3) else drawn.mean(axis=3, keepdims=True))
        captions += [f"{score:.4g}" for score in scores[name][order]]
    if not names:
        raise ValueError(f"images must name sets of the report, {list(scores)}, got {list(images)}.")
    first = np.asarray(images[names[0]])
    value_range = value_range or (float(first.min()), float(first.max()))
    return plot_image_grid(
        np.concatenate(chosen), captions=captions, row_labels=names, n_columns=N_SHOWN, value_range=value_range
    )


def _histogram(report: OODReport, scorer: str, out: str) -> str:
    scores = {name: report.scores[scorer][name] for name in (report.in_set, out)}
    if not any(np.isfinite(values).any() for values in scores.values()):
        return ""
    ax = plot_score_histograms(scores, xlabel="score", ax=own_axes(None, (4.4, 2.5)))
    ax.set_title(scorer, loc="left", fontsize=10)
    return as_html(ax, f"histograms of the scores of {report.in_set} and {out} by {scorer}")


def _roc(report: OODReport, out: str) -> str:
    curves = {name: (by_set[report.in_set], by_set[out]) for name, by_set in report.scores.items()}
    return as_html(plot_roc(curves, title=f"{report.in_set} against {out}"), f"ROC curves for {out}")

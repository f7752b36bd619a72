"""Pictures of AUROCs: ROC curves, and areas with their intervals; names stand beside the axes, never on a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect.evaluation._style import GREY, LABEL_SIZE, LINES, MARKERS, color_of, own_axes, tidy
from flowdetect.evaluation.metrics import auroc, roc_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ZOOMED = 0.95  # least area of all curves for which the corner is drawn larger: none of them crosses the inset
INSET = (0.36, 0.14, 0.6, 0.68)  # left, bottom, width, height, of the axes; (0.36, 0.82) loses 0.065 of the area

BELOW_AXES = 0.46  # inches, for the labels of the x-axis
LEGEND: dict[str, Any] = {
    "frameon": False,
    "fontsize": LABEL_SIZE,
    "title_fontsize": LABEL_SIZE,
    "labelcolor": GREY,
    "alignment": "left",
    "handlelength": 2.6,
}

Interval = tuple[float, float, float]  # area, low, high


def plot_roc(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw ROC curves with the OoD set as positive class; if all are near the corner, an inset enlarges it.

    Parameters
    ----------
    curves : mapping of scorer name to (scores_in, scores_out)
        Higher scores are more normal. NaN (not scored) is left out. Names and areas are below the axes.
    title : str, default=None
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Examples
    --------
    >>> from flowdetect.evaluation import plot_roc
    >>> ax = plot_roc({"density": ([2.0, 3.0], [1.0, 2.5])})
    """
    ax = own_axes(ax, (3.7, 4.0 + 0.18 * len(curves)))
    drawn = {name: (_scored(scores[0]), _scored(scores[1])) for name, scores in curves.items()}
    areas = [auroc(*scores) for scores in drawn.values() if all(map(len, scores))]
    _draw_curves(ax, drawn, with_names=True)
    if areas and ZOOMED <= min(areas) < 1:
        _draw_corner(ax, drawn, min(areas))
    else:
        ax.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1, zorder=0)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_title(title or "", loc="left", fontsize=LABEL_SIZE + 2)
    ax.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    ax.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    ax.set_xlabel("false positive rate")
    ax.set_ylabel("true positive rate (OoD found)")
    tidy(ax, hidden=("right", "top"))
    _name_below(ax, "AUROC")
    return ax


def plot_auroc_intervals(
    intervals: Mapping[str, Mapping[str, Interval]], *, title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw AUROCs with their intervals: one line for each scorer, one colour and marker for each set.

    Parameters
    ----------
    intervals : mapping of scorer name to mapping of set name to (area, low, high)
        NaN (not scored) is left out.
    title : str, default=None
        Of the list of sets.
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Examples
    --------
    >>> from flowdetect.evaluation import plot_auroc_intervals
    >>> ax = plot_auroc_intervals({"likelihood": {"letters": (0.9, 0.86, 0.93)}})
    """
    sets = list(dict.fromkeys(name for by_set in intervals.values() for name in by_set))
    ax = own_axes(ax, (6, 0.9 + max(len(intervals) * (0.22 + 0.15 * len(sets)), 0.2 * len(sets))))
    step = 0.7 / max(len(sets), 1)
    for i, name in enumerate(sets):
        rows = [(y + (i - (len(sets) - 1) / 2) * step, by_set.get(name)) for y, by_set in enumerate(intervals.values())]
        shown = [(y, *row) for y, row in rows if row is not None]
        at, areas, lows, highs = np.array(shown, dtype=float).reshape(-1, 4).T
        ax.hlines(at, lows, highs, color=color_of(i), linewidth=1.6)
        mark = MARKERS[i % len(MARKERS)]
        ax.plot(areas, at, mark, color=color_of(i), markersize=5, label=name)
    ends = [end for by_set in intervals.values() for row in by_set.values() for end in row if np.isfinite(end)]
    least = min(ends, default=0.0)
    left = 0.0 if least < 0.5 else max(0.5, 1 - 1.15 * (1 - least)) if least < 1 else 0.99
    if left == 0.0:
        ax.axvline(0.5, color="#BBBBBB", linewidth=1, zorder=0)
    for y in range(1, len(intervals)):
        ax.axhline(y - 0.5, color="#E5E5E5", linewidth=0.7, zorder=0)
    ax.set_yticks(range(len(intervals)), list(intervals))
    ax.set_ylim(len(intervals) - 0.5, -0.5)
    ax.set_xlim(left - 0.01 * (1 - left), 1 + 0.01 * (1 - left))
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("AUROC with 95 % interval (0.5: chance, 1: wholly apart)")
    ax.tick_params(axis="y", length=0)
    tidy(ax, hidden=("left", "right", "top"))
    if sets != [""]:
        legend = ax.legend(title=title, loc="center left", bbox_to_anchor=(1, 0.5), **LEGEND)
        legend.get_title().set_color(GREY)
    return ax


def _draw_curves(ax: Axes, drawn: Mapping[str, Sequence[NDArray[np.float64]]], with_names: bool) -> None:
    for i, (name, scores) in enumerate(drawn.items()):
        scored = all(map(len, scores))
        label = f"{name}  {auroc(*scores):.3f}" if scored else f"{name}  not scored"
        fpr, tpr = roc_points(*scores) if scored else (np.empty(0), np.empty(0))
        line = LINES[i % len(LINES)]
        ax.plot(fpr, tpr, color=color_of(i), linestyle=line, linewidth=1.8, label=label if with_names else None)


def _draw_corner(ax: Axes, drawn: Mapping[str, Sequence[NDArray[np.float64]]], least: float) -> None:
    """Draw the upper left corner in the empty middle, as large a part of it as the curves need."""
    reach = next(side for side in (0.02, 0.05, 0.1, 0.2) if side >= min(4 * (1 - least), 0.2))
    inset = ax.inset_axes(INSET)
    _draw_curves(inset, drawn, with_names=False)
    inset.set(xlim=(0, reach), ylim=(1 - reach, 1))
    inset.set_xticks([0, reach], ["0", f"{100 * reach:g} %"])
    inset.set_yticks([1 - reach, 1], [f"{100 - 100 * reach:g} %", "100 %"])
    inset.set_title("the corner, larger", loc="left", fontsize=LABEL_SIZE - 1, color=GREY)
    tidy(inset, hidden=("right", "top"))
    inset.tick_params(labelsize=LABEL_SIZE - 1)
    inset.spines[["left", "bottom"]].set_color("#999999")


def _name_below(ax: Axes, title: str) -> None:
    """List what is drawn below the labels of the x-axis, where no curve passes."""
    from matplotlib.transforms import ScaledTranslation

    below = ScaledTranslation(0, -BELOW_AXES, ax.figure.dpi_scale_trans)
    legend = ax.legend(
        title=title,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=ax.transAxes + below,
        borderaxespad=0,
        **LEGEND,
    )
    legend.get_title().set_color(GREY)


def _scored(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[~np.isnan(array)]

"""Plots of scores: histograms, and the shift of a score under SITs.

Every function draws into `ax`, or into a new figure, and returns the axes. None changes matplotlib's backend or
settings, or pyplot's list of figures. Labels are next to what they name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect.evaluation._style import LABEL_SIZE, color_of, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEPT_QUANTILES = (0.005, 0.995)  # values beyond are counted in the outermost bins


def plot_score_histograms(
    scores: Mapping[str, ArrayLike],
    *,
    xlabel: str = "score (higher is more normal)",
    n_bins: int = 50,
    ax: Axes | None = None,
) -> Axes:
    """Draw histograms of the scores of several sets in one plot, each scaled to its own peak.

    Parameters
    ----------
    scores : mapping of set name to (n,) array
        The first is the in-distribution set, which is drawn filled. NaN (not scored) is left out.
    xlabel : str
        Label with the unit, such as "log-likelihood, nats".
    n_bins : int, default=50
        Bins between the 0.5 % and 99.5 % quantiles of each set; scores beyond are counted in the outermost bins.
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ValueError
        If no set has a finite score.

    Examples
    --------
    >>> from flowdetect.evaluation import plot_score_histograms
    >>> ax = plot_score_histograms({"digits": [2.0, 3.0, 3.5], "letters": [0.0, 1.0]}, n_bins=5)
    """
    finite = {name: _finite(values) for name, values in scores.items()}
    finite = {name: values for name, values in finite.items() if len(values)}
    if not finite:
        raise ValueError("plot_score_histograms needs a set with at least one finite score, got none.")
    ax = own_axes(ax, (6, 3.2))
    edges = _common_edges(list(finite.values()), n_bins)
    medians = {}
    for i, (name, values) in enumerate(finite.items()):
        clipped = np.clip(values, edges[0], edges[-1])
        counts, _ = np.histogram(clipped, edges)
        heights = counts / counts.max()  # so that sets of different spread stay readable
        ax.stairs(heights, edges, color=color_of(i), linewidth=1.6)
        if i == 0:
            ax.stairs(heights, edges, color=color_of(i), fill=True, alpha=0.25)
        medians[name] = float(np.median(clipped))
    ax.set_xlim(edges[0], edges[-1])
    _label_above(ax, medians)
    ax.set_xlabel(xlabel)
    ax.set_yticks([])
    if ax.get_xscale() == "linear":
        ax.locator_params(axis="x", nbins=5)
    tidy(ax, hidden=("left", "right", "top"))
    return ax


def plot_sit_shifts(
    shifts: Mapping[str, Mapping[str, ArrayLike]],
    *,
    xlabel: str = "shift, bits/dim (right: less likely); dot: mean, line: middle 90 % of images",
    xscale: str = "linear",
    ax: Axes | None = None,
) -> Axes:
    """Draw the shift of the scores under each semantic-invariant transformation.

    A dot is the mean over images, with its value; the line spans the middle 90 % of the images.

    Parameters
    ----------
    shifts : mapping of scorer name to mapping of SIT name to (n,) array
        For each image the score after the transformation minus the score before, such as in bits/dim. NaN is left out.
    xlabel : str
    xscale : {"linear", "symlog"}, default="linear"
        "symlog" for shifts that differ by orders of magnitude; it is linear between -1 and 1.
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Examples
    --------
    >>> from flowdetect.evaluation import plot_sit_shifts
    >>> ax = plot_sit_shifts({"Glow": {"1 pixel left": [0.4, 0.6], "first latent zeroed": [-0.5, -0.2]}})
    """
    sits = list(dict.fromkeys(sit for by_sit in shifts.values() for sit in by_sit))
    ax = own_axes(ax, (6.5, 0.9 + len(sits) * (0.28 + 0.24 * len(shifts))))
    ax.set_xscale(xscale, **({"linthresh": 1.0} if xscale == "symlog" else {}))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.axvline(0, color="#BBBBBB", linewidth=1, zorder=0)
    offsets = (np.arange(len(shifts)) - (len(shifts) - 1) / 2) * 0.26
    for i, (scorer, by_sit) in enumerate(shifts.items()):
        label = f"  {scorer}" if len(shifts) > 1 else ""  # once, at the first dot of the scorer
        for j, sit in enumerate(sits):
            values = _finite(by_sit.get(sit, ()))
            if len(values):
                _draw_shift(ax, values, j + offsets[i], color_of(i), label)
                label = ""
    ax.set_yticks(range(len(sits)), sits)
    ax.set_ylim(len(sits) - 0.5, -0.6)
    ax.margins(x=0.16)
    ax.set_xlabel(xlabel)
    ax.tick_params(axis="y", length=0)
    tidy(ax, hidden=("left", "right", "top"))
    return ax


def plot_sit_classes(
    values: Mapping[str, ArrayLike],
    labels: ArrayLike | None = None,
    *,
    ylabel: str = "bits/dim (up: less likely)",
    yscale: str = "linear",
    ax: Axes | None = None,
) -> Axes:
    """Draw the values of each class of images under each semantic-invariant transformation.

    A dot is the mean over images, a line spans the middle 90 % of the images.

    Parameters
    ----------
    values : mapping of SIT name to (n,) array
        The first should be the original images. NaN is left out.
    labels : (n,) array, default=None
        Classes; None: all images are one class.
    ylabel : str
    yscale : {"linear", "log", "symlog"}, default="linear"
    ax : matplotlib Axes, default=None

    Returns
    -------
    ax : matplotlib Axes

    Examples
    --------
    >>> from flowdetect.evaluation import plot_sit_classes
    >>> ax = plot_sit_classes({"none": [3.0, 4.0], "1 pixel left": [3.2, 4.4]}, ["shirt", "boot"])
    """
    n_images = len(np.asarray(next(iter(values.values()))))
    groups = np.full(n_images, "all") if labels is None else np.asarray(labels).astype(str)
    names = list(dict.fromkeys(sorted(groups.tolist(), key=lambda name: (len(name), name))))
    ax = own_axes(ax, (9, 3.1))
    ax.set_yscale(yscale)
    if yscale == "log":
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
    step = 0.8 / max(len(values), 1)
    for i, (sit, by_image) in enumerate(values.items()):
        x = np.arange(len(names)) + (i - (len(values) - 1) / 2) * step
        finite = [_finite(np.asarray(by_image)[groups == name]) for name in names]
        means = [part.mean() if len(part) else np.nan for part in finite]
        ends = np.array([np.quantile(part, [0.05, 0.95]) if len(part) else (np.nan, np.nan) for part in finite])
        ax.vlines(x, *ends.T, color=color_of(i), linewidth=2, alpha=0.4)
        ax.plot(x, means, "o", color=color_of(i), markersize=4, label=sit)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylabel(ylabel)
    ax.grid(axis="y", color="#E5E5E5", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=LABEL_SIZE, loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)
    tidy(ax, hidden=("right", "top"))
    return ax


def _draw_shift(ax: Axes, values: NDArray[np.float64], y: float, color: str, label: str) -> None:
    low, high = np.quantile(values, [0.05, 0.95])
    mean = float(values.mean())
    ax.plot([low, high], [y, y], color=color, linewidth=2.5, alpha=0.4, solid_capstyle="round")
    ax.plot(mean, y, "o", color=color, markersize=6)
    to_the_right = mean >= 0  # away from the line at 0
    ax.annotate(
        f"{mean:+.2f}{label}".replace("-", "\N{MINUS SIGN}", 1 if mean < 0 else 0),
        (max(high, mean) if to_the_right else min(low, mean), y),
        xytext=(7 if to_the_right else -7, 0),
        textcoords="offset points",
        va="center",
        ha="left" if to_the_right else "right",
        color=color,
        fontsize=LABEL_SIZE,
    )


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]


def _common_edges(sets: list[NDArray[np.float64]], n_bins: int) -> NDArray[np.float64]:
    quantiles = np.array([np.quantile(values, KEPT_QUANTILES) for values in sets])
    low, high = quantiles[:, 0].min(), quantiles[:, 1].max()
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, n_bins + 1)


def _label_above(ax: Axes, medians: dict[str, float]) -> None:
    """Put each name above the median of its set, in separate lines, so that names never overlap."""
    order = sorted(medians, key=lambda name: medians[name])
    centre = np.mean(ax.get_xlim())
    for level, name in enumerate(reversed(order)):
        x, y = medians[name], 1.08 + 0.14 * level
        color = color_of(list(medians).index(name))
        side = "left" if x < centre else "right"  # the text runs towards the middle
        ax.plot([x, x], [0, y + 0.04], color=color, linewidth=0.8, alpha=0.6, zorder=0)
        ax.annotate(
            name,
            (x, y),
            xytext=(3 if side == "left" else -3, 0),
            textcoords="offset points",
            color=color,
            fontsize=LABEL_SIZE,
            va="center",
            ha=side,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # hides the other names' lines
        )
    ax.set_ylim(0, 1.08 + 0.14 * len(order))

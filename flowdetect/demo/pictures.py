"""The demonstration's pictures, as SVG text or as PNG data for a page that needs no other file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._ctrl_c import whole_imports
from flowdetect.demo.measure import CORRECTED, LIKELIHOOD, Measurements
from flowdetect.evaluation import plot_image_grid, plot_roc, plot_score_histograms, plot_sit_shifts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_SHOWN = 10  # images in a row
N_EXAMPLES = 8  # images whose transformations are shown
WIDTH = 9  # inches
UNITS = {LIKELIHOOD: "log-likelihood, nats", CORRECTED: "corrected score, bits"}
REACH = 2  # how far below its median a score is drawn, in ranges of the in-distribution scores


def histograms(found: Measurements) -> Figure:
    """Draw the scores of all sets, by likelihood and by the corrected score."""
    figure = _figure(WIDTH, 3.0 + 0.5 * len(found.sets.outside))
    for ax, (name, unit) in zip(figure.subplots(2, 1), UNITS.items(), strict=True):
        plot_score_histograms(_within_reach(found.report.scores[name], found.sets.name), xlabel=unit, ax=ax)
    return figure


def histogram(found: Measurements, score: str, outside: str) -> Axes:
    """Draw one score of the learned images and of one outside set."""
    by_set = {name: found.report.scores[score][name] for name in (found.sets.name, outside)}
    ax = _figure(5.2, 1.9).add_subplot()
    return plot_score_histograms(_within_reach(by_set, found.sets.name), xlabel=f"{UNITS[score]}; right: normal", ax=ax)


def strip(found: Measurements, name: str) -> Axes:
    """Show some images of one set in a row."""
    images = {found.sets.name: found.sets.test, **found.sets.outside}[name]
    ax = _figure(5.2, 0.68).add_subplot()
    return plot_image_grid(_padded(images)[:N_EXAMPLES], value_range=(0, found.sets.n_bins - 1), ax=ax)


def _within_reach(scores: dict[str, NDArray[np.float64]], in_set: str) -> dict[str, NDArray[np.float64]]:
    """Clip what lies so far below that the sets near the in-distribution set would become one line."""
    own = scores[in_set]
    lowest = np.median(own) - REACH * (np.quantile(own, 0.99) - np.quantile(own, 0.01))
    return {name: np.maximum(values, lowest) for name, values in scores.items()}


def roc_curves(found: Measurements) -> list[Axes]:
    """Draw the ROC curves of both scores, a picture for each outside set."""
    drawn = []
    for name in found.sets.outside:
        curves = {key: (by_set[found.sets.name], by_set[name]) for key, by_set in found.report.scores.items()}
        drawn.append(plot_roc(curves, title=f"{found.sets.name} against {name}"))
    return drawn


def image_rows(found: Measurements) -> Axes:
    """Show images of every set, a row for each, and two rows of samples."""
    rows = {found.sets.name: found.sets.test, **found.sets.outside}
    images = [_padded(images) for images in rows.values()] + [found.samples[: 2 * N_SHOWN]]
    return _grid(np.concatenate(images), found, [*rows, "samples", "more samples"])


def shift_images(found: Measurements) -> Axes:
    """Show some images before and after each transformation, with their bits/dim."""
    first = next(iter(found.shifts.values()))
    n = min(N_EXAMPLES, len(first.before))
    images: list[NDArray[Any]] = [found.sets.test[:n], *(shift.images[:n] for shift in found.shifts.values())]
    bits = np.concatenate([first.before[:n], *(shift.after[:n] for shift in found.shifts.values())])
    titles = [f"{value:.2f}" for value in bits]
    return _grid(np.concatenate(images), found, ["as it is", *found.shifts], titles, n)


def shifts(found: Measurements) -> Axes:
    """Draw how far each transformation moves bits/dim, over all images."""
    changes = {name: shift.after - shift.before for name, shift in found.shifts.items()}
    return plot_sit_shifts({"Glow": changes}, xscale="symlog", ax=_figure(7.5, 2.8).add_subplot())


def training_curve(found: Measurements) -> Figure:
    """Draw bits/dim by epoch, on training rows and on those held out for early stopping."""
    figure = _figure(6, 2.6)
    ax = figure.add_subplot()
    labels = {"bits_per_dim": "training", "validation_bits_per_dim": "held out"}
    for name, label in labels.items():
        values = found.density.history_[name]
        if values:
            ax.plot(range(1, len(values) + 1), values, "o-", markersize=3, label=label)
    ax.set(xlabel="epoch", ylabel="bits/dim")
    ax.locator_params(axis="x", integer=True)
    ax.spines[["right", "top"]].set_visible(False)
    ax.legend(frameon=False)
    return figure


def _grid(
    images: NDArray[Any],
    found: Measurements,
    row_labels: list[str],
    titles: list[str] | None = None,
    n_columns: int = N_SHOWN,
) -> Axes:
    value_range = (0, found.sets.n_bins - 1)
    return plot_image_grid(images, titles, n_columns=n_columns, row_labels=row_labels, value_range=value_range)


def _padded(images: NDArray[Any]) -> NDArray[Any]:
    """Return the first images, the last one repeated where there are too few."""
    return images[np.minimum(np.arange(N_SHOWN), len(images) - 1)]


def _figure(width: float, height: float) -> Figure:
    with whole_imports():
        from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")

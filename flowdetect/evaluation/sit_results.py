"""The result of `sit_report`: tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import sklearn
from numpy.typing import NDArray

from flowdetect._ctrl_c import whole_imports
from flowdetect._files import PathName
from flowdetect._images import to_rows
from flowdetect.evaluation.images import plot_image_grid
from flowdetect.evaluation.page import wide
from flowdetect.evaluation.plots import plot_sit_classes, plot_sit_shifts
from flowdetect.evaluation.report import Report, area_cell
from flowdetect.evaluation.scoring import Unscored, n_rows_of
from flowdetect.evaluation.text import Column

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLEAN = "none"  # the name of the original images
ALL = "all"  # the label of all images together
BITS, SPREADS = "bits/dim", "standard deviations"
COLUMNS = (
    "scorer",
    "sit",
    "label",
    "shift",
    "shift_low",
    "shift_high",
    "auroc_clean",
    "auroc_clean_low",
    "auroc_clean_high",
    "auroc_ood",
    "auroc_ood_low",
    "auroc_ood_high",
    "shift_median",
    "mean",
    "median",
    "unit",
    "n_images",
)


@dataclass(frozen=True, eq=False, repr=False)
class SITReport(Report):
    """The result of `sit_report`.

    Attributes
    ----------
    results : list of dict
        One for each scorer, SIT and label, with the keys of `to_frame`'s columns.
    scores : dict of scorer to dict of SIT to (n,) array
        The raw scores, higher is more normal; "none" is the original images. NaN if a row could not be scored. For
        scorers with bits/dim, minus bits/dim.
    scores_out : dict of scorer to (n_out,) array
        The scores of `X_out`; empty without it.
    sits : dict of name to fitted transformer
    units : dict of scorer to "bits/dim" or "standard deviations"
    unscored : list of Unscored
        Empty if every row was scored.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import AddNoise, Translate, sit_report
    >>> X = np.random.default_rng(0).normal(size=(200, 4))
    >>> sits = {"moved": Translate(dx=1), "noise": AddNoise(0.1, random_state=0)}
    >>> report = sit_report([GaussianMixture(random_state=0).fit(X)], X, sits)
    >>> ax = report.plot_shifts()
    """

    results: list[dict[str, Any]]
    scores: dict[str, dict[str, NDArray[np.float64]]]
    scores_out: dict[str, NDArray[np.float64]]
    sits: dict[str, Any]
    units: dict[str, str]
    X: Any
    y: NDArray[Any] | None = None
    unscored: list[Unscored] = field(default_factory=list)
    n_text_cells: ClassVar[int] = 3
    n_first: ClassVar[int] = 2

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas frame with one row for each scorer, SIT and label.

        Returns
        -------
        frame : columns scorer, sit ("none": the original images), label ("all", then each class of y);
            shift (of the mean, in `unit`; positive is less normal), auroc_clean (clean against transformed images,
            ideal 0.5), auroc_ood (transformed images against `X_out`), each with _low and _high (95 % interval over
            images: of the shift by bootstrap, of the areas by `auroc_interval`), shift_median (median over images of
            their shifts), mean and median (of the transformed images' bits/dim or scores), unit, n_images
        """
        with whole_imports():
            import pandas as pd

        return pd.DataFrame(self.results, columns=list(COLUMNS))

    def __repr__(self) -> str:
        return f"SITReport(scorers={list(self.scores)}, sits={[CLEAN, *self.sits]}, n_images={n_rows_of(self.X)})"

    def select(self, scorers: Sequence[str] | None = None, sits: Sequence[str] | None = None) -> SITReport:
        """Return the report with only some of the scorers and SITs; the original images are always kept.

        Parameters
        ----------
        scorers, sits : sequence of str, default=None
            Names; None: all.

        Returns
        -------
        report : SITReport
        """
        kept = list(self.scores) if scorers is None else list(scorers)
        kept_sits = list(self.sits) if sits is None else list(sits)
        return replace(
            self,
            results=[r for r in self.results if r["scorer"] in kept and r["sit"] in (CLEAN, *kept_sits)],
            scores={name: {sit: self.scores[name][sit] for sit in (CLEAN, *kept_sits)} for name in kept},
            scores_out={name: self.scores_out[name] for name in kept if name in self.scores_out},
            sits={sit: self.sits[sit] for sit in kept_sits},
            units={name: self.units[name] for name in kept},
        )

    def values(self, scorer: str, sit: str = CLEAN) -> NDArray[np.float64]:
        """Return values (n,) that are higher for less normal images: bits/dim, or -score / std of the clean scores."""
        scores = self.scores[scorer][sit]
        return -scores / (1.0 if self.units[scorer] == BITS else float(np.nanstd(self.scores[scorer][CLEAN])) or 1.0)

    def plot(self, *, yscale: str = "linear", fig: Figure | None = None) -> Figure:
        """Draw the values of each class, for the original images and each SIT, with a panel for each scorer.

        A dot is the mean; a line spans the middle 90 % of the images.

        Parameters
        ----------
        yscale : {"linear", "log", "symlog"}, default="linear"
            Use a logarithmic scale if SITs differ by orders of magnitude.
        fig : matplotlib Figure, default=None
            Resized and used for the plot; None: a new figure, without pyplot.

        Returns
        -------
        fig : matplotlib Figure
        """
        if fig is None:
            with whole_imports():
                from matplotlib.figure import Figure

            fig = Figure()
        fig.set_size_inches(9, 3.1 * len(self.scores))
        fig.set_layout_engine("constrained")
        axes = fig.subplots(len(self.scores), 1, squeeze=False)[:, 0]
        for ax, scorer in zip(axes, self.scores, strict=True):
            by_sit = {sit: self.values(scorer, sit) for sit in self.scores[scorer]}
            unit = self.units[scorer] if self.units[scorer] == BITS else "score, spreads below 0"
            plot_sit_classes(by_sit, self.y, ylabel=f"{unit} (up: less normal)", yscale=yscale, ax=ax)
            ax.set_title(scorer, loc="left")
        return fig

    def plot_shifts(self, *, xscale: str = "linear", ax: Axes | None = None) -> Axes:
        """Draw the shift of each scorer under each SIT, over all images; all scorers should have the same unit.

        Parameters
        ----------
        xscale : {"linear", "symlog"}, default="linear"
        ax : matplotlib Axes, default=None

        Returns
        -------
        ax : matplotlib Axes
        """
        units = list(dict.fromkeys(self.units.values()))
        shifts = {
            scorer: {sit: self.values(scorer, sit) - self.values(scorer) for sit in self.sits} for scorer in self.scores
        }
        xlabel = f"shift, {' or '.join(units)} (right: less normal); dot: mean, line: middle 90 % of images"
        return plot_sit_shifts(shifts, xlabel=xlabel, xscale=xscale, ax=ax)

    def plot_examples(
        self, rows: int | Sequence[int] = 6, *, image_shape: tuple[int, ...] | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw original and transformed images, each with the values of the scorers below it.

        Parameters
        ----------
        rows : int or sequence of int, default=6
            Number of images, from the first, or their indices.
        image_shape : (H, W) or (H, W, C), default=None
            Shape of images given as rows.
        ax : matplotlib Axes, default=None

        Returns
        -------
        ax : matplotlib Axes
        """
        chosen = list(range(min(rows, n_rows_of(self.X))) if isinstance(rows, int) else rows)
        X = self.X.iloc[chosen] if hasattr(self.X, "iloc") else self.X[chosen]
        rows_of_X, layout = to_rows(X)
        clean_images = layout.as_numpy().restore(np.asarray(rows_of_X))
        lines = {CLEAN: clean_images, **self._transformed(X)}
        images = np.concatenate([line.astype(np.float64) for line in lines.values()])
        if image_shape is not None:
            images = images.reshape(len(images), *image_shape)
        told = [[self.values(scorer, sit)[chosen] for scorer in self.scores] for sit in lines]
        columns = [column for line in told for column in zip(*line, strict=True)]  # values of all scorers for an image
        captions = ["\n".join(f"{value:.2f}" for value in column) for column in columns]
        clean = images[: len(chosen)]
        ax = plot_image_grid(
            images,
            captions=captions,
            n_columns=len(chosen),
            row_labels=list(lines),
            value_range=(float(clean.min()), float(clean.max())),
            ax=ax,
        )
        units = " or ".join(dict.fromkeys(self.units.values()))
        ax.set_title(f"below each image, {units}: {' / '.join(self.scores)}", loc="left", fontsize="small")
        return ax

    def _transformed(self, X: Any) -> dict[str, NDArray[Any]]:
        with sklearn.config_context(transform_output="default"):  # a frame has no room for images
            return {name: np.asarray(sit.transform(X)) for name, sit in self.sits.items()}

    def save_html(self, path: PathName, *, image_shape: tuple[int, ...] | None = None) -> None:
        """Write one HTML page with the table and all pictures inside, which needs no other file and no network.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced only after the new one is complete.
        image_shape : (H, W) or (H, W, C), default=None
            Of images given as rows; None: examples are shown only for images.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        scale = "symlog"  # SITs differ by orders of magnitude
        parts = ["<h2>Shifts</h2>", wide(self.plot_shifts(xscale=scale), "how far each SIT moves each scorer")]
        if self.y is not None:
            parts += ["<h2>Classes</h2>", wide(self.plot(), "values of each class under each SIT")]
        if image_shape is not None or getattr(self.X, "ndim", 2) > 2:
            examples = self.plot_examples(image_shape=image_shape)
            parts += ["<h2>Images</h2>", wide(examples, "images as they are and under each SIT")]
        self._write_page(path, parts)

    def _title(self) -> str:
        units = " or ".join(dict.fromkeys(self.units.values()))
        return f"Transformations of {n_rows_of(self.X):,} images; shifts in {units}"

    def _columns(self) -> tuple[Sequence[Column], Sequence[Column]]:
        rows = [result for result in self.results if result["label"] == ALL]
        names = [[head, *(str(r[key]) for r in rows)] for head, key in (("scorer", "scorer"), ("SIT", "sit"))]
        numbers = [["AUROC clean [95 % int.]", *(area_cell(r, "auroc_clean") for r in rows)]]
        if self.scores_out:
            numbers.append(["AUROC OoD [95 % int.]", *(area_cell(r, "auroc_ood") for r in rows)])
        numbers += [
            ["shift [95 % interval]", *map(_shift_cell, rows)],
            ["median", *(f"{r['shift_median']:+.3f}" for r in rows)],
            ["mean", *(f"{r['mean']:.3f}" for r in rows)],
        ]
        if len(set(self.units.values())) > 1:
            numbers.append(["unit", *("bits/dim" if r["unit"] == BITS else "std" for r in rows)])
        return names, numbers

    def _cells(self) -> list[list[str]]:
        head = ["scorer", "SIT", "unit", "AUROC clean", "AUROC OoD", "shift [95 % interval]", "median shift", "mean"]
        areas = ["auroc_clean", "auroc_ood"] if self.scores_out else ["auroc_clean"]
        return [[name for name in head if name != "AUROC OoD" or self.scores_out]] + [
            [
                *(result[name] for name in ("scorer", "sit", "unit")),
                *(area_cell(result, name) for name in areas),
                _shift_cell(result),
                f"{result['shift_median']:+.3f}",
                f"{result['mean']:.3f}",
            ]
            for result in self.results
            if result["label"] == ALL
        ]


def _shift_cell(result: dict[str, Any]) -> str:
    return f"{result['shift']:+.3f} [{result['shift_low']:+.3f}, {result['shift_high']:+.3f}]"

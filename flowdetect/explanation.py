"""Explanations of a detector's scores, as arrays, as a frame and as a plot.

`explain` of a detector returns a `TableExplanation` or an `ImageExplanation`; both are an `Explanation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._ctrl_c import whole_imports

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

MOST_BARS = 12
CHANGED = "\N{RIGHTWARDS ARROW}"
MOST_OF_FEW_LEVELS = 32  # 8-bit images up to here, such as digits of 0..16, are drawn up to their largest value
QUANTILE_SHOWN = 0.995  # quantile of a map's pixels that is drawn brightest


@dataclass(frozen=True, eq=False)
class Explanation:
    """Explanations of the scores of n rows; the base of the two classes for tables and images.

    Attributes
    ----------
    scores : (n,) array
        The detector's scores of the rows; higher is more normal.
    threshold : float
        The detector's `offset_`; rows that score below it are outliers.
    importance : (n, n_columns) array, or (n, H, W) for images
    """

    scores: NDArray[np.float64]
    threshold: float
    importance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def to_frame(self) -> DataFrame:
        """Return one line for each row and column, or each row and pixel, the most important first.

        Returns
        -------
        frame : pandas DataFrame
        """
        raise NotImplementedError

    def plot(self, row: int = 0, *, ax: Axes | None = None) -> Axes:
        """Draw the explanation of one row: bars of a table's columns, or a map beside the image.

        Parameters
        ----------
        row : int, default=0
        ax : matplotlib Axes, default=None
            None: a new figure.

        Returns
        -------
        ax : matplotlib Axes

        Raises
        ------
        IndexError
            If there is no such row.
        """
        if not -len(self) <= row < len(self):
            raise IndexError(f"plot needs the index of one of the {len(self)} rows explained, got row={row}.")
        return self._draw(row % len(self), ax)

    def _draw(self, row: int, ax: Axes | None) -> Axes:
        """Draw one row; its index is valid."""
        raise NotImplementedError

    def _title(self, row: int) -> str:
        verdict = "outlier" if self.scores[row] < self.threshold else "normal"
        return f"row {row}: score {_number(self.scores[row])}, threshold {_number(self.threshold)} ({verdict})"


@dataclass(frozen=True, eq=False)
class TableExplanation(Explanation):
    """Importance of each column, and the nearest value of it with which the row would be normal.

    Attributes
    ----------
    scores : (n,) array
        The detector's scores of the rows; higher is more normal.
    threshold : float
        The detector's `offset_`; rows that score below it are outliers.
    importance : (n, D) array in [0, 1]
        `gains` / (`cell_p_values` * `residual_p_values`), as a share of the row's sum; 0 in all columns if no change
        raises the score.
    columns : sequence of D str
    values : (n, D) array
        The explained rows. If the columns of a pipeline are not all numeric: objects, with None for a missing cell.
    usual_values : (n, D) array
        The nearest value with which the row, changed only in this column, scores at least `threshold`. For a normal row
        it is the row's own value. If no value is enough (`suffices` is False), it is `best_values`.
    best_values : (n, D) array
        The value with which the row, changed only in this column, scores highest; the row's own value if none scores
        higher.
    suffices : (n, D) array of bool
        Whether the row with `usual_values` in this column scores at least `threshold`.
    gains : (n, D) array
        Score with `best_values` minus the row's score, at least 0. If the row lies too far out to be scored, its score
        is replaced by the lowest finite score of the row with one column changed, minus 1.
    cell_p_values : (n, D) array in (0, 1]
        Two-sided p-value of the value among the (at most 64) training rows that are nearest in the other columns.
    residual_p_values : (n, D) array in (0, 1]
        The same for the difference between the value and its linear prediction from the other columns.

    Notes
    -----
    The gain measures how much a change of the column helps. It favours columns with long tails or many classes, in
    which normal rows gain too; the p-values correct for this, because they measure whether the value is unusual given
    the other columns. If the density fits very well, such as a Gaussian mixture on Gaussian data, the gain alone ranks
    small errors better; then sort by `gains`.

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import OODDetector
    >>> X = np.random.default_rng(0).normal(size=(200, 4))
    >>> explanation = OODDetector(random_state=0).fit(X).explain(X[:1] + [0, 0, 5, 0])
    >>> explanation.to_frame().column[0]
    'x2'
    >>> ax = explanation.plot(row=0)
    """

    columns: Sequence[str]
    values: NDArray[Any]
    usual_values: NDArray[Any]
    best_values: NDArray[Any]
    suffices: NDArray[np.bool_]
    gains: NDArray[np.float64]
    cell_p_values: NDArray[np.float64]
    residual_p_values: NDArray[np.float64]

    def to_frame(self) -> DataFrame:
        """Return one line for each row and column; the columns of a row are sorted by importance.

        Returns
        -------
        frame : pandas DataFrame
            Columns row, column, value, importance, usual_value, change (usual_value - value; None for categories),
            suffices, best_value, gain, cell_p_value, residual_p_value, score. It is a pandas frame, also for rows in a
            polars frame.
        """
        with whole_imports():
            from pandas import DataFrame

        n_rows, n_columns = self.values.shape
        order = np.argsort(-self.importance, axis=1, kind="stable")

        def sorted_cells(cells: NDArray[np.generic]) -> NDArray[np.generic]:
            return np.take_along_axis(cells, order, axis=1).ravel()

        return DataFrame(
            {
                "row": np.repeat(np.arange(n_rows), n_columns),
                "column": np.asarray(self.columns, dtype=object)[order].ravel(),
                "value": sorted_cells(self.values),
                "importance": sorted_cells(self.importance),
                "usual_value": sorted_cells(self.usual_values),
                "change": sorted_cells(_differences(self.usual_values, self.values)),
                "suffices": sorted_cells(self.suffices),
                "best_value": sorted_cells(self.best_values),
                "gain": sorted_cells(self.gains),
                "cell_p_value": sorted_cells(self.cell_p_values),
                "residual_p_value": sorted_cells(self.residual_p_values),
                "score": np.repeat(self.scores, n_columns),
            }
        )

    def _draw(self, row: int, ax: Axes | None) -> Axes:
        """Draw the importance of a row's columns as bars, each with its value and the usual value."""
        from flowdetect.evaluation._style import COLORS, GREY, LABEL_SIZE, own_axes, tidy

        shown = np.argsort(-self.importance[row], kind="stable")[:MOST_BARS]
        heights = self.importance[row, shown]
        ax = own_axes(ax, (6.5, 1.2 + 0.3 * len(shown)))
        suffices = self.suffices[row, shown]
        colors = [COLORS[0] if enough else "#9DB8C9" for enough in suffices]
        ax.barh(range(len(shown)), heights, color=colors, height=0.65)
        for place, column in enumerate(shown):
            ax.annotate(
                self._change(row, int(column)),
                (heights[place], place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=GREY,
                fontsize=LABEL_SIZE,
            )
        ax.set_yticks(range(len(shown)), [str(self.columns[column]) for column in shown])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_xlim(0, max(float(heights.max(initial=0)), 1e-9) * 1.45)  # space for the text beside the longest bar
        ax.set_xlabel(f"importance; value {CHANGED} usual value\n(pale: this change alone is not enough)")
        ax.set_title(self._title(row), loc="left", fontsize=LABEL_SIZE + 2)
        ax.locator_params(axis="x", nbins=5)
        ax.tick_params(axis="y", length=0)
        tidy(ax, hidden=("left", "right", "top"))
        return ax

    def _change(self, row: int, column: int) -> str:
        value, usual = self.values[row, column], self.usual_values[row, column]
        return _shown(value) if value == usual else f"{_shown(value)} {CHANGED} {_shown(usual)}"


@dataclass(frozen=True, eq=False)
class ImageExplanation(Explanation):
    """Maps of the pixels that make images unusual.

    Attributes
    ----------
    scores : (n,) array
        The detector's scores of the images; higher is more normal.
    threshold : float
        The detector's `offset_`; images that score below it are outliers.
    importance : (n, H, W) array, score per pixel
        Gain of the score, per replaced pixel, averaged over the replaced patches that contain the pixel; negative if
        the replacement lowers the score.
    images : (n, H, W, C) array
        The explained images.

    Examples
    --------
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import LikelihoodDetector, load_images
    >>> X, _ = load_images("digits")
    >>> detector = LikelihoodDetector(GaussianMixture(reg_covar=0.1), random_state=0).fit(X[:500])
    >>> odd = X[500:501].copy()
    >>> odd[0, :2, :2] = 16  # a white corner
    >>> explanation = detector.explain(odd)
    >>> int(explanation.importance[0].argmax())
    0
    >>> ax = explanation.plot(row=0)
    """

    images: NDArray[np.generic]

    def to_frame(self) -> DataFrame:
        """Return one line for each image and pixel; the pixels of an image are sorted by importance.

        Returns
        -------
        frame : pandas DataFrame
            Columns row, y (from the top), x (from the left), value (mean over channels), importance, score.
        """
        with whole_imports():
            from pandas import DataFrame

        n_images, height, width = self.importance.shape
        flat = self.importance.reshape(n_images, height * width)
        order = np.argsort(-flat, axis=1, kind="stable")
        values = self.images.astype(np.float64).mean(axis=3).reshape(n_images, height * width)
        return DataFrame(
            {
                "row": np.repeat(np.arange(n_images), height * width),
                "y": (order // width).ravel(),
                "x": (order % width).ravel(),
                "value": np.take_along_axis(values, order, axis=1).ravel(),
                "importance": np.take_along_axis(flat, order, axis=1).ravel(),
                "score": np.repeat(self.scores, height * width),
            }
        )

    def _draw(self, row: int, ax: Axes | None) -> Axes:
        """Draw an image and the map of its pixels side by side; important pixels are bright."""
        from flowdetect.evaluation._style import LABEL_SIZE, own_axes

        image = self.images[row].astype(np.float64)
        height, width, n_channels = image.shape
        low, high = (0.0, 255.0) if self.images.dtype == np.uint8 else (float(image.min()), float(image.max()))
        if self.images.dtype == np.uint8 and self.images.max() <= MOST_OF_FEW_LEVELS:
            high = float(self.images.max())
        image = np.clip((image - low) / max(high - low, np.finfo(float).tiny), 0, 1)
        heat = np.maximum(self.importance[row], 0)
        ax = own_axes(ax, (6.2, 0.6 + 2.6 * height / width))
        left = image if n_channels == 3 else image.mean(axis=2)
        ax.imshow(left, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
        brightest = max(float(np.quantile(heat, QUANTILE_SHOWN)), np.finfo(float).tiny)
        drawn = ax.imshow(heat, cmap="magma", vmin=0, vmax=brightest, extent=(1.06 * width, 2.06 * width, height, 0))
        ax.set(xlim=(0, 2.06 * width), ylim=(height, 0))
        ax.set_axis_off()
        ax.set_title(self._title(row), loc="left", fontsize=LABEL_SIZE + 2)
        bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.8, pad=0.02)
        bar.set_label("score gained per pixel replaced", size=LABEL_SIZE)
        bar.ax.tick_params(labelsize=LABEL_SIZE)
        return ax


def _number(value: float) -> str:
    return f"{float(value):.4g}".replace("-", "\N{MINUS SIGN}")


def _shown(value: Any) -> str:
    if isinstance(value, Real | np.number) and not isinstance(value, bool):
        return _number(float(value))
    return "missing" if value is None else str(value)


def _differences(usual: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Subtract numbers, dates and durations; None for other cells."""
    if usual.dtype != object and values.dtype != object:
        return np.asarray(usual - values)
    found = np.full(values.shape, None, dtype=object)
    for place, value in np.ndenumerate(values):
        if not isinstance(value, bool | np.bool_ | None):
            with suppress(TypeError):
                found[place] = usual[place] - value
    return found

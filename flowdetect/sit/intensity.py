"""SITs on intensities: shrink all values towards the middle, or change the contrast of each image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect._fitting import all_or_nothing
from flowdetect._limits import is_number
from flowdetect.sit._base import PixelTransformer, value_range


class IntensityTransformer(PixelTransformer):
    """Base of the SITs on intensities: a factor, learned bounds, and optional rounding."""

    factor: float
    requantize: bool
    kept = ("factor", "requantize")

    def _check_before_fit(self) -> None:
        super()._check_before_fit()
        if not is_number(self.factor) or self.factor < 0:
            raise ValueError(f"factor must be a finite number >= 0, got {self.factor!r}; 1 changes nothing.")

    @all_or_nothing
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> IntensityTransformer:
        """Learn the layout and the value range.

        Parameters
        ----------
        X : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter is not as documented, or `requantize=True` is used with real-valued data.
        """
        rows = self._learn(X, dtype=np.float64)
        self._check_requantize(self.requantize)
        self._learn_centre(rows)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Change the intensities.

        Parameters
        ----------
        X : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)

        Returns
        -------
        X_changed : float64 array in the form of X (torch: numpy (n, H, W, C)), off the grid unless requantised
        """
        rows, layout = self._rows(X, dtype=np.float64)
        changed = rows + (1 - self._kept["factor"]) * (self._centre(rows) - rows)  # bitwise unchanged for factor 1
        return layout.restore(self._on_grid(changed) if self._kept["requantize"] else self._bounded(changed))

    def _learn_centre(self, rows: NDArray[np.float64]) -> None:
        """Learn what `_centre` needs; `fit` calls it once."""

    def _centre(self, rows: NDArray[np.float64]) -> Any:
        """Value that stays fixed: one for all rows, or (n, 1) with one for each row."""
        raise NotImplementedError

    def _bounded(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Clip data in bins to 0 .. n_bins - 1."""
        return rows if self.n_bins_ is None else np.clip(rows, 0, self.n_bins_ - 1)


class Gray(IntensityTransformer):
    r"""Shrink all values towards the middle of the value range.

    .. math:: x' = c + \text{factor} \, (x - c)

    The variance of the data is multiplied by factor squared and nothing else changes. This raises likelihoods: the
    paper says that one data set "sits inside of" the other.

    Parameters
    ----------
    factor : float, default=0.5
        At least 0. With 1 nothing changes; with 0 every image is the same grey. Above 1 contrasts grow, and data in
        bins are clipped to 0 .. n_bins - 1.
    requantize : bool, default=False
        Round the result to whole numbers and clip it to 0 .. n_bins - 1.
    image_shape : tuple of int, default=None
        (H, W) or (H, W, C). None: taken from X.
    n_bins : int, None or "auto", default="auto"
        Number of integer values of a pixel; None for real-valued data. "auto": 256 for images of whole numbers 0..255,
        else None.

    Attributes
    ----------
    image_shape_ : tuple of int (H, W, C), or None for vectors
    n_bins_ : int or None
    middle_ : float
        The c above: (n_bins - 1) / 2 for data in bins; for real-valued data the middle between the smallest and the
        largest value given to `fit`.
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str

    References
    ----------
    "Do Deep Generative Models Know What They Don't Know?" (Nalisnick et al., 2019), https://arxiv.org/abs/1810.09136,
    section 5 and Figure 6 (b).

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import Gray
    >>> Gray(0.5, n_bins=256).fit_transform(np.array([[0, 100, 255]])).tolist()
    [[63.75, 113.75, 191.25]]
    """

    def __init__(
        self,
        factor: float = 0.5,
        requantize: bool = False,
        image_shape: tuple[int, ...] | None = None,
        n_bins: int | str | None = "auto",
    ):
        self.factor = factor
        self.requantize = requantize
        self.image_shape = image_shape
        self.n_bins = n_bins

    def _learn_centre(self, rows: NDArray[np.float64]) -> None:
        low, width = value_range(rows, self.n_bins_)
        self.middle_: float = low + width / 2 if self.n_bins_ is None else (self.n_bins_ - 1) / 2

    def _centre(self, rows: NDArray[np.float64]) -> float:
        return self.middle_


class Contrast(IntensityTransformer):
    r"""Stretch or shrink the values of each image around its own mean.

    .. math:: x' = \bar x + \text{factor} \, (x - \bar x)

    where :math:`\bar x` is the mean over the image's pixels and channels. Unlike `Gray`, it keeps the brightness of the
    image.

    Parameters
    ----------
    factor : float, default=0.8
        At least 0. With 1 nothing changes; with 0 every pixel is the mean. Above 1 contrasts grow. Data in bins are
        clipped to 0 .. n_bins - 1.
    requantize : bool, default=False
        Round the result to whole numbers and clip it to 0 .. n_bins - 1.
    image_shape : tuple of int, default=None
        (H, W) or (H, W, C). None: taken from X.
    n_bins : int, None or "auto", default="auto"
        Number of integer values of a pixel; None for real-valued data. "auto": 256 for images of whole numbers 0..255,
        else None.

    Attributes
    ----------
    image_shape_ : tuple of int (H, W, C), or None for vectors
    n_bins_ : int or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import Contrast
    >>> Contrast(0.5).fit_transform(np.array([[0.0, 1.0, 5.0]])).tolist()
    [[1.0, 1.5, 3.5]]
    """

    def __init__(
        self,
        factor: float = 0.8,
        requantize: bool = False,
        image_shape: tuple[int, ...] | None = None,
        n_bins: int | str | None = "auto",
    ):
        self.factor = factor
        self.requantize = requantize
        self.image_shape = image_shape
        self.n_bins = n_bins

    def _centre(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([row.mean() for row in rows])[
            :, None
        ]  # one row at a time: its sum does not depend on the batch

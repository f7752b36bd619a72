"""SITs that move pixels and keep their values: translation (section 4.1 of the paper), mirroring and rotation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect._fitting import all_or_nothing
from flowdetect.sit._base import PixelTransformer, check_whole


class GeometricTransformer(PixelTransformer):
    """Base of the geometric SITs; they keep the dtype."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class Translate(GeometricTransformer):
    """Move each image by whole pixels.

    Pixel (i, j) of the result is pixel (i - dy, j - dx) of the image, row 0 at the top:

    .. math:: x'_{i, j} = x_{i - dy, j - dx}

    It changes likelihoods of multi-scale flows, because the squeeze then forms other 2x2 blocks. It hardly changes
    those of PixelCNNs.

    Parameters
    ----------
    dx : int, default=0
        Pixels to the right; negative moves left (the paper moves left by 1 and 2).
    dy : int, default=0
        Pixels downwards; negative moves up.
    fill : {"constant", "edge", "wrap"}, default="constant"
        Values that enter at the border. "constant": `fill_value_`; "edge": the nearest pixel of the image; "wrap": the
        pixels that leave at the opposite border.
    image_shape : tuple of int, default=None
        (H, W) or (H, W, C). None: taken from X; rows of a 2-D X are images of 1 x D pixels, never guessed
        to be square.
    n_bins : int, None or "auto", default="auto"
        Number of integer values of a pixel; None for real-valued data. "auto": 256 for images of whole numbers 0..255,
        else None. After a transformer that makes 8-bit images real-valued, set 256.

    Attributes
    ----------
    image_shape_ : tuple of int (H, W, C), or None for vectors
    n_bins_ : int or None
    fill_value_ : float
        0 for data in bins; for real-valued data the smallest value given to `fit`, assumed to be the background.
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str

    Notes
    -----
    The dtype of X is kept.

    References
    ----------
    "Exploring the Correlation Between Likelihood of Flow-based Generative Models and Image Semantics" (anonymous, under
    double-blind review), section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import Translate
    >>> image = np.array([[[1, 2], [3, 4]]], dtype=np.uint8)  # (1, 2, 2)
    >>> Translate(dx=1).fit_transform(image).tolist()
    [[[0, 1], [0, 3]]]
    """

    kept = ("dx", "dy", "fill")

    def __init__(
        self,
        dx: int = 0,
        dy: int = 0,
        fill: str = "constant",
        image_shape: tuple[int, ...] | None = None,
        n_bins: int | str | None = "auto",
    ):
        self.dx = dx
        self.dy = dy
        self.fill = fill
        self.image_shape = image_shape
        self.n_bins = n_bins

    def _check_before_fit(self) -> None:
        super()._check_before_fit()
        for name in ("dx", "dy"):
            check_whole(self, name)
        if self.fill not in ("constant", "edge", "wrap"):
            raise ValueError(f'fill must be "constant", "edge" or "wrap", got {self.fill!r}.')

    @all_or_nothing
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Translate:
        """Learn the layout and the fill value.

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
            If a parameter is not as documented, or every pixel would leave the image.
        """
        rows = self._learn(X, dtype="numeric")
        self.fill_value_: float = 0.0 if self.n_bins_ is not None else float(rows.min())
        self._check_stays_in_view()
        return self

    def _check_stays_in_view(self) -> None:
        height, width, _ = self._shape()
        if abs(self.dy) < height and abs(self.dx) < width:
            return
        remedy = "move by less" if self.image_shape_ else "X is 2-D and taken as a strip; give image_shape if not so"
        raise ValueError(
            f"Translate(dx={self.dx}, dy={self.dy}) moves images of {height} x {width} pixels "
            f"(n_features={self.n_features_in_}) out of the picture; {remedy}."
        )

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Move the images.

        Parameters
        ----------
        X : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)

        Returns
        -------
        X_moved : array in the form and dtype of X (torch: numpy (n, H, W, C))
        """
        rows, layout = self._rows(X, dtype="numeric")
        images = rows.reshape(-1, *self._shape())
        height, width = images.shape[1:3]
        from_row, row_inside = _sources(height, self._kept["dy"], self._kept["fill"])
        from_column, column_inside = _sources(width, self._kept["dx"], self._kept["fill"])
        moved = images[:, from_row[:, None], from_column]  # (n, H, W, C)
        inside = row_inside[:, None] & column_inside
        if not inside.all():
            fill = _fill_scalar(self.fill_value_, rows.dtype)
            moved = moved.astype(np.result_type(moved, fill), copy=False)
            moved[:, ~inside] = fill
        return layout.restore(moved.reshape(len(rows), -1))


def _sources(size: int, shift: int, fill: str) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Index from which each position along an axis is copied, and whether this index is inside the image."""
    wanted = np.arange(size) - shift
    if fill == "wrap":
        return wanted % size, np.ones(size, dtype=bool)
    nearest = np.clip(wanted, 0, size - 1)
    return nearest, (nearest == wanted) | (fill == "edge")


def _fill_scalar(value: float, dtype: np.dtype[Any]) -> Any:
    """Fill value in the dtype of X if possible, else as float64."""
    if dtype.kind == "f":
        return dtype.type(value)
    lowest, highest = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    fits = lowest <= value <= highest and value == int(value)
    return dtype.type(int(value)) if fits else np.float64(value)


class Flip(GeometricTransformer):
    """Mirror each image.

    A mirrored coat is a coat. A mirrored digit may be no digit, so on digits a flip is a weak semantic change.

    Parameters
    ----------
    direction : {"horizontal", "vertical"}, default="horizontal"
        "horizontal" swaps left and right, "vertical" top and bottom.
    image_shape : tuple of int, default=None
        (H, W) or (H, W, C). None: taken from X; rows of a 2-D X are images of 1 x D pixels, never guessed
        to be square.
    n_bins : int, None or "auto", default="auto"
        Ignored; all SITs have this parameter.

    Attributes
    ----------
    image_shape_ : tuple of int (H, W, C), or None for vectors
    n_bins_ : int or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str

    Notes
    -----
    The dtype of X is kept.

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import Flip
    >>> image = np.array([[[1, 2], [3, 4]]], dtype=np.uint8)  # (1, 2, 2)
    >>> Flip().fit_transform(image).tolist()
    [[[2, 1], [4, 3]]]
    """

    kept = ("direction",)

    def __init__(
        self,
        direction: str = "horizontal",
        image_shape: tuple[int, ...] | None = None,
        n_bins: int | str | None = "auto",
    ):
        self.direction = direction
        self.image_shape = image_shape
        self.n_bins = n_bins

    def _check_before_fit(self) -> None:
        super()._check_before_fit()
        if self.direction not in ("horizontal", "vertical"):
            raise ValueError(f'direction must be "horizontal" or "vertical", got {self.direction!r}.')

    @all_or_nothing
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Flip:
        """Learn the layout.

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
            If a parameter is not as documented.
        """
        self._learn(X, dtype="numeric")
        return self

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Mirror the images.

        Parameters
        ----------
        X : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)

        Returns
        -------
        X_mirrored : array in the form and dtype of X (torch: numpy (n, H, W, C))
        """
        rows, layout = self._rows(X, dtype="numeric")
        images = rows.reshape(-1, *self._shape())
        mirrored = images[:, :, ::-1] if self._kept["direction"] == "horizontal" else images[:, ::-1]
        return layout.restore(mirrored.reshape(len(rows), -1))


class Rotate90(GeometricTransformer):
    """Rotate each image counter-clockwise by multiples of 90 degrees.

    Parameters
    ----------
    k : int, default=1
        Number of quarter turns; a negative number turns clockwise.
    image_shape : tuple of int, default=None
        (H, W) or (H, W, C). None: taken from X; rows of a 2-D X are images of 1 x D pixels, never guessed
        to be square.
    n_bins : int, None or "auto", default="auto"
        Ignored; all SITs have this parameter.

    Attributes
    ----------
    image_shape_ : tuple of int (H, W, C), or None for vectors
    n_bins_ : int or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str

    Notes
    -----
    The dtype of X is kept. After an odd number of turns, images that are not square have shape (n, W, H).

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import Rotate90
    >>> image = np.array([[[1, 2], [3, 4]]], dtype=np.uint8)  # (1, 2, 2)
    >>> Rotate90().fit_transform(image).tolist()
    [[[2, 4], [1, 3]]]
    """

    kept = ("k",)

    def __init__(
        self,
        k: int = 1,
        image_shape: tuple[int, ...] | None = None,
        n_bins: int | str | None = "auto",
    ):
        self.k = k
        self.image_shape = image_shape
        self.n_bins = n_bins

    def _check_before_fit(self) -> None:
        super()._check_before_fit()
        check_whole(self, "k")

    @all_or_nothing
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Rotate90:
        """Learn the layout.

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
            If a parameter is not as documented.
        """
        self._learn(X, dtype="numeric")
        return self

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Turn the images.

        Parameters
        ----------
        X : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)

        Returns
        -------
        X_turned : array in the form and dtype of X (torch: numpy (n, H, W, C))
        """
        rows, layout = self._rows(X, dtype="numeric")
        turned = np.rot90(rows.reshape(-1, *self._shape()), self._kept["k"], axes=(1, 2))
        if layout.image_shape is not None:
            layout = replace(layout, image_shape=turned.shape[1:])
        return layout.restore(turned.reshape(len(rows), -1))

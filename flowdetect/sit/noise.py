"""A SIT that adds invisible noise (section 4.2 of the paper)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect._fitting import all_or_nothing
from flowdetect._images import draw_seed, row_generators
from flowdetect._limits import is_number
from flowdetect._protocols import RandomState
from flowdetect.sit._base import PixelTransformer, value_range

BIN_WIDTH_8_BIT = 1 / 256  # of the value range; the paper's dequantisation noise is uniform on [0, 1/256]


class AddNoise(PixelTransformer):
    r"""Add small noise, to all pixels or only to the background.

    Eq. (6) of the paper, for values in [0, 1]:

    .. math:: x \leftarrow x + \epsilon \, m \odot \text{noise}, \qquad m = [x < \text{background\_below}]

    The noisy values lie outside the interval that dequantisation covered in training, so a flow scores values that it
    was not trained on.

    Parameters
    ----------
    scale : float, default=0.001
        The paper's epsilon, in units of the value range: with 256 bins, 0.001 is 0.256 grey levels. With 0 nothing
        changes.
    kind : {"gaussian", "shifted", "negative"}, default="gaussian"
        The noise before scaling, with b = 1 / n_bins (1/256 for real-valued data): N(0, 1); b + N(0, 1); or uniform on
        (-b, 0]. The paper gives only the interval [-1/256, 0]; the uniform distribution is our reading.
    background_below : float, default=None
        Values below this fraction of the value range are background. Only they get noise; all others stay bitwise
        unchanged. The paper uses 0.3. None: noise everywhere.
    requantize : bool, default=False
        Round the result to whole numbers and clip it to 0 .. n_bins - 1. Rounding removes most noise of much less than
        half a bin.
    random_state : int, RandomState instance or None, default=None
        The noise depends only on the seed and on the values of the row, so it is batch-invariant. None: each `fit`
        draws a new seed, without numpy's global generator.
    image_shape : tuple of int, default=None
        (H, W) or (H, W, C). None: taken from X.
    n_bins : int, None or "auto", default="auto"
        Number of integer values of a pixel; None for real-valued data. "auto": 256 for images of whole numbers 0..255,
        else None.

    Attributes
    ----------
    image_shape_ : tuple of int (H, W, C), or None for vectors
    n_bins_ : int or None
    value_min_, value_range_ : float
        0 and n_bins for data in bins; for real-valued data the smallest value given to `fit`, and the largest minus the
        smallest.
    seed_ : int
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str

    Notes
    -----
    Rows with equal values get equal noise.

    References
    ----------
    "Exploring the Correlation Between Likelihood of Flow-based Generative Models and Image Semantics" (anonymous, under
    double-blind review), section 4.2, eq. (6).

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import AddNoise
    >>> image = np.array([[[0, 10], [200, 255]]], dtype=np.uint8)  # (1, 2, 2)
    >>> noisy = AddNoise(background_below=0.3, random_state=0).fit_transform(image)
    >>> noisy[0, 0] == image[0, 0], noisy[0, 1] == image[0, 1]
    (array([False, False]), array([ True,  True]))
    """

    kept = ("scale", "kind", "background_below", "requantize")

    def __init__(
        self,
        scale: float = 0.001,
        kind: str = "gaussian",
        background_below: float | None = None,
        requantize: bool = False,
        random_state: RandomState = None,
        image_shape: tuple[int, ...] | None = None,
        n_bins: int | str | None = "auto",
    ):
        self.scale = scale
        self.kind = kind
        self.background_below = background_below
        self.requantize = requantize
        self.random_state = random_state
        self.image_shape = image_shape
        self.n_bins = n_bins

    def _check_before_fit(self) -> None:
        super()._check_before_fit()
        if not is_number(self.scale) or self.scale < 0:
            raise ValueError(f"scale must be a finite number >= 0, in units of the value range, got {self.scale!r}.")
        if self.kind not in ("gaussian", "shifted", "negative"):
            raise ValueError(f'kind must be "gaussian", "shifted" or "negative", got {self.kind!r}.')
        if self.background_below is not None and not is_number(self.background_below):
            raise ValueError(f"background_below must be None or a finite number, got {self.background_below!r}.")

    @all_or_nothing
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> AddNoise:
        """Learn the layout and the value range, and fix the seed.

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
        self.value_min_, self.value_range_ = value_range(rows, self.n_bins_)
        self.seed_: int = draw_seed(self.random_state)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Add the noise.

        Parameters
        ----------
        X : rows (n, D), images (n, H, W) or (n, H, W, C), or torch (n, C, H, W)

        Returns
        -------
        X_noisy : float64 array in the form of X (torch: numpy (n, H, W, C)), off the grid unless requantised
        """
        rows, layout = self._rows(X, dtype=np.float64)
        scale, background_below = self._kept["scale"], self._kept["background_below"]
        result = rows.copy() if scale == 0 else rows + scale * self.value_range_ * self._noise(rows)
        if background_below is not None:
            threshold = self.value_min_ + background_below * self.value_range_
            result = np.where(rows < threshold, result, rows)  # not x + eps * 0: -0.0 would become 0.0
        return layout.restore(self._on_grid(result) if self._kept["requantize"] else result)

    def _noise(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Draw the unscaled noise (n, D) of eq. (6)."""
        kind, bin_width = self._kept["kind"], BIN_WIDTH_8_BIT if self.n_bins_ is None else 1 / self.n_bins_
        noise = np.empty_like(rows)
        for i, generator in enumerate(row_generators(rows, self.seed_)):
            if kind == "negative":
                noise[i] = -bin_width * generator.random(rows.shape[1])
            else:
                noise[i] = generator.standard_normal(rows.shape[1])
        return noise + bin_width if kind == "shifted" else noise

"""Base of all semantic-invariant transformations: layout, bins, and checks of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from flowdetect._documented import Documented
from flowdetect._fitting import KeepsParameters
from flowdetect._images import Layout, check_n_bins, resolve_n_bins, to_rows, warn_of_channels_first
from flowdetect._limits import is_count, short

LARGEST = 2**31  # pixels or turns


class PixelTransformer(Documented, KeepsParameters, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Base of the SITs on pixels; `fit` learns the layout, the bins and the value range."""

    image_shape: Sequence[int] | None
    n_bins: int | str | None
    image_shape_: tuple[int, int, int] | None
    n_bins_: int | None

    def _check_before_fit(self) -> None:
        """Raise if a parameter is invalid for any data; an outer estimator calls this before it trains."""
        check_n_bins(self.n_bins)

    def _learn(self, X: Any, dtype: Any) -> NDArray[Any]:
        """Keep the parameters, set image_shape_, n_bins_ and n_features_in_, and return the rows."""
        self._check_before_fit()
        self._keep_parameters()
        rows, layout = to_rows(X, self.image_shape)
        rows, _ = to_rows(validate_data(self, rows, dtype=dtype), layout.image_shape)  # lists have become arrays here
        warn_of_channels_first(layout.image_shape)
        self.image_shape_ = layout.image_shape
        self.n_bins_ = resolve_n_bins(rows, self.n_bins, layout.image_shape)
        return rows

    def _rows(self, X: Any, dtype: Any) -> tuple[NDArray[Any], Layout]:
        """Return the rows of X and the layout in which to return them."""
        check_is_fitted(self)
        rows, layout = to_rows(X, self.image_shape_)
        rows = validate_data(self, rows, dtype=dtype, reset=False)
        if self.image_shape_ is None and layout.image_shape is not None:
            raise ValueError(
                f"{type(self).__name__} was fitted on vectors and got images of shape {layout.image_shape}; fit it on "
                f"images, or pass image_shape={layout.image_shape} at construction."
            )
        return rows, layout.as_numpy()

    def _shape(self) -> tuple[int, int, int]:
        """Return (H, W, C) of an image; vectors are images of 1 x D pixels."""
        return self.image_shape_ or (1, self.n_features_in_, 1)

    def _check_requantize(self, requantize: bool) -> None:
        if requantize and self.n_bins_ is None:
            raise ValueError(
                "requantize=True needs data in bins, got real-valued X; set n_bins (256 for 8-bit images)."
            )

    def _on_grid(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Round to the nearest bin, 0 .. n_bins - 1."""
        return np.clip(np.rint(rows), 0, (self.n_bins_ or 1) - 1)


def check_whole(estimator: Any, name: str, low: int | None = None) -> None:
    value = getattr(estimator, name)
    if not is_count(value, -LARGEST if low is None else low, LARGEST):
        bound = "" if low is None else f" >= {low}"
        raise ValueError(f"{name} must be a whole number{bound}, got {short(value)}; its size is at most {LARGEST}.")


def value_range(rows: NDArray[np.float64], n_bins: int | None) -> tuple[float, float]:
    """Return the smallest value and the width of the value range: 0 and n_bins for data in bins."""
    if n_bins is not None:
        return 0.0, float(n_bins)
    low = float(rows.min())
    return low, float(rows.max()) - low

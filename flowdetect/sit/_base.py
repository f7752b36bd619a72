"""What all semantic-invariant transformations share: the layout, the bins, and the checks of parameters."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import Any

from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from flowdetect._images import Layout, check_n_bins, resolve_n_bins, to_rows


class PixelTransformer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """What SITs on pixels share: the layout, the bins and the value range, learned in fit."""

    image_shape: Any
    n_bins: Any

    def _learn(self, X: Any, dtype: Any) -> NDArray[Any]:
        """Set image_shape_, n_bins_ and n_features_in_; give the rows."""
        check_n_bins(self.n_bins)
        rows, layout = to_rows(X, self.image_shape)
        rows = validate_data(self, rows, dtype=dtype)
        self.image_shape_ = layout.image_shape
        self.n_bins_ = resolve_n_bins(rows, self.n_bins, layout.image_shape)
        return rows

    def _rows(self, X: Any, dtype: Any) -> tuple[NDArray[Any], Layout]:
        """Give the rows of X and the layout in which to return them."""
        check_is_fitted(self)
        rows, layout = to_rows(X, self.image_shape_)
        rows = validate_data(self, rows, dtype=dtype, reset=False)
        if self.image_shape_ is None and layout.image_shape is not None:
            raise ValueError(
                f"{type(self).__name__} was fitted on vectors and got images of shape {layout.image_shape}; fit it on "
                f"images, or pass image_shape={layout.image_shape} at construction."
            )
        return rows, numpy_layout(layout)


def numpy_layout(layout: Layout) -> Layout:
    """Torch's axes become numpy's: numpy images with channels first are refused everywhere in flowdetect."""
    return replace(layout, axes="nhwc") if layout.axes == "nchw" else layout


def check_whole(estimator: Any, name: str, low: int | None = None) -> None:
    value = getattr(estimator, name)
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or (low is not None and value < low):
        bound = "" if low is None else f" >= {low}"
        raise ValueError(f"{name} must be a whole number{bound}, got {value!r}.")

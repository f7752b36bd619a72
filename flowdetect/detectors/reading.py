"""Input of a detector: checks of rows, opening of sources, and conversion to the form that the density takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import validate_data

from flowdetect._frames import without_integers
from flowdetect._images import to_rows
from flowdetect._opening import as_source, check_columns, is_lazy, layout_of, names_compared
from flowdetect._protocols import ImageShape, Scorer
from flowdetect._rows import plain
from flowdetect._sources import Mapped, Source, nameless
from flowdetect.detectors.checks import name_of
from flowdetect.detectors.rows import is_frame

FLOATS = [np.float64, np.float32]


class ReadsRows:
    """A detector that accepts arrays, data frames, tensors, images and sources of rows."""

    density: Scorer | None
    density_: Scorer
    image_shape: ImageShape
    image_shape_: tuple[int, int, int] | None
    shared: tuple[str, ...]
    _as_used: Any
    _density_rows: Any
    _singles: Any
    _warn_of_range: Any

    def _check_X(self, X: Any, *, reset: bool) -> Any:
        """Validate X and convert it for the density; once fitted, warn if its range differs from the training data."""
        checked = self._validated(X, reset=reset)
        if not reset:
            self._warn_of_range(checked)
        return checked

    def _validated(self, X: Any, *, reset: bool) -> Any:
        """Return frames, images and sources unchanged, anything else as an (n, D) array."""
        if is_lazy(X):
            return self._opened(X, reset=reset)
        X = plain(X)
        rows, layout = to_rows(X, self.image_shape if reset else self.image_shape_)
        density = self.density if reset else getattr(next(self._singles()), "density_", self.density)
        knows_images = density is None or hasattr(density, "image_shape")
        # only our densities receive integers: GaussianMixture would square uint8 pixels as uint8
        dtype = "numeric" if knows_images else FLOATS
        checked = validate_data(self, rows, reset=reset, dtype=dtype, ensure_min_samples=2 if reset else 1)
        if reset:
            self.image_shape_ = layout.image_shape
        if layout.axes != "rows":
            return X if knows_images else checked
        if not is_frame(X):
            return checked
        return X if knows_images else without_integers(X)

    def _opened(self, X: Any, *, reset: bool) -> Source:
        """Open a source and check the form of its rows; their values are checked when they are read."""
        image_shape = self.image_shape if reset else self.image_shape_
        source = as_source(X, image_shape)
        layout = layout_of(source, image_shape)
        head = source.rows(np.arange(min(2, len(source))))
        with names_compared(source):
            validate_data(self, head, reset=reset, dtype="numeric", ensure_min_samples=2 if reset else 1)
        check_columns(self, source, reset=reset)
        if reset:
            self.image_shape_ = layout.image_shape
            for used in (self._as_used(getattr(self, name)) for name in self.shared):
                if isinstance(used, FrozenEstimator):
                    check_columns(used, source, reset=False)
        return source

    def _settle_image_shape(self) -> None:
        """Take the image shape from the density if the data have none."""
        told = getattr(self.density_, "image_shape_", None)
        if self.image_shape_ is None:
            self.image_shape_ = told
        elif told is not None and tuple(told) != self.image_shape_:
            raise ValueError(
                f"{type(self).__name__} has images of {self.image_shape_} (height, width, channels), but its density "
                f"{name_of(self.density_)} was fitted on images of {told}; give both the same image_shape."
            )

    def _density_source(self, X: Any) -> Any:
        """Return the rows, or the source, that the density is fitted on; densities of other libraries take arrays."""
        if isinstance(X, Source) and not hasattr(self.density_, "image_shape"):
            X = self._in_memory(X)
        if not isinstance(X, Source):
            return self._density_rows(X)
        head = X.read(np.arange(1))
        return nameless(X) if self._density_rows(head) is head else Mapped(X, self._density_rows)

    def _in_memory(self, X: Any) -> Any:
        """Return checked rows unchanged, and a source as a checked array."""
        if not isinstance(X, Source):
            return X
        with names_compared(X):
            return self._validated(X.array(), reset=False)

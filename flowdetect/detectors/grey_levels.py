"""Rounding of images to few grey levels for `OODDetector`, which removes invisible noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._images import N_BINS_8_BIT
from flowdetect.detectors.rows import extent

N_LEVELS = 32  # grey levels after rounding


class GreyLevels:
    """The part of an image detector that rounds pixel values.

    Attributes
    ----------
    n_bins_ : int or None
        Number of whole values of a pixel; None: real values.
    value_range_ : tuple of float (low, high) or None
        For real values: those of the darkest and the brightest pixel.
    image_shape_ : tuple of int (H, W, C) or None
    """

    n_bins_: int | None
    value_range_: tuple[float, float] | None
    image_shape_: tuple[int, int, int] | None

    def _learn_levels(self, X: Any) -> None:
        """Learn the map from pixel values to grey levels."""
        low, high, whole = extent(X)
        self.value_range_, self.n_bins_ = (low, high), None
        if low >= 0 and high < N_BINS_8_BIT and whole:
            self.value_range_, self.n_bins_ = None, max(2, 1 << int(high).bit_length())

    def _n_levels(self) -> int:
        return min(N_LEVELS, self.n_bins_ or N_LEVELS)

    def _levels(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Round pixel values (n, D) to grey levels 0, 1, ..., at most 31; black stays black and white stays white."""
        values, highest = super()._to_bytes(rows), (self.n_bins_ or N_BINS_8_BIT) - 1  # type: ignore[misc]
        return np.rint(values * ((self._n_levels() - 1) / highest)).astype(np.uint8)

    def _from_levels(self, levels: NDArray[Any]) -> NDArray[Any]:
        """Convert grey levels, as the density samples them, to the value range of the training images."""
        low, high = self.value_range_ or (0, (self.n_bins_ or N_BINS_8_BIT) - 1)
        values = low + levels * ((high - low) / (self._n_levels() - 1))
        return values if self.value_range_ else np.rint(values).astype(np.uint8)

    def _unit_images(self: Any, X: Any) -> NDArray[np.float32]:
        """Convert X to the form of the statistics: (n, H, W, C), rounded, values in [0, 1]."""
        levels: NDArray[np.float32] = self._levels(self._rows(X)).astype(np.float32)
        scaled: NDArray[np.float32] = levels / np.float32(self._n_levels() - 1)
        return scaled.reshape(-1, *(self.image_shape_ or ()))

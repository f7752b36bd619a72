"""Images in few grey levels, as `OODDetector` sees them: noise that no eye sees is gone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._images import N_BINS_8_BIT
from flowdetect.detectors.rows import extent

N_LEVELS = 32  # grey levels that images are rounded to


class GreyLevels:
    """The part of a detector of images that rounds their values.

    Attributes
    ----------
    n_bins_ : int or None
        How many whole values a pixel takes; None: real ones.
    value_range_ : tuple of float (low, high) or None
        Of real values, those of the darkest and the brightest pixel.
    image_shape_ : tuple of int (H, W, C) or None
    """

    n_bins_: int | None
    value_range_: tuple[float, float] | None
    image_shape_: tuple[int, int, int] | None

    def _learn_levels(self, X: Any) -> None:
        """Learn how values become grey levels."""
        low, high, whole = extent(X)
        self.value_range_, self.n_bins_ = (low, high), None
        if low >= 0 and high < N_BINS_8_BIT and whole:
            self.value_range_, self.n_bins_ = None, max(2, 1 << int(high).bit_length())

    def _n_levels(self) -> int:
        return min(N_LEVELS, self.n_bins_ or N_LEVELS)

    def _levels(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Round pixel values, (n, D), to at most 32 grey levels, 0 and up; the darkest and the brightest stay such."""
        values, highest = super()._to_bytes(rows), (self.n_bins_ or N_BINS_8_BIT) - 1  # type: ignore[misc]
        return np.rint(values * ((self._n_levels() - 1) / highest)).astype(np.uint8)

    def _from_levels(self, levels: NDArray[Any]) -> NDArray[Any]:
        """Give grey levels, as the density draws them, in the range of values of the training images."""
        low, high = self.value_range_ or (0, (self.n_bins_ or N_BINS_8_BIT) - 1)
        values = low + levels * ((high - low) / (self._n_levels() - 1))
        return values if self.value_range_ else np.rint(values).astype(np.uint8)

    def _unit_images(self: Any, X: Any) -> NDArray[np.float32]:
        """Give images as the statistics take them: (n, H, W, C), rounded, values in [0, 1]."""
        levels: NDArray[np.float32] = self._levels(self._rows(X)).astype(np.float32)
        scaled: NDArray[np.float32] = levels / np.float32(self._n_levels() - 1)
        return scaled.reshape(-1, *(self.image_shape_ or ()))

"""The bootstrap over images, drawn once and used for many numbers.

A resample is how often each image was drawn. All scorers and transformations share the counts, so that they are
compared on the same resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TAIL = 0.025  # of a 95 % interval
Counts = NDArray[np.float32]  # (n_bootstrap, n_images); whole numbers, exact up to 2^24


def draw_counts(n_images: int, n_bootstrap: int, generator: np.random.Generator) -> Counts:
    """Draw n_images of n_images with replacement, n_bootstrap times, and count each image: (n_bootstrap, n_images)."""
    drawn = generator.integers(0, n_images, size=(n_bootstrap, n_images))
    drawn += n_images * np.arange(n_bootstrap)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n_bootstrap * n_images)
    return counts.reshape(n_bootstrap, n_images).astype(np.float32)


def interval_of(resampled: NDArray[np.floating]) -> tuple[float, float]:
    """Return the 95 % percentile interval of a number's resamples (n_bootstrap,)."""
    low, high = np.nanquantile(resampled, [TAIL, 1 - TAIL])  # NaN: none of a few scored images was drawn
    return float(low), float(high)


def resampled_means(values: NDArray[np.float64], counts: Counts) -> NDArray[np.float64]:
    """Mean of the values (n_images,) in each resample: (n_bootstrap,); NaN where none was drawn."""
    with np.errstate(invalid="ignore"):
        return counts @ values / counts.sum(axis=1)

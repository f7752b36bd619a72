"""The bootstrap over images, drawn once and used for many numbers.

A resample is how often each image was drawn. All scorers and transformations share the counts, so that they are
compared on the same resamples; an image and its transformed version are always resampled together.
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
    """Give the 95 % percentile interval of a number's resamples (n_bootstrap,)."""
    low, high = np.nanquantile(resampled, [TAIL, 1 - TAIL])  # NaN: none of a few scored images was drawn
    return float(low), float(high)


def resampled_means(values: NDArray[np.float64], counts: Counts) -> NDArray[np.float64]:
    """Mean of the values (n_images,) in each resample: (n_bootstrap,); NaN where none was drawn."""
    with np.errstate(invalid="ignore"):
        return counts @ values / counts.sum(axis=1)


class ResampledOut:
    """The positive class of an AUROC, in every resample; sorted once, compared with many sets.

    Parameters
    ----------
    scores : (n_out,) array, higher is more normal
    counts : (n_bootstrap, n_out) array
    """

    def __init__(self, scores: NDArray[np.float64], counts: Counts):
        order = np.argsort(scores)
        self._sorted = scores[order]
        self._n_below = np.zeros((len(counts), len(scores) + 1), dtype=np.float32)
        np.cumsum(np.take(counts, order, axis=1), axis=1, out=self._n_below[:, 1:])

    def auroc(self, scores_in: NDArray[np.float64], counts_in: Counts) -> NDArray[np.float64]:
        """P(s_out < s_in) + P(s_out = s_in) / 2 in every resample: (n_bootstrap,)."""
        low, high = (np.searchsorted(self._sorted, scores_in, side) for side in ("left", "right"))
        below: Counts = np.take(self._n_below, low, axis=1)
        if (low != high).any():  # ties count half
            below += np.take(self._n_below, high, axis=1)
            below /= 2
        pairs = counts_in.sum(axis=1, dtype=np.float64) * self._n_below[:, -1]
        with np.errstate(invalid="ignore"):  # NaN where none was drawn
            return np.einsum("bi,bi->b", counts_in, below, dtype=np.float64) / pairs

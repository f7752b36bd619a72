"""What a score is compared with: how rare it is, or how dense, among known ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

TAIL_SHARE = 0.05  # of the known scores; the exponential through them goes on below


def log_p_value(scores: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the p-value of each score by known ones, sorted; below their lowest 5 % an exponential tail."""
    p_values = (1 + np.searchsorted(known, scores, side="right")) / (1 + len(known))
    n_tail = max(1, int(TAIL_SHARE * len(known)))
    threshold = known[n_tail]
    rate = float(np.mean(threshold - known[:n_tail])) or 1.0
    at_threshold = np.log((1 + n_tail) / (1 + len(known)))
    return np.where(scores < threshold, at_threshold - (threshold - scores) / rate, np.log(p_values))


def log_kernel_density(statistics: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the columns of (n, J) statistics of the logarithm of each one's kernel density by known rows: (n,).

    Statistics are standardised; kernels are Gaussian, their width by Scott's rule.
    """
    scaler = StandardScaler().set_output(transform="default").fit(known)
    columns, asked = scaler.transform(known).T, scaler.transform(statistics).T  # (J, n)
    kernels = (KernelDensity(bandwidth="scott").fit(column[:, None]) for column in columns)
    return np.sum([kernel.score_samples(each[:, None]) for kernel, each in zip(kernels, asked, strict=True)], axis=0)


def log_copula_tail(statistics: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """COPOD's score of (n, J) statistics by known rows (Li et al. 2020, algorithm 1), times -1: (n,).

    The least of three sums over the columns: of the logarithms of the left tails' probabilities, of the right ones',
    and of that tail's on whose side the known values are skewed.
    """
    columns = [np.sort(column) for column in known.T]
    left = np.stack([log_p_value(each, column) for each, column in zip(statistics.T, columns, strict=True)])
    right = np.stack([log_p_value(-each, -column[::-1]) for each, column in zip(statistics.T, columns, strict=True)])
    is_right = np.array([((column - column.mean()) ** 3).mean() > 0 for column in columns])
    skewed = np.where(is_right[:, None], right, left)
    return np.min([left.sum(axis=0), right.sum(axis=0), skewed.sum(axis=0)], axis=0)

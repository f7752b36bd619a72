"""Calibration: how rare, or how probable, a score is among the scores of known rows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from flowdetect._ctrl_c import whole_imports
from flowdetect._warning import warn

OUTLIER, NORMAL = -1, 1
TAIL_SHARE = 0.05  # share of the known scores that an exponential tail is fitted to
FEWEST_IN_TAIL = 10  # scores
SMALLEST_SHARE = 1e-9
PERMUTED_AT_ONCE = 2_000_000  # values
ROUNDING = 1e-12  # relative; sums and products that differ by less are equal


def log_p_value(scores: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log p-value of each score among sorted known scores, with an exponential tail below their lowest 5 %."""
    p_values = (1 + np.searchsorted(known, scores, side="right")) / (1 + len(known))
    n_tail = max(1, int(TAIL_SHARE * len(known)))
    threshold = known[n_tail]
    rate = float(np.mean(threshold - known[:n_tail])) or 1.0
    at_threshold = np.log((1 + n_tail) / (1 + len(known)))
    return np.where(scores < threshold, at_threshold - (threshold - scores) / rate, np.log(p_values))


def select_by_p_values(p_values: NDArray[np.float64], fdr: float, n_known: int) -> NDArray[np.int_]:
    """Label rows by their p-values, -1 or +1, with a false discovery rate of at most `fdr`.

    Warns if the known scores are too few for a single outlier to be selected.
    """
    n_together = math.ceil(len(p_values) / (fdr * (1 + n_known)) * (1 - ROUNDING))
    if n_together > 1:
        n_needed = math.ceil(len(p_values) / fdr * (1 - ROUNDING)) - 1
        warn(
            f"select compares {len(p_values)} rows with {n_known} calibration scores. At fdr={fdr:g} it finds outliers "
            f"only if at least {n_together} rows score below all of these; to find a single one it needs {n_needed}. "
            f"Fit on more rows, with a larger calibration_fraction or with cv=5, or give select fewer rows or a "
            f"larger fdr."
        )
    adjusted = false_discovery_control(p_values, method="bh")
    return np.where(adjusted <= fdr * (1 + ROUNDING), OUTLIER, NORMAL)


def log_kernel_density(statistics: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-density of (n, J) statistics, as the product of one kernel density for each column: (n,).

    Statistics are standardised by the known rows. Kernels are Gaussian; Scott's rule sets their width.
    """
    with whole_imports():
        from sklearn.neighbors import KernelDensity
        from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().set_output(transform="default").fit(known)
    columns, asked = scaler.transform(known).T, scaler.transform(statistics).T  # (J, n)
    kernels = (KernelDensity(bandwidth="scott").fit(column[:, None]) for column in columns)
    return np.sum([kernel.score_samples(each[:, None]) for kernel, each in zip(kernels, asked, strict=True)], axis=0)


def outlier_probability(
    scores: NDArray[np.float64], known: NDArray[np.float64], threshold: float
) -> NDArray[np.float64]:
    """Probability that each score belongs to an outlier, given sorted known scores; above 1/2 below the threshold.

    The formula is in `Verdicts.predict_proba`.
    """
    q = float(np.clip(_share_below(np.array([threshold]), known)[0], SMALLEST_SHARE, 1 - SMALLEST_SHARE))
    u = _share_below(scores, known)
    power = max(2 * (1 - q) / q - 1, 1.0)
    below = np.clip(1 - u / (2 * q), np.nextafter(0.5, 1), 1)
    above = np.clip((1 - u) / (1 - q), 0, 1) ** power / 2
    return np.where(scores < threshold, below, above)  # compares scores: different scores may have equal shares


def _share_below(scores: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of rows that score lower, in (0, 1): linear between known scores, exponential below the lowest."""
    values, counts = np.unique(known, return_counts=True)
    shares = np.cumsum(counts) / (1 + len(known))
    n_tail = min(len(known) - 1, max(FEWEST_IN_TAIL, int(TAIL_SHARE * len(known))))
    rate = float(np.mean(known[n_tail] - known[:n_tail])) if known[n_tail] > known[0] else 1.0
    tail = shares[0] * np.exp(np.minimum(scores - values[0], 0) / rate)
    return np.where(scores < values[0], tail, np.interp(scores, values, shares))


def two_sample_p_value(
    batch: NDArray[np.float64], known: NDArray[np.float64], n_permutations: int, random: np.random.Generator
) -> tuple[float, float]:
    """Compute the two-sample Anderson-Darling statistic, and its p-value by random permutations.

    Pettitt, "A two-sample Anderson-Darling rank statistic" (1976), with ties as in Scholz and Stephens (1987).
    """
    pooled = np.concatenate([known, batch])
    order, n_rows = np.argsort(pooled, kind="stable"), len(pooled)
    values, in_batch = pooled[order], order >= len(known)
    last = np.flatnonzero(
        values[1:] != values[:-1]
    )  # last index of each group of equal values, without the largest value
    n_up_to = last + 1.0
    weights = np.diff(n_up_to, prepend=0.0) / (n_up_to * (n_rows - n_up_to)) / (len(known) * len(batch))

    def statistics(members: NDArray[np.bool_]) -> NDArray[np.float64]:
        up_to = np.cumsum(members, axis=-1)[..., last]
        return np.asarray((n_rows * up_to - len(batch) * n_up_to) ** 2 @ weights)

    found = float(statistics(in_batch))
    at_once = max(1, PERMUTED_AT_ONCE // n_rows)
    n_larger = 0
    for start in range(0, n_permutations, at_once):
        rows = (min(at_once, n_permutations - start), n_rows)
        permuted = random.permuted(np.broadcast_to(in_batch, rows), axis=1)
        n_larger += int((statistics(permuted) >= found * (1 - ROUNDING)).sum())
    return found, (1 + n_larger) / (1 + n_permutations)


def log_copula_tail(statistics: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minus the COPOD score of (n, J) statistics, given known rows (Li et al. 2020, algorithm 1): (n,).

    It is the least of three sums of log tail probabilities over the columns: left tails, right tails, and for each
    column the tail to which its known values are skewed.
    """
    columns = [np.sort(column) for column in known.T]
    left = np.stack([log_p_value(each, column) for each, column in zip(statistics.T, columns, strict=True)])
    right = np.stack([log_p_value(-each, -column[::-1]) for each, column in zip(statistics.T, columns, strict=True)])
    is_right = np.array([((column - column.mean()) ** 3).mean() > 0 for column in columns])
    skewed = np.where(is_right[:, None], right, left)
    return np.min([left.sum(axis=0), right.sum(axis=0), skewed.sum(axis=0)], axis=0)

"""The fixed first map of a flow: choose it, learn it from the training rows, build it.

Also the Gaussian and the Gaussian copula from which a flow of tables may start. A Gaussian copula maps each column to a
normal distribution and models the result as Gaussian. Both are sound starts even with few rows; training improves on
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowdetect._ctrl_c import whole_imports
from flowdetect._images import count_values
from flowdetect._limits import is_number, short
from flowdetect._sources import RowSource, Subset, chunks, sample_rows
from flowdetect.bijections import Chain, Gaussianize, Layer, Logit, PiecewiseLinear, Rescale, Whiten
from flowdetect.bijections.elementwise import TAIL as COUNTS_TAIL
from flowdetect.bijections.elementwise import UNIFORM_SHARE as COUNTS_UNIFORM_SHARE
from flowdetect.density.spec import DataSpec
from flowdetect.distributions import standard_normal_log_prob

# for quantile_knots; widths are in standard deviations
LINES, ROWS_PER_LINE, LEAST_WIDTH, UNIFORM_SHARE, TAIL = (4, 64), 20, 1e-4, 0.1, 0.002
FEWEST_ROWS = 20  # for a copula
LEAST_GAIN = 0.25  # nats per row; smaller gains are learned in training, without corners between lines
MOST_ROWS = 20_000  # about; rows for quantiles and covariances
ROWS_A_COLUMN = 4  # with fewer, the covariance is always shrunk
LEAST_VARIANCE = 1e-8  # for columns of variance 1
LEAST_LOGIT_RANGE = 0.01  # between the limits of the logit's argument


def check_logit_range(logit_range: Any, name: str) -> tuple[float, float]:
    """Check the limits of the logit's argument and return them."""
    ends = logit_range if isinstance(logit_range, tuple | list) else ()
    is_range = len(ends) == 2 and all(is_number(end) for end in ends) and 0 <= ends[0] <= ends[1] - LEAST_LOGIT_RANGE
    if not is_range or ends[1] > 1:
        raise ValueError(
            f"{name}: logit_range must be two numbers (low, high) with 0 <= low < high <= 1, at least "
            f"{LEAST_LOGIT_RANGE} apart so that float32 tells the bins apart, got {short(logit_range)}; pass e.g. "
            f"(0.05, 0.95)."
        )
    return float(ends[0]), float(ends[1])


def check_preprocessing(spec: DataSpec, preprocessing: str, name: str) -> None:
    """Refuse a first map that does not suit the data."""
    kinds = {"logit": "data in bins"}
    if not spec.is_table:
        kinds["gaussianize"] = "data in bins and for tables"
    if spec.n_bins is None and preprocessing in kinds:
        raise ValueError(
            f'{name}: preprocessing="{preprocessing}" is for {kinds[preprocessing]}, but X is '
            f'real-valued{"" if spec.is_table else " images"}; pass "auto" or "linear", or n_bins if X holds whole '
            f"numbers."
        )


def learn_preprocessing(
    spec: DataSpec, source: RowSource, preprocessing: str, constant_volume: bool, start: str
) -> dict[str, NDArray[Any]]:
    """Learn the arrays of the first map: value_counts, knots, or none.

    Parameters
    ----------
    spec : DataSpec
    source : RowSource
        The training rows.
    preprocessing : "auto", "gaussianize", "logit" or "linear"
    constant_volume : bool
        Whether the log-determinant of the learned layers is the same for all x; "auto" then chooses a map with constant
        log-determinant.
    start : "linear" or "likelier"
        The map of "auto" for real-valued tables: linear, or whichever of both has the higher likelihood.
    """
    if preprocessing in ("linear", "logit") or (preprocessing == "auto" and constant_volume):
        return {}
    if spec.n_bins is not None:
        halves = [count_all(spec, Subset(source, np.arange(first, len(source), 2))) for first in (0, 1)]
        if preprocessing == "auto" and not counts_are_likelier(*halves):
            return {}
        return {"value_counts": halves[0] + halves[1]}
    if not spec.is_table:
        return {}
    rows = spec.standardized(sample_rows(source, MOST_ROWS))
    if preprocessing == "gaussianize" or (start == "likelier" and copula_is_likelier(rows)):
        return {"knots": quantile_knots(rows)}
    return {}


def build_preprocessing(spec: DataSpec, preprocessing: str, logit_range: tuple[float, float]) -> Layer:
    """Build the first map from the learned arrays."""
    if "value_counts" in spec.learned:
        return Gaussianize(torch.from_numpy(np.array(spec.learned["value_counts"])))
    if spec.n_bins is not None and preprocessing == "logit":
        return Logit(spec.n_bins, *logit_range)
    # real values are already standardised; files of format 1 store mean and scale here
    loc, scale = (0.0, 1.0) if spec.n_bins is None else (spec.n_bins / 2, float(spec.n_bins))
    rescale = Rescale(
        torch.tensor(loc, dtype=torch.float32), torch.tensor(scale, dtype=torch.float32), spec.event_shape
    )
    if "knots" not in spec.learned:
        return rescale
    x_knots, z_knots = torch.from_numpy(spec.learned["knots"].astype(np.float32))
    return Chain([rescale, PiecewiseLinear(x_knots, z_knots)])


def count_all(spec: DataSpec, source: RowSource) -> NDArray[np.int64]:
    """Count how often each value occurs in each channel: (C, n_bins)."""
    assert spec.n_bins is not None
    channels = spec.event_shape[0]
    total = np.zeros((channels, spec.n_bins), dtype=np.int64)
    for _, rows in chunks(source):
        total += count_values(rows, channels, spec.n_bins)
    return total


def counts_are_likelier(here: NDArray[np.int64], there: NDArray[np.int64]) -> bool:
    """Whether the values of one half fit the other half's counts better than its normal distribution."""
    n_bins = here.shape[1]
    values = np.arange(n_bins)
    n = here.sum(1, keepdims=True)
    if not n.all() or not there.sum():
        return True
    share = here / n
    mass = (share + COUNTS_UNIFORM_SHARE / n_bins) / (1 + COUNTS_UNIFORM_SHARE) * (1 - 2 * COUNTS_TAIL)
    mean = (share * values).sum(1, keepdims=True)
    variance = (share * (values - mean) ** 2).sum(1, keepdims=True) + 1 / 12  # variance of the uniform noise in a bin
    normal = -0.5 * ((values - mean) ** 2 / variance + np.log(2 * np.pi * variance))
    return bool((there * np.log(mass)).sum() >= (there * normal).sum())


def quantile_knots(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Knots of a piecewise linear map of each column to roughly normal: (2, D, K + 1), x and z = Phi^-1(F(x)).

    The x are quantiles, one per 20 rows, for 4 to 64 lines; the outermost lie just beyond the smallest and the largest
    value. F is their level, mixed with a tenth of the uniform distribution and clipped to 0.002 from 0 and 1.
    """
    n_lines = min(max(LINES[0], len(rows) // ROWS_PER_LINE), LINES[1])
    share = np.linspace(0, 1, n_lines + 1)
    x = np.quantile(rows, share, axis=0).T
    margin = np.ptp(rows, axis=0) / (2 * len(rows))
    x[:, 0], x[:, -1] = x[:, 0] - margin, x[:, -1] + margin
    apart = LEAST_WIDTH * np.arange(n_lines + 1)  # separates ties
    x = np.maximum.accumulate(x - apart, axis=1) + apart
    uniform = (x - x[:, :1]) / (x[:, -1:] - x[:, :1])
    F = (1 - UNIFORM_SHARE) * share + UNIFORM_SHARE * uniform
    z = torch.special.ndtri(torch.from_numpy(TAIL + (1 - 2 * TAIL) * F)).numpy()
    return np.stack([x, z])


def copula_is_likelier(rows: NDArray[np.float64]) -> bool:
    """Whether one half of standardised rows fits the other half's copula clearly better than its Gaussian."""
    if len(rows) < FEWEST_ROWS:
        return False
    here, there = rows[::2], torch.from_numpy(rows[1::2, :, None, None].copy())
    x_knots, z_knots = torch.from_numpy(quantile_knots(here))
    scores = []
    for preprocess in (Chain([]), PiecewiseLinear(x_knots, z_knots)):
        start = Chain([preprocess, Whiten(torch.from_numpy(whitening(here, preprocess)))])
        z, log_det = start(there)
        scores.append(float((standard_normal_log_prob(z.flatten(1)).sum(1) + log_det).mean()))
    return scores[1] > scores[0] + LEAST_GAIN


def whitening(rows: NDArray[Any], preprocess: Layer) -> NDArray[np.float64]:
    """Inverse Cholesky factor of the covariance of preprocessed rows, (D, D).

    The covariance is the sample covariance, or the one with Oracle Approximating Shrinkage (Chen et al. 2010),
    whichever, fitted to one half of the rows, gives the other half the higher likelihood.
    """
    with whole_imports():
        from sklearn.covariance import empirical_covariance, oas

    z = preprocess(torch.from_numpy(np.array(rows, np.float64)[:, :, None, None]))[0].flatten(1).numpy()
    estimates: list[Callable[[NDArray[np.float64]], NDArray[np.float64]]] = [lambda values: oas(values)[0]]
    if len(z) > ROWS_A_COLUMN * z.shape[1]:
        estimates.append(empirical_covariance)
    if len(estimates) == 1:  # nothing to compare: half of two rows has no covariance
        return inverse_factor(estimates[0](z))
    weights = [inverse_factor(estimate(z[::2])) for estimate in estimates]
    scores = [np.log(weight.diagonal()).sum() - 0.5 * ((z[1::2] @ weight.T) ** 2).sum(1).mean() for weight in weights]
    return inverse_factor(estimates[int(np.argmax(scores))](z))


def inverse_factor(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """L^-1 of a covariance L L^T, with a small constant added to its diagonal."""
    return np.linalg.inv(np.linalg.cholesky(covariance + LEAST_VARIANCE * np.eye(len(covariance))))

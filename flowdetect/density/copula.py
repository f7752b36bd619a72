"""The Gaussian and the Gaussian copula that the flow of a table may start at.

A Gaussian copula maps each column by itself to a normal one, and takes the result for Gaussian; both are as good as
they are with few rows, and what training adds to them is gain.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import empirical_covariance, oas

from flowdetect.bijections import Bijection, Chain, PiecewiseLinear, Whiten
from flowdetect.distributions import standard_normal_log_prob

# of quantile_knots; widths are in standard deviations
LINES, ROWS_PER_LINE, LEAST_WIDTH, UNIFORM_SHARE, TAIL = (4, 64), 20, 1e-4, 0.1, 0.002
FEWEST_ROWS = 20  # for a copula
LEAST_GAIN = 0.25  # nats a row; what is less, training finds by itself, and without the lines' corners
MOST_ROWS = 20_000  # about, of which covariances are taken
ROWS_A_COLUMN = 4  # with fewer, a covariance is shrunk in any case
LEAST_VARIANCE = 1e-8  # of columns of variance 1


def quantile_knots(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Knots of lines that make each column's distribution about normal: (2, D, K + 1), x and z = Phi^-1(F(x)).

    The x are quantiles, one for 20 rows, 4 to 64 lines in all, and just beyond the least and the largest value; F is
    their share, mixed with a tenth of the uniform distribution and cut off at 0.002 from either end.
    """
    n_lines = min(max(LINES[0], len(rows) // ROWS_PER_LINE), LINES[1])
    share = np.linspace(0, 1, n_lines + 1)
    x = np.quantile(rows, share, axis=0).T
    margin = np.ptp(rows, axis=0) / (2 * len(rows))
    x[:, 0], x[:, -1] = x[:, 0] - margin, x[:, -1] + margin
    apart = LEAST_WIDTH * np.arange(n_lines + 1)  # ties are pulled apart
    x = np.maximum.accumulate(x - apart, axis=1) + apart
    uniform = (x - x[:, :1]) / (x[:, -1:] - x[:, :1])
    F = (1 - UNIFORM_SHARE) * share + UNIFORM_SHARE * uniform
    z = torch.special.ndtri(torch.from_numpy(TAIL + (1 - 2 * TAIL) * F)).numpy()
    return np.stack([x, z])


def thinned(rows: NDArray[Any]) -> NDArray[Any]:
    """Every k-th row, so that about as many are left as a covariance needs."""
    return rows[:: max(1, len(rows) // MOST_ROWS)]


def copula_is_likelier(rows: NDArray[np.float64]) -> bool:
    """Whether half of standardised rows are clearly likelier under the copula of the other half than its Gaussian."""
    if len(rows) < FEWEST_ROWS:
        return False
    rows = thinned(rows)
    here, there = rows[::2], torch.from_numpy(rows[1::2, :, None, None].copy())
    x_knots, z_knots = torch.from_numpy(quantile_knots(here))
    scores = []
    for preprocess in (Chain([]), PiecewiseLinear(x_knots, z_knots)):
        start = Chain([preprocess, Whiten(torch.from_numpy(whitening(here, preprocess)))])
        z, log_det = start(there)
        scores.append(float((standard_normal_log_prob(z.flatten(1)).sum(1) + log_det).mean()))
    return scores[1] > scores[0] + LEAST_GAIN


def whitening(rows: NDArray[Any], preprocess: Bijection) -> NDArray[np.float64]:
    """Inverse Cholesky factor of the covariance of preprocessed rows, (D, D).

    The covariance is the rows' own or, where half of them are likelier so under that of the other half, the one with
    Oracle Approximating Shrinkage (Chen et al. 2010).
    """
    z = preprocess(torch.from_numpy(np.array(rows, np.float64)[:, :, None, None]))[0].flatten(1).numpy()
    estimates = [lambda values: oas(values)[0]]
    if len(z) > ROWS_A_COLUMN * z.shape[1]:
        estimates.append(empirical_covariance)
    weights = [inverse_factor(estimate(z[::2])) for estimate in estimates]
    scores = [np.log(weight.diagonal()).sum() - 0.5 * ((z[1::2] @ weight.T) ** 2).sum(1).mean() for weight in weights]
    return inverse_factor(estimates[int(np.argmax(scores))](z))


def inverse_factor(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """L^-1 of a covariance L L^T, with a little added to its diagonal."""
    return np.linalg.inv(np.linalg.cholesky(covariance + LEAST_VARIANCE * np.eye(len(covariance))))

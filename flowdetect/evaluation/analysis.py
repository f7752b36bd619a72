"""Why one set is likelier than another: a density expanded to second order around the mean of its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._images import to_rows
from flowdetect.evaluation.resampling import draw_counts, interval_of, resampled_means

STEP = 0.02  # of the way from the mean to a row, for derivatives along it
N_BOOTSTRAP = 1000


@dataclass(frozen=True)
class SecondOrderGap:
    """What `second_order_gap` found; nats, all but the moments.

    Attributes
    ----------
    measured : float
        Mean log p of X_out minus that of X_in; above 0 where the other set is likelier.
    measured_low, measured_high : float
        95 % bootstrap interval over rows.
    first_order, second_order : float
        What the slope and the curvature at the mean predict for it.
    variance_in, variance_out : (D,) arrays
        Of each feature, around the set's own mean.
    mean_in, mean_out : (D,) arrays
    image_shape : tuple of int (H, W, C) or None
    """

    measured: float
    measured_low: float
    measured_high: float
    first_order: float
    second_order: float
    variance_in: NDArray[np.float64]
    variance_out: NDArray[np.float64]
    mean_in: NDArray[np.float64]
    mean_out: NDArray[np.float64]
    image_shape: tuple[int, int, int] | None

    def by_channel(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum a (D,) array over the pixels of each channel: (C,); of a table, (D,) as it is."""
        return values if self.image_shape is None else values.reshape(-1, self.image_shape[2]).sum(axis=0)

    def __str__(self) -> str:
        return (
            f"mean log p outside minus inside, nats: measured {self.measured:+.1f} "
            f"[{self.measured_low:+.1f}, {self.measured_high:+.1f}]; "
            f"predicted {self.first_order + self.second_order:+.1f}, "
            f"of first order {self.first_order:+.1f}, of second {self.second_order:+.1f}"
        )


def second_order_gap(density: Any, X_in: Any, X_out: Any, *, random_state: int | None = 0) -> SecondOrderGap:
    r"""Predict from the slope and the curvature at the mean which of two sets is likelier, beside what is measured.

    With log p expanded around :math:`x_0`, the mean of X_in,

    .. math::
        E_q[\log p] - E_p[\log p] \approx \nabla \log p(x_0)^T \left(E_q[x] - E_p[x]\right)
        + \frac{1}{2} \operatorname{Tr}\left\{\nabla^2 \log p(x_0) \, (\Sigma_q - \Sigma_p)\right\},
        \quad \Sigma = E\left[(x - x_0)(x - x_0)^T\right]

    p being the distribution of X_in, q that of X_out. A set that lies inside the other one, with about its mean and
    less variance, is likelier wherever the curvature is negative.

    Parameters
    ----------
    density : fitted density with `score_samples`
        In bins it is asked at the bins' centres, without noise. A conditional one is asked without labels.
    X_in, X_out : (n, D) arrays, or images
    random_state : int or None, default=0
        Draws the bootstrap's resamples.

    Returns
    -------
    gap : SecondOrderGap

    Raises
    ------
    TypeError
        If the density has no `score_samples`, or is an ensemble.
    ValueError
        If the rows do not fit the density.

    Notes
    -----
    The trace is half the mean of the second derivatives along the ways from x0 to the rows, which are taken as central
    differences over 2 % of each way; so the whole Hessian is in it, at the price of two scores a row. The paper
    keeps the Hessian's diagonal, drops the first term, and gives variances summed over a channel's pixels, of values in
    [0, 1); ours are in the squared unit of X. Of correlated features, as pixels are, the diagonal alone can have the
    wrong size by orders of magnitude. The expansion is local, and where log p has kinks near the mean it says little.

    References
    ----------
    "Do Deep Generative Models Know What They Don't Know?" (Nalisnick et al., 2019),
    https://arxiv.org/abs/1810.09136, section 5, equations 4 and 5.

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import GlowDensity
    >>> from flowdetect.evaluation import second_order_gap
    >>> random = np.random.default_rng(0)
    >>> X, X_inside = random.normal(size=(500, 2)), random.normal(scale=0.5, size=(500, 2))
    >>> density = GlowDensity(n_steps=2, hidden_channels=16, max_epochs=20, random_state=0).fit(X)
    >>> gap = second_order_gap(density, X, X_inside)
    >>> bool(gap.measured > 0), bool(gap.second_order > 0)
    (True, True)
    """
    if not hasattr(density, "score_samples") or hasattr(density, "member_scores"):
        raise TypeError(
            f"second_order_gap needs one fitted density with score_samples, such as GlowDensity(), got "
            f"{type(density).__name__}; of an ensemble take one of its members_."
        )
    image_shape = getattr(density, "image_shape_", None)
    rows_in, rows_out = (np.asarray(to_rows(X, image_shape)[0], dtype=np.float64) for X in (X_in, X_out))
    scores_in, scores_out = (np.asarray(density.score_samples(rows), dtype=np.float64) for rows in (rows_in, rows_out))
    low, high = _interval(scores_in, scores_out, np.random.default_rng(random_state))
    x0 = rows_in.mean(axis=0)
    slope_in, bend_in = _derivatives(density, x0, rows_in - x0)
    slope_out, bend_out = _derivatives(density, x0, rows_out - x0)
    return SecondOrderGap(
        measured=float(scores_out.mean() - scores_in.mean()),
        measured_low=low,
        measured_high=high,
        first_order=slope_out - slope_in,
        second_order=(bend_out - bend_in) / 2,
        variance_in=rows_in.var(axis=0),
        variance_out=rows_out.var(axis=0),
        mean_in=x0,
        mean_out=rows_out.mean(axis=0),
        image_shape=image_shape,
    )


def _derivatives(density: Any, x0: NDArray[np.float64], ways: NDArray[np.float64]) -> tuple[float, float]:
    """Mean first and second derivative of log p at x0 along the ways (n, D), nats."""
    ahead, behind = (_at_centres(density, x0 + sign * STEP * ways) for sign in (1, -1))
    here = _at_centres(density, x0[None])
    return float(np.mean(ahead - behind)) / (2 * STEP), float(np.mean(ahead + behind - 2 * here)) / STEP**2


def _at_centres(density: Any, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score without dequantisation noise, which would drown a difference."""
    noiseless = {"dequantize": False} if hasattr(density, "n_bins_") else {}
    return np.asarray(density.score_samples(rows, **noiseless), dtype=np.float64)


def _interval(
    scores_in: NDArray[np.float64], scores_out: NDArray[np.float64], generator: np.random.Generator
) -> tuple[float, float]:
    means = [
        resampled_means(scores, draw_counts(len(scores), N_BOOTSTRAP, generator)) for scores in (scores_in, scores_out)
    ]
    return interval_of(means[1] - means[0])

"""Why one set has a higher likelihood than another: a second-order expansion of log p around the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowdetect._frames import like
from flowdetect._images import to_rows
from flowdetect._limits import check_seed
from flowdetect._protocols import Density
from flowdetect.evaluation.resampling import draw_counts, interval_of, resampled_means
from flowdetect.evaluation.scoring import set_in_memory

N_BOOTSTRAP = 1000
AT_ONCE = 1024  # rows converted to float64 at a time


@dataclass(frozen=True)
class SecondOrderGap:
    """The result of `second_order_gap`; in nats, except the moments.

    Attributes
    ----------
    measured : float
        Mean log p of X_out minus that of X_in; above 0 if X_out has the higher likelihood.
    measured_low, measured_high : float
        95 % bootstrap interval over rows.
    first_order, second_order : float
        Parts of the predicted gap: from the gradient and from the curvature at the mean.
    variance_in, variance_out : (D,) arrays
        Variance of each feature around the mean of its own set.
    mean_in, mean_out : (D,) arrays
    image_shape : tuple of int (H, W, C) or None

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import GlowDensity, second_order_gap
    >>> random = np.random.default_rng(0)
    >>> X, X_inside = random.normal(size=(500, 2)), random.normal(scale=0.5, size=(500, 2))
    >>> density = GlowDensity(n_steps=2, hidden_channels=16, max_epochs=20, random_state=0).fit(X)
    >>> gap = second_order_gap(density, X, X_inside)
    >>> bool((gap.variance_in > gap.variance_out).all())
    True
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
        """Sum a (D,) array over the pixels of each channel: (C,); for a table it is unchanged."""
        return values if self.image_shape is None else values.reshape(-1, self.image_shape[2]).sum(axis=0)

    def __str__(self) -> str:
        return (
            f"mean log p outside minus inside, nats: measured {self.measured:+.1f} "
            f"[{self.measured_low:+.1f}, {self.measured_high:+.1f}]; "
            f"predicted {self.first_order + self.second_order:+.1f}, "
            f"of first order {self.first_order:+.1f}, of second {self.second_order:+.1f}"
        )


def second_order_gap(
    density: Density, X_in: ArrayLike, X_out: ArrayLike, *, random_state: int | None = 0
) -> SecondOrderGap:
    r"""Predict the difference of the mean log p of two sets from derivatives at the mean, and measure it.

    The expansion of log p around :math:`x_0`, the mean of X_in, is

    .. math::
        E_q[\log p] - E_p[\log p] \approx \nabla \log p(x_0)^T \left(E_q[x] - E_p[x]\right)
        + \frac{1}{2} \operatorname{Tr}\left\{\nabla^2 \log p(x_0) \, (\Sigma_q - \Sigma_p)\right\},
        \quad \Sigma = E\left[(x - x_0)(x - x_0)^T\right]

    where p is the distribution of X_in and q that of X_out. A set that lies inside the other one, with about the same
    mean and less variance, has a higher likelihood if the curvature is negative.

    Parameters
    ----------
    density : fitted density with `directional_derivatives`
        Any density of flowdetect, but no ensemble, pipeline or detector. A conditional density is used without labels.
    X_in, X_out : (n, D) arrays or frames, or images
    random_state : int or None, default=0
        Seed of the bootstrap.

    Returns
    -------
    gap : SecondOrderGap

    Raises
    ------
    TypeError
        If the density has no `directional_derivatives`.
    ValueError
        If the rows do not match the density.

    Notes
    -----
    The trace uses the whole Hessian. It is computed from second directional derivatives of log p at x0 along the
    directions from x0 to the rows: their mean over X_out minus their mean over X_in. Derivatives are computed by
    autograd in float64, for data in bins at the centres of the bins, and cost about six scores for each row.

    The paper uses only the variances, assumes equal means, and sums the variances over the pixels of a channel, for
    values in [0, 1); ours are in the squared unit of X. For correlated features, such as pixels, the variances alone
    can be wrong by orders of magnitude. The expansion is local, and images are far from their mean. A ReLU network is
    piecewise linear, and no derivative at a point includes the effect of its kinks.

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
    if not hasattr(density, "directional_derivatives"):
        raise TypeError(
            "second_order_gap needs a fitted density with directional_derivatives, such as GlowDensity(), got "
            f"{type(density).__name__}; for an ensemble, pipeline or detector, pass its density."
        )
    image_shape = getattr(density, "image_shape_", None)
    check_seed(random_state)
    X_in, X_out = set_in_memory("X_in", X_in), set_in_memory("X_out", X_out)
    scores_in, scores_out = (np.asarray(density.score_samples(X), dtype=np.float64) for X in (X_in, X_out))
    low, high = _interval(scores_in, scores_out, np.random.default_rng(random_state))
    rows_in, rows_out = (_rows_of(X, image_shape) for X in (X_in, X_out))
    x0 = rows_in.mean(axis=0, dtype=np.float64)
    start = _as_frame_like(X_in, x0)
    slope_in, bend_in = _mean_derivatives(density, start, x0, rows_in)
    slope_out, bend_out = _mean_derivatives(density, start, x0, rows_out)
    return SecondOrderGap(
        measured=float(scores_out.mean() - scores_in.mean()),
        measured_low=low,
        measured_high=high,
        first_order=slope_out - slope_in,
        second_order=(bend_out - bend_in) / 2,
        variance_in=_variance(rows_in),
        variance_out=_variance(rows_out),
        mean_in=x0,
        mean_out=rows_out.mean(axis=0, dtype=np.float64),
        image_shape=image_shape,
    )


def _rows_of(X: Any, image_shape: Any) -> NDArray[Any]:
    """Return (n, D) rows of numbers, without a copy if X has numbers."""
    rows = np.asarray(to_rows(X, image_shape)[0])
    return rows if rows.dtype.kind in "iuf" else rows.astype(np.float64)


def _as_frame_like(X: Any, x0: NDArray[np.float64]) -> Any:
    """Return one row (1, D), as a frame with the columns of X if X is a frame."""
    return like(X, x0[None]) if hasattr(X, "columns") else x0[None]


def _mean_derivatives(density: Density, start: Any, x0: NDArray[np.float64], rows: NDArray[Any]) -> tuple[float, float]:
    """Mean first and second derivatives of log p at x0, along the directions from x0 to the rows (n, D)."""
    found = [
        density.directional_derivatives(start, rows[i : i + AT_ONCE].astype(np.float64) - x0)
        for i in range(0, len(rows), AT_ONCE)
    ]
    first, second = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return float(first.mean()), float(second.mean())


def _variance(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Variance of each column, (D,), in float64 without a float64 copy of all rows."""
    mean = rows.mean(axis=0, dtype=np.float64)
    squares = (np.square(rows[i : i + AT_ONCE] - mean).sum(axis=0) for i in range(0, len(rows), AT_ONCE))
    return np.sum(list(squares), axis=0) / len(rows)


def _interval(
    scores_in: NDArray[np.float64], scores_out: NDArray[np.float64], generator: np.random.Generator
) -> tuple[float, float]:
    means = [
        resampled_means(scores, draw_counts(len(scores), N_BOOTSTRAP, generator)) for scores in (scores_in, scores_out)
    ]
    return interval_of(means[1] - means[0])

"""Why one set is likelier than another: a density expanded to second order around the mean of its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._images import to_rows
from flowdetect.evaluation.resampling import draw_counts, interval_of, resampled_means

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
    density : fitted density with `directional_derivatives`
        Each of this package's own, alone: no ensemble, pipeline or detector. A conditional one is asked without labels.
    X_in, X_out : (n, D) arrays or frames, or images
    random_state : int or None, default=0
        Draws the bootstrap's resamples.

    Returns
    -------
    gap : SecondOrderGap

    Raises
    ------
    TypeError
        If the density has no `directional_derivatives`.
    ValueError
        If the rows do not fit the density.

    Notes
    -----
    The trace is the mean, over the rows of X_out less that over X_in, of the second derivatives of log p at x0 along
    the ways to the rows: the whole Hessian is in it. Derivatives are autograd's, in float64, in bins at their centres,
    and cost some six scores a row. The paper keeps the variances alone, takes the means as equal, and sums variances
    over a channel's pixels, of values in [0, 1); ours are in the squared unit of X. Of correlated features, as pixels
    are, variances alone can have the wrong size by orders of magnitude. The expansion is local, and images are far
    from their mean; a network of ReLUs is piecewise linear, and what its kinks add is in no derivative at a point.

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
            f"{type(density).__name__}; of an ensemble, pipeline or detector take the density within."
        )
    image_shape = getattr(density, "image_shape_", None)
    scores_in, scores_out = (np.asarray(density.score_samples(X), dtype=np.float64) for X in (X_in, X_out))
    low, high = _interval(scores_in, scores_out, np.random.default_rng(random_state))
    rows_in, rows_out = (np.asarray(to_rows(X, image_shape)[0], dtype=np.float64) for X in (X_in, X_out))
    x0 = rows_in.mean(axis=0)
    start = type(X_in)(x0[None], columns=X_in.columns) if hasattr(X_in, "columns") else x0[None]
    slope_in, bend_in = (each.mean() for each in density.directional_derivatives(start, rows_in - x0))
    slope_out, bend_out = (each.mean() for each in density.directional_derivatives(start, rows_out - x0))
    return SecondOrderGap(
        measured=float(scores_out.mean() - scores_in.mean()),
        measured_low=low,
        measured_high=high,
        first_order=float(slope_out - slope_in),
        second_order=float(bend_out - bend_in) / 2,
        variance_in=rows_in.var(axis=0),
        variance_out=rows_out.var(axis=0),
        mean_in=x0,
        mean_out=rows_out.mean(axis=0),
        image_shape=image_shape,
    )


def _interval(
    scores_in: NDArray[np.float64], scores_out: NDArray[np.float64], generator: np.random.Generator
) -> tuple[float, float]:
    means = [
        resampled_means(scores, draw_counts(len(scores), N_BOOTSTRAP, generator)) for scores in (scores_in, scores_out)
    ]
    return interval_of(means[1] - means[0])

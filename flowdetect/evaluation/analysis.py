"""Why one set is likelier than another: the second-order analysis of a density around the mean of its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._images import to_rows
from flowdetect.evaluation.resampling import draw_counts, interval_of, resampled_means

STEP = 0.01  # of the way between the two means, for the derivative along it
N_BOOTSTRAP = 1000


@dataclass(frozen=True)
class SecondOrderGap:
    """What `second_order_gap` found; nats, all but the moments and `curvature`.

    Attributes
    ----------
    measured : float
        Mean log p of X_out minus that of X_in; above 0 where the other set is likelier.
    measured_low, measured_high : float
        95 % bootstrap interval over rows.
    second_order : float
        What the curvature and the two sets' variances predict for it.
    first_order : float
        What the slope between the two means adds.
    curvature : (D,) array, nats per squared unit of X
        Diagonal Hessian of log p at `x0`.
    variance_in, variance_out : (D,) arrays
        Of each feature, around the set's own mean.
    mean_in, mean_out : (D,) arrays
    image_shape : tuple of int (H, W, C) or None
    """

    measured: float
    measured_low: float
    measured_high: float
    second_order: float
    first_order: float
    curvature: NDArray[np.float64]
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
            f"second order {self.second_order:+.1f}, first order {self.first_order:+.1f}"
        )


def second_order_gap(density: Any, X_in: Any, X_out: Any, *, random_state: int | None = 0) -> SecondOrderGap:
    r"""Predict from curvature and variances which of two sets is likelier, beside what is measured.

    With the density expanded to second order around :math:`x_0`, the mean of X_in, and h the diagonal of its Hessian,

    .. math::
        E_q[\log p] - E_p[\log p] \approx \nabla \log p(x_0)^T (\mu_q - \mu_p)
        + \frac{1}{2} \sum_d h_d (\sigma^2_{q,d} - \sigma^2_{p,d})

    p being the distribution of X_in, q that of X_out. A set that lies inside the other one, with about its mean and
    less variance, is likelier wherever the curvature is negative.

    Parameters
    ----------
    density : fitted density with `score_samples` and `curvature`
        Conditional ones are asked without labels.
    X_in, X_out : (n, D) arrays, or images
    random_state : int or None, default=0
        Draws the bootstrap's resamples.

    Returns
    -------
    gap : SecondOrderGap

    Raises
    ------
    TypeError
        If the density has no `curvature`.
    ValueError
        If the rows do not fit the density.

    Notes
    -----
    The paper assumes equal means and drops the first term; here it is given apart, as a central difference of log p
    along the way between the means. The paper's variances are summed over a channel's pixels, of values in [0, 1);
    ours are in the squared unit of X. The expansion is local and images are far from their mean: the sign is what it
    is about. The curvature costs D backward passes of one row; on 32x32 colour images that is a matter of minutes.

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
    for method in ("score_samples", "curvature"):
        if not hasattr(density, method):
            raise TypeError(
                f"second_order_gap needs a fitted density with {method}, such as GlowDensity(); "
                f"{type(density).__name__} has none."
            )
    scores_in, scores_out = (np.asarray(density.score_samples(X), dtype=np.float64) for X in (X_in, X_out))
    image_shape = getattr(density, "image_shape_", None)
    rows_in, rows_out = (np.asarray(to_rows(X, image_shape)[0], dtype=np.float64) for X in (X_in, X_out))
    x0, step = rows_in.mean(axis=0), rows_out.mean(axis=0) - rows_in.mean(axis=0)
    ahead, behind = density.score_samples(np.stack([x0 + STEP * step, x0 - STEP * step]), dequantize=False)
    curvature = density.curvature(x0)
    variance_in, variance_out = rows_in.var(axis=0), rows_out.var(axis=0)
    low, high = _interval(scores_in, scores_out, np.random.default_rng(random_state))
    return SecondOrderGap(
        measured=float(scores_out.mean() - scores_in.mean()),
        measured_low=low,
        measured_high=high,
        second_order=float(curvature @ (variance_out - variance_in) / 2),
        first_order=float(ahead - behind) / (2 * STEP),
        curvature=curvature,
        variance_in=variance_in,
        variance_out=variance_out,
        mean_in=x0,
        mean_out=x0 + step,
        image_shape=image_shape,
    )


def _interval(
    scores_in: NDArray[np.float64], scores_out: NDArray[np.float64], generator: np.random.Generator
) -> tuple[float, float]:
    means = [
        resampled_means(scores, draw_counts(len(scores), N_BOOTSTRAP, generator)) for scores in (scores_in, scores_out)
    ]
    return interval_of(means[1] - means[0])

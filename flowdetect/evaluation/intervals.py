"""Intervals of an AUROC that keep their coverage near 0 and 1.

An AUROC near 1 depends on the few rows that are out of order, so its variance is poorly known. A bootstrap without any
such row gives an interval of width 0. `auroc_interval` is a score interval: it contains the true areas that the
observed area does not reject. It combines the observed variance with a cautious one if few rows are out of order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, stdtrit

from flowdetect.evaluation.metrics import check_confidence, ranks_of

# The four were chosen by simulation, `examples/studies/auroc_intervals.py`: coverage at 0.9, 0.98 and 0.998.
CAUTIOUS_RATIO = 0.4  # of a set's variance to area x (1 - area), assumed where no row is out of order
CAUTIOUS_ROWS = 4.0  # how many rows out of order weigh as much as that assumption
UNSEEN_LOSS = 0.5  # share of its comparisons that one more row, not seen, might lose
FREEDOM_OF_A_ROW = 1.5  # degrees of freedom for each row out of order, and for one more
LEAST_RATIO = 1e-6


@dataclass(frozen=True)
class _Part:
    """What one set contributes to the variance of an AUROC.

    Attributes
    ----------
    ratio : float
        Its variance in units of area x (1 - area), divided by its number of rows.
    freedom : float
        Degrees of freedom of that.
    """

    ratio: float
    freedom: float


def auroc_interval(
    scores_in: ArrayLike, scores_out: ArrayLike, *, confidence: float = 0.95, paired: bool = False
) -> tuple[float, float]:
    r"""Return an interval of the AUROC that keeps its coverage near and at 0 and 1.

    The interval contains all :math:`\theta` with

    .. math:: (\hat A - \theta)^2 \le t^2 \, \theta (1 - \theta)
        \left(\frac{r_\text{in}}{n_\text{in}} + \frac{r_\text{out}}{n_\text{out}}\right)

    where :math:`r` is the variance of a set's placements in units of :math:`\hat A (1 - \hat A)`; a row's placement is
    the share of its comparisons that it wins (DeLong). This variance is poorly known if few rows lose comparisons. So
    :math:`r` is the weighted geometric mean of the observed value and 0.4, with weights :math:`k` and 4. Here
    :math:`k = (\sum l + 1/2)^2 / (\sum l^2 + 1/4) - 1` is the effective number of rows that lose comparisons, and
    :math:`l` is one minus the placement. :math:`t` is the quantile of Student's distribution with :math:`1.5 (k + 1)`
    degrees of freedom, joined for both sets by Satterthwaite's formula. The interval never reaches beyond Clopper and
    Pearson's for :math:`\min(n_\text{in}, n_\text{out})` comparisons, because the variance of an AUROC is never larger
    than that of so many independent comparisons (van Dantzig's bound).

    Parameters
    ----------
    scores_in : (n_in,) array, higher is more normal
    scores_out : (n_out,) array
    confidence : float in (0, 1), default=0.95
    paired : bool, default=False
        Whether ``scores_in[i]`` and ``scores_out[i]`` belong to one image, before and after a change. The interval is
        then for the area of images drawn independently: it leaves the n comparisons of an image with itself out, and is
        widened to hold the area with them, if it does not.

    Returns
    -------
    low, high : float
        Swapped sets give (1 - high, 1 - low). Strictly increasing maps of the scores change nothing.

    Raises
    ------
    ValueError
        If a set is empty, not one-dimensional, or holds NaN; if `confidence` is not between 0 and 1; if `paired` sets
        differ in length.

    Notes
    -----
    The interval says how far the area may move with other rows of the same two distributions. It does not count what
    another training, another seed or another split of the data would change. Simulated coverage of 95 % intervals is on
    the page "Intervals of an AUROC" of the measurements.

    References
    ----------
    "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves" (DeLong et al., 1988),
    https://doi.org/10.2307/2531595

    "Confidence Intervals for Probabilities and Tolerance Regions Based on a Generalization of the Mann-Whitney
    Statistic" (Mee, 1990), https://doi.org/10.1080/01621459.1990.10474942

    "Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2" (Newcombe, 2006),
    https://doi.org/10.1002/sim.2324

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect.evaluation import auroc_interval
    >>> low, high = auroc_interval(np.arange(200) + 300.0, np.arange(200))  # wholly apart
    >>> round(low, 3), high
    (0.982, 1.0)
    """
    check_confidence(confidence)
    ranks_in, ranks_out = ranks_of(scores_in, scores_out)
    if paired and len(ranks_in) != len(ranks_out):
        raise ValueError(
            f"paired needs as many scores_in as scores_out, got {len(ranks_in)} and {len(ranks_out)}; "
            "leave a row that lacks one of them out of both."
        )
    loss_in, loss_out = _losses(ranks_in, ranks_out), 1.0 - _losses(ranks_out, ranks_in)
    if not paired:
        loss = float(loss_in.mean())
        parts = [_part(loss_in, loss), _part(loss_out, loss)]
        return _interval(loss, parts, min(len(loss_in), len(loss_out)), float(confidence))
    n, observed = len(loss_in), float(loss_in.mean())
    if n > 1:  # without the comparisons of an image with itself
        own = (ranks_in < ranks_out) + 0.5 * (ranks_in == ranks_out)
        loss_in, loss_out = ((n * loss - own) / (n - 1) for loss in (loss_in, loss_out))
    loss = float(loss_in.mean())
    parts = [_part((loss_in + loss_out) / 2, loss, n_sets=2)]
    low, high = _interval(loss, parts, n / 2, float(confidence))
    return min(low, 1 - observed), max(high, 1 - observed)


def _losses(ranks: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.float64]:
    """Share of the others that stand above each rank, ties counting half: (n,)."""
    ordered = np.sort(others)
    above = 2 * len(ordered) - np.searchsorted(ordered, ranks, "left") - np.searchsorted(ordered, ranks, "right")
    return above / (2.0 * len(ordered))


def _part(losses: NDArray[np.float64], loss: float, n_sets: int = 1) -> _Part:
    """Weigh the observed variance of the losses (n,) against the cautious one; `n_sets` that vary together."""
    n = len(losses)
    cautious, spread = n_sets * CAUTIOUS_RATIO, loss * (1 - loss)
    n_effective = min(_n_effective(losses), _n_effective(1 - losses), n - 1)
    observed = n_sets**2 * float(losses.var(ddof=1)) / spread if n > 1 and spread > 0 else cautious
    share = n_effective / (n_effective + CAUTIOUS_ROWS)
    ratio = max(observed, LEAST_RATIO) ** share * cautious ** (1 - share)
    return _Part(ratio / n, FREEDOM_OF_A_ROW * (n_effective + 1))


def _n_effective(losses: NDArray[np.float64]) -> float:
    """Effective number of rows that lose comparisons, less one for a row that was not seen."""
    return float((losses.sum() + UNSEEN_LOSS) ** 2 / ((losses**2).sum() + UNSEEN_LOSS**2)) - 1


def _interval(loss: float, parts: list[_Part], n_least: float, confidence: float) -> tuple[float, float]:
    ratio = sum(part.ratio for part in parts)
    freedom = ratio**2 / sum(part.ratio**2 / part.freedom for part in parts)
    tail = (1 - confidence) / 2
    width = ratio * stdtrit(freedom, 1 - tail) ** 2  # (area - true)^2 = width true (1 - true) at both ends
    area = 1 - loss
    middle, half = area + width / 2, np.sqrt(width * (loss * area + width / 4))
    low, high = (middle - half) / (1 + width), (middle + half) / (1 + width)
    won, lost = n_least * area, n_least * loss  # of as many comparisons as the smaller set has rows
    low = max(low, betaincinv(won, lost + 1, tail)) if won > 0 else 0.0
    high = min(high, betaincinv(won + 1, lost, 1 - tail)) if lost > 0 else 1.0
    return float(min(max(low, 0.0), area)), float(max(min(high, 1.0), area))

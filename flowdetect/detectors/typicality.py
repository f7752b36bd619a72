"""Typicality: normal rows are those with a typical likelihood, not those with the highest.

Nalisnick et al., "Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality" (2019),
https://arxiv.org/abs/1906.02994
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from flowdetect._images import draw_seed
from flowdetect._protocols import RandomState
from flowdetect.detectors.base import BaseDetector
from flowdetect.detectors.checks import check_batch_options

RESAMPLED_AT_ONCE = 2_000_000  # drawn values
N_DECIMALS = 9  # of a distance in nats


class TypicalityDetector(BaseDetector):
    r"""Call a row an outlier if its likelihood is far from that of held-out rows, above or below.

    .. math:: s(x) = -\left| -\log p(x) - \hat H \right|

    where :math:`\hat H` is the mean of -log p over the calibration rows, an estimate of the density's entropy. In high
    dimensions nearly all rows have about this value, but the mode of the density does not.

    It costs no more than the likelihood. Weakness: for a single image it uses only the likelihood, and cannot separate
    sets that overlap in likelihood, as CIFAR-10 and SVHN do. Batches (`test_batch`) are separated better.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        Its score_samples is log p(x), (n,), nats. A clone of it is fitted; a density in scikit-learn's
        `FrozenEstimator` is used without training.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; the entropy and the p-values are computed from
        them. See `BaseDetector`.
    prefit : bool, default=False
        True: `density` is already fitted and is used without training; see `BaseDetector`.
    cv : int or None, default=None
        Number of folds of a cross-conformal calibration, for small data; see `BaseDetector`.
    checkpoint : path or None, default=None
        Folder for the checkpoints of all trainings in `fit`. A killed `fit` resumes from them; see `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and a seed for each `random_state` inside the density that is None.

    Attributes
    ----------
    density_ : the fitted density
    entropy_ : float, nats
        Mean of -log p over half of the calibration rows; p-values use the other half.
    calibration_nll_ : (n_reference,) array, nats
        -log p of the rows behind `entropy_`, sorted.
    offset_ : float, nats
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array, nats
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Only if `fit` was given a data frame.

    References
    ----------
    "Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality" (Nalisnick et al., 2019),
    https://arxiv.org/abs/1906.02994, section 3, eq. (4) and Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect.detectors import TypicalityDetector
    >>> X = np.random.default_rng(0).normal(size=(400, 50))
    >>> detector = TypicalityDetector(GaussianMixture(reg_covar=0.1), random_state=0).fit(X)
    >>> detector.predict(np.zeros((1, 50)))  # the mode: more likely than any row, but not typical
    array([-1])
    >>> detector.test_batch(np.zeros((10, 50)), random_state=0).p_value
    0.000999...
    """

    learns = True

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        self.calibration_nll_: NDArray[np.float64] = np.sort(
            -self._log_likelihood(self._reference(X_train, X_calibration))
        )
        self.entropy_: float = float(self.calibration_nll_.mean())

    def _score(self, X: Any) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = self._combined(self._log_likelihood(X))
        return scores

    def _combined(self, log_px: Any) -> Any:
        # rounded so that rows equally far above and below the entropy tie
        return -abs(-log_px - self.entropy_).round(decimals=N_DECIMALS)

    def test_batch(
        self, X: ArrayLike, *, alpha: float = 0.05, n_bootstrap: int = 1000, random_state: RandomState = None
    ) -> Bunch:
        r"""Test whether all rows of X together are typical.

        .. math:: \hat\epsilon = \left| \frac{1}{M} \sum_{m=1}^{M} -\log p(x_m) - \hat H \right|

        is compared with the same statistic of `n_bootstrap` batches of M rows, drawn with replacement from the rows
        behind the entropy. The entropy is resampled each time, because it is an estimate too.

        Parameters
        ----------
        X : (M, D) array or frame, or images
            One batch.
        alpha : float in (0, 1), default=0.05
            Level of the test: the share of typical batches that it calls drifted.
        n_bootstrap : int, default=1000
            Number of resampled batches.
        random_state: int, RandomState instance or None, default=None

        Returns
        -------
        result : Bunch
            statistic : float, nats; p_value : float, (1 + number of resampled statistics at least as large) /
            (1 + n_bootstrap), small for batches that are not typical; drifted : bool, whether p_value <= alpha;
            n_rows : int, M

        Notes
        -----
        With `cv` each member has its own entropy; the test is then that of the other detectors, see
        `BaseDetector.test_batch`.
        """
        check_is_fitted(self, "offset_")
        check_batch_options(alpha, n_bootstrap)
        if hasattr(self, "members_"):
            return super().test_batch(X, alpha=alpha, n_bootstrap=n_bootstrap, random_state=random_state)
        nll = -self._log_likelihood(self._check_X(X, reset=False))
        if not np.isfinite(nll).all():
            raise ValueError("test_batch needs rows with a finite likelihood; leave the other rows out.")
        statistic = abs(float(nll.mean()) - self.entropy_)
        rng, known = np.random.default_rng(draw_seed(random_state)), self.calibration_nll_
        at_once = max(1, RESAMPLED_AT_ONCE // max(len(nll), len(known)))
        sizes = [min(at_once, n_bootstrap - start) for start in range(0, n_bootstrap, at_once)]
        means, entropies = (
            np.concatenate([rng.choice(known, (size, n_rows)).mean(axis=1) for size in sizes])
            for n_rows in (len(nll), len(known))
        )
        n_larger = int((np.abs(means - entropies) >= statistic).sum())
        p_value = (1 + n_larger) / (1 + n_bootstrap)
        return Bunch(statistic=statistic, p_value=p_value, drifted=p_value <= alpha, n_rows=len(nll))

"""The likelihood itself as a score: the baseline, and on images often a bad one.

Nalisnick et al., "Do Deep Generative Models Know What They Don't Know?" (2019), https://arxiv.org/abs/1810.09136
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect.detectors.base import BaseDetector
from flowdetect.detectors.exporting import unchanged


class LikelihoodDetector(BaseDetector):
    """Call a row an outlier if the density gives it a low likelihood.

    s(x) = log p(x)

    On tables this is the sound default. On images it follows smoothness more than content: flows and autoregressive
    models trained on Fashion-MNIST give MNIST a higher likelihood than Fashion-MNIST, and those trained on CIFAR-10
    do so for SVHN. `ComplexityDetector` corrects for that.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        Its score_samples is log p(x), (n,), nats. It is cloned and the clone fitted; one inside scikit-learn's
        `FrozenEstimator` is used as it is.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are to be called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that the density is not trained on, and which p-values compare with; see
        `BaseDetector`.
    prefit : bool, default=False
        True: `density` is fitted, and used as it is; see `BaseDetector`.
    cv : int or None, default=None
        Folds of a cross-conformal calibration, for small data; see `BaseDetector`.
    checkpoint : path or None, default=None
        A folder that keeps all trainings within, so that a fit that was killed goes on; see `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and the seeds within the density that are None.

    Attributes
    ----------
    density_ : the fitted density
    offset_ : float, nats
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array, nats
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Where a frame was given to `fit`.

    References
    ----------
    "Do Deep Generative Models Know What They Don't Know?" (Nalisnick et al., 2019), https://arxiv.org/abs/1810.09136

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect.detectors import LikelihoodDetector
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> detector = LikelihoodDetector(GaussianMixture(), random_state=0).fit(X)
    >>> detector.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    >>> detector.p_values([[9.0, 9.0]]).round(3)  # one of 20 calibration rows and itself
    array([0.048])
    """

    def _score(self, X: Any) -> NDArray[np.float64]:
        return self._log_likelihood(X)

    _combined = staticmethod(unchanged)

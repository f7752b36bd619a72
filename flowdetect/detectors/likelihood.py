"""The likelihood as a score: the baseline, which often fails on images.

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

    This is a good default for tables. For images the likelihood depends on smoothness more than on content: flows and
    autoregressive models trained on Fashion-MNIST give MNIST a higher likelihood than Fashion-MNIST, and those trained
    on CIFAR-10 give SVHN a higher one. `ComplexityDetector` corrects for this.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        Its score_samples is log p(x), (n,), nats. A clone of it is fitted; a density in scikit-learn's
        `FrozenEstimator` is used without training.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; p-values are computed from their scores. See
        `BaseDetector`.
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
    >>> detector.p_values([[9.0, 9.0]]).round(3)  # 1 / (1 + 20 calibration rows)
    array([0.048])
    """

    def _score(self, X: Any) -> NDArray[np.float64]:
        return self._log_likelihood(X)

    _combined = staticmethod(unchanged)

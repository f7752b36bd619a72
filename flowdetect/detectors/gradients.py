"""Gradient norms: how strongly a row's likelihood depends on the parameters of each layer.

Dauncey et al., "Approximations to the Fisher Information Metric of Deep Generative Models for Out-Of-Distribution
Detection" (2024), https://arxiv.org/abs/2403.01485
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._protocols import Density
from flowdetect.detectors.base import BaseDetector

SMALLEST_SPREAD = 1e-9  # of a log norm, relative to its size; a layer below it is constant and is left out
SMALLEST = 1e-30  # of a squared norm; that of a dead layer is 0


class GradientNormDetector(BaseDetector):
    r"""Call a row an outlier if the gradients of its likelihood, layer by layer, have unusual norms.

    .. math:: s(x) = -\sum_l \left( \frac{\log \|\nabla_{\theta_l} \log p(x)\|^2 - m_l}{s_l} \right)^2

    where m_l and s_l are the mean and standard deviation of the logarithm over the calibration rows.

    It costs a backward pass for each row, several times the cost of the likelihood. Weakness: all layers have the same
    weight, whatever their size, and their norms are treated as independent.

    Parameters
    ----------
    density : estimator with `fit`, `score_samples` and `layer_gradient_norms`
        Its layer_gradient_norms(X) is (n, n_layers). A clone of it is fitted; a density in scikit-learn's
        `FrozenEstimator` is used without training.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; m, s and the p-values are computed from them.
        See `BaseDetector`.
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
    mean_, std_ : (n_layers,) arrays
        The m and s above; layers whose norm does not vary are left out.
    offset_ : float
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Only if `fit` was given a data frame.

    References
    ----------
    "Approximations to the Fisher Information Metric of Deep Generative Models for Out-Of-Distribution Detection"
    (Dauncey et al., 2024), https://arxiv.org/abs/2403.01485, section 4.

    Examples
    --------
    >>> from flowdetect import GlowDensity, GradientNormDetector, load_images
    >>> X, _ = load_images("digits")
    >>> flow = GlowDensity(n_bins=17, n_steps=1, hidden_channels=8, max_epochs=1, random_state=0)
    >>> GradientNormDetector(flow, random_state=0).fit(X[:64]).score_samples(X[:5]).shape
    (5,)
    """

    no_graph = "gradients with respect to the density's parameters cannot be exported"
    needs = ("layer_gradient_norms",)
    learns = True
    density_: Density

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        logs = self._log_norms(self._reference(X_train, X_calibration))
        self.mean_, spread = logs.mean(axis=0), logs.std(axis=0)
        self.std_: NDArray[np.float64] = np.where(spread > SMALLEST_SPREAD * (1 + np.abs(self.mean_)), spread, np.inf)

    def _log_norms(self, X: Any) -> NDArray[np.float64]:
        norms = np.asarray(self.density_.layer_gradient_norms(X), dtype=np.float64)
        return np.log(np.maximum(norms**2, SMALLEST))

    def _score(self, X: Any) -> NDArray[np.float64]:
        return -np.square((self._log_norms(X) - self.mean_) / self.std_).sum(axis=1)

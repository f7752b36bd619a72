"""The detector to start with: it chooses the density and the scores by what the data are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from flowdetect.detectors.complexity import ComplexityDetector
from flowdetect.detectors.p_values import log_p_value

LIKELIHOOD_WEIGHT = 5.0  # how many times rarer a likelihood must be than a complexity score to count alike


class OODDetector(ComplexityDetector):
    r"""Call a row an outlier by what works on such data; no choice has to be made.

    On tables it is the likelihood, on which the paradox of images is rare:

    .. math:: s(x) = \log p(x)

    On images two scores are asked, `ComplexityDetector`'s and the likelihood, and the louder alarm counts:

    .. math:: s(x) = \min\left(\log p_\text{complexity}(x), \; \log 5 + \log p_\text{likelihood}(x)\right)

    with the logarithms of p-values by the calibration rows. Below their lowest 5 % the p-value falls exponentially, at
    the rate of these 5 %, so that very unusual images do not tie. It is a weighted Bonferroni test: complexity finds
    the simple images that likelihood likes, likelihood the complex ones that complexity misses, and the factor 5 keeps
    the likelihood, which says little where images are simple, from spoiling the other's order.

    It costs one training, the likelihood, and the codecs. Weakness: images as complex and as likely as those of the
    training set.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`, or None, default=None
        None: `GlowDensity` for images, `RealNVPDensity` for tables, with their defaults. Another one is cloned and the
        clone fitted; one inside scikit-learn's `FrozenEstimator` is used as it is.
    image_shape : tuple of int (H, W) or (H, W, C), or None, default=None
        None: taken from X if it has images' axes, else from the density; if neither knows, X is a table.
    codecs : tuple of "png", "webp" and "jpeg2000", default=("png", "webp", "jpeg2000")
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are to be called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that the density is not trained on, and which p-values compare with; see
        `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and the seeds within the density that are None.

    Attributes
    ----------
    density_ : the fitted density
    scores_ : tuple of str
        What is asked: ("likelihood",) or ("complexity", "likelihood").
    offset_ : float
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Where a frame was given to `fit`.

    Notes
    -----
    The factor 5 was chosen on Fashion-MNIST and MNIST, each against the other; on CIFAR-10 against SVHN the detector is
    less good. Fisher's combination of the same two, `FisherDetector`, spoils the first of these pairs.

    Examples
    --------
    >>> import numpy as np
    >>> from flowdetect import OODDetector
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> detector = OODDetector(random_state=0).fit(X)
    >>> detector.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    learns = True

    def __init__(
        self,
        density: Any = None,
        *,
        image_shape: Any = None,
        codecs: tuple[str, ...] = ("png", "webp", "jpeg2000"),
        contamination: float = 0.1,
        calibration_fraction: float = 0.1,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            density,
            image_shape=image_shape,
            codecs=codecs,
            contamination=contamination,
            calibration_fraction=calibration_fraction,
            random_state=random_state,
        )

    def _check_parameters(self) -> None:
        if self.density is not None:
            super()._check_parameters()
            return
        from flowdetect.density import GlowDensity

        clone(self).set_params(density=GlowDensity())._check_parameters()

    def _template(self) -> Any:
        if self.density is not None:
            return self.density
        from flowdetect.density import GlowDensity, RealNVPDensity

        if self.image_shape_ is None:
            return RealNVPDensity()
        return GlowDensity(image_shape=self.image_shape_)

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        super()._calibrate(X_train, X_calibration)
        self.scores_ = ("likelihood",) if self.image_shape_ is None else ("complexity", "likelihood")
        self._tails = {}
        if self.image_shape_ is not None:
            reference = self._reference(X_train, X_calibration)
            self._tails = {name: np.sort(scores) for name, scores in self._both(reference).items()}

    def _both(self, X: Any) -> dict[str, NDArray[np.float64]]:
        """Score by complexity, bits, and by likelihood, nats."""
        log_likelihood = self._log_likelihood(X)
        return {"complexity": log_likelihood / np.log(2) + self._code_lengths(X), "likelihood": log_likelihood}

    def _score(self, X: Any) -> NDArray[np.float64]:
        if self.image_shape_ is None:
            return self._log_likelihood(X)
        both = {name: log_p_value(scores, self._tails[name]) for name, scores in self._both(X).items()}
        return np.minimum(both["complexity"], both["likelihood"] + np.log(LIKELIHOOD_WEIGHT))

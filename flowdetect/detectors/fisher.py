"""Fisher's combination: several scores of one density, combined by their p-values.

Fisher, "Statistical Methods for Research Workers" (1932), section 21.1; of OoD scores: Bergamin et al., "Model-Agnostic
Out-of-Distribution Detection Using Combined Statistical Tests" (2022), https://arxiv.org/abs/2203.01097
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from flowdetect._protocols import PathName, RandomState, Scorer
from flowdetect.detectors.base import BaseDetector
from flowdetect.detectors.calibration import log_p_value
from flowdetect.detectors.complexity import ComplexityDetector
from flowdetect.detectors.likelihood import LikelihoodDetector
from flowdetect.detectors.waic import WAICDetector


class FisherDetector(BaseDetector):
    r"""Call a row an outlier if several scores together find it unusual.

    .. math:: s(x) = 2 \sum_i \ln p_i(x)

    where p_i is the p-value of the i-th detector among the calibration rows. Below their lowest 5 % it falls
    exponentially, with the rate fitted to these 5 %, so that very unusual rows do not tie. The score is minus the
    statistic of Fisher's combination. One detector alone can make a row an outlier.

    It costs as much as its detectors together. Weakness: an uninformative detector adds noise.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        The density of all detectors. A clone of it is fitted; a density in scikit-learn's `FrozenEstimator` is used
        without training.
    detectors : sequence of detectors, default=None
        Unfitted detectors without `cv`. Their `density` is replaced by the fitted one, and they learn from the
        calibration rows. None: `LikelihoodDetector` and `ComplexityDetector`.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from training; all p-values are computed from their scores.
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
    detectors_ : list of fitted detectors
    offset_ : float
        The `contamination` quantile of the scores of all rows given to `fit`.
    calibration_scores_ : (n_calibration,) array
        Scores of the calibration rows, sorted.
    image_shape_ : tuple of int (H, W, C) or None
    n_features_in_ : int
    feature_names_in_ : (n_features_in_,) array of str
        Only if `fit` was given a data frame.

    Notes
    -----
    The scores are not independent, so the statistic has no chi-squared distribution; `p_values` compares it with that
    of the calibration rows.

    References
    ----------
    "Model-Agnostic Out-of-Distribution Detection Using Combined Statistical Tests" (Bergamin et al., 2022),
    https://arxiv.org/abs/2203.01097, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect.detectors import FisherDetector, LikelihoodDetector, TypicalityDetector
    >>> X = np.random.default_rng(0).normal(size=(400, 50))
    >>> both = [LikelihoodDetector(None), TypicalityDetector(None)]
    >>> detector = FisherDetector(GaussianMixture(reg_covar=0.1), both, random_state=0).fit(X)
    >>> detector.predict(np.stack([np.zeros(50), X[0], np.full(50, 9.0)]))  # too likely, normal, unlikely
    array([-1,  1, -1])
    """

    no_graph = "the p-values that it combines cannot be exported"
    learns = True

    def __init__(
        self,
        density: Scorer,
        detectors: Sequence[BaseDetector] | None = None,
        *,
        contamination: float = 0.1,
        calibration_fraction: float = 0.1,
        prefit: bool = False,
        cv: int | None = None,
        checkpoint: PathName | None = None,
        random_state: RandomState = None,
    ) -> None:
        super().__init__(
            density,
            contamination=contamination,
            calibration_fraction=calibration_fraction,
            prefit=prefit,
            cv=cv,
            checkpoint=checkpoint,
            random_state=random_state,
        )
        self.detectors = detectors

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for detector in self._chosen():
            if not isinstance(detector, BaseDetector):
                raise TypeError(
                    f"FisherDetector needs detectors of flowdetect, such as LikelihoodDetector(None), "
                    f"got {type(detector).__name__}."
                )
            if "density" not in detector.get_params(deep=False) or isinstance(detector, WAICDetector):
                raise TypeError(
                    f"FisherDetector combines scores of one density, which {type(detector).__name__} cannot share; "
                    f"leave it out."
                )
            if detector.cv is not None:
                raise ValueError(
                    f"FisherDetector combines detectors of one fitted density, and {type(detector).__name__} has "
                    f"cv={detector.cv!r}; give cv to FisherDetector itself."
                )
            clone(detector).set_params(density=self.density, prefit=False)._check_parameters()

    def _chosen(self) -> list[Any]:
        if self.detectors is None:
            return [LikelihoodDetector(None), ComplexityDetector(None)]
        if not len(self.detectors):
            raise ValueError("FisherDetector needs at least one detector, got none; None takes the usual two.")
        return list(self.detectors)

    def _calibrate(self, X_train: Any, X_calibration: Any) -> None:
        reference = self._reference(X_train, X_calibration)
        frozen = self.density_ if isinstance(self.density_, FrozenEstimator) else FrozenEstimator(self.density_)
        self.detectors_: list[Any] = [self._part(detector, frozen) for detector in self._chosen()]
        for part in self.detectors_:
            self._train(part, reference)

    def _part(self, detector: Any, frozen: FrozenEstimator) -> Any:
        """Clone a detector with our density; our seed, image shape and checkpoint replace None."""
        part = clone(detector).set_params(density=frozen, prefit=False)
        known = {"random_state": self._seed, "image_shape": self.image_shape_, "checkpoint": self.checkpoint}
        parameters = part.get_params(deep=False)
        return part.set_params(**{name: value for name, value in known.items() if parameters.get(name, 0) is None})

    def _score(self, X: Any) -> NDArray[np.float64]:
        logs = [log_p_value(each.score_samples(X), each.calibration_scores_) for each in self.detectors_]
        return 2 * np.sum(logs, axis=0)

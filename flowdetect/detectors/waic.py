"""WAIC: the mean log-likelihood of an ensemble, minus its variance.

Choi et al., "WAIC, but Why? Generative Ensembles for Robust Anomaly Detection" (2018), https://arxiv.org/abs/1810.01392
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowdetect._limits import MOST_MEMBERS, check_count
from flowdetect._members import Members
from flowdetect._protocols import Ensemble, PathName, RandomState, Scorer
from flowdetect.detectors.base import BaseDetector
from flowdetect.detectors.checks import name_of


class WAICDetector(BaseDetector):
    r"""Call a row an outlier if it is unlikely under an ensemble, or if the members disagree.

    .. math:: s(x) = \mathbb{E}_m\left[\log p_m(x)\right] - \operatorname{Var}_m\left[\log p_m(x)\right]

    over the members m of an ensemble that differ in their seeds.

    It costs one training and one likelihood for each member. Weakness: similar members share their errors. On
    Fashion-MNIST against MNIST, a repetition of the experiments found an AUROC of 0.221 instead of the paper's 0.766
    (Ren et al., 2019).

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        `n_members` clones of it are fitted. An ensemble with `member_scores(X)`, such as `EnsembleDensity`, is cloned
        and fitted once; in scikit-learn's `FrozenEstimator` it is used without training.
    n_members : int, default=5
        Number of members; no effect if `density` is an ensemble.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that are held out from the training of all members; p-values are computed from
        their scores. See `BaseDetector`.
    prefit : bool, default=False
        True: `density` is a fitted ensemble and is used without training; see `BaseDetector`.
    cv : int or None, default=None
        Number of folds of a cross-conformal calibration, for small data; see `BaseDetector`.
    checkpoint : path or None, default=None
        Folder for the checkpoints of all trainings in `fit`. A killed `fit` resumes from them; see `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows and the members' seeds.

    Attributes
    ----------
    density_ : the fitted ensemble
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
    The variance is the mean squared deviation of the members. Its unit is squared nats, so on images it may be larger
    than the mean.

    References
    ----------
    "WAIC, but Why? Generative Ensembles for Robust Anomaly Detection" (Choi et al., 2018),
    https://arxiv.org/abs/1810.01392, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect.detectors import WAICDetector
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> detector = WAICDetector(GaussianMixture(3), n_members=3, random_state=0).fit(X)
    >>> detector.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    density_: Ensemble

    def __init__(
        self,
        density: Scorer,
        n_members: int = 5,
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
        self.n_members = n_members

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_count("WAICDetector's n_members", self.n_members, most=MOST_MEMBERS)
        if self.prefit and not hasattr(self.density, "member_scores"):
            raise TypeError(
                f"WAICDetector with prefit=True needs a fitted ensemble, with member_scores, such as EnsembleDensity, "
                f"got a {name_of(self.density)}; leave prefit=False, and it fits {self.n_members} clones of it."
            )

    def _template(self) -> Any:
        density: Any = self.density
        return density if hasattr(density, "member_scores") else Members(density, self.n_members)

    def _score(self, X: Any) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self._combined(self.density_.member_scores(X))
        return found

    def _asked(self) -> list[tuple[Any, str]]:
        return [(self.density_, "member_scores")]

    @staticmethod
    def _combined(scores: Any) -> Any:
        mean = scores.mean(axis=1)
        return mean - ((scores - mean[:, None]) ** 2).mean(axis=1)  # var() divides by n - 1 in torch, by n in numpy

"""WAIC: what several densities, fitted alike, agree on.

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
    r"""Call a row an outlier if an ensemble finds it unlikely, or does not agree.

    .. math:: s(x) = \mathbb{E}_m\left[\log p_m(x)\right] - \operatorname{Var}_m\left[\log p_m(x)\right]

    over the members m of an ensemble that differ in their seeds.

    It costs as many trainings and likelihoods as there are members. Weakness: members of one kind share their mistakes;
    a rerun of the paper's experiments found 0.221 for its 0.766 on Fashion-MNIST against MNIST (Ren et al., 2019).

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        Cloned and fitted `n_members` times. An ensemble, with `member_scores(X)`, such as `EnsembleDensity`, is cloned
        and fitted once; in scikit-learn's `FrozenEstimator` it is used as it is.
    n_members : int, default=5
        Of no effect on an ensemble.
    contamination : float in (0, 0.5], default=0.1
        Share of the rows given to `fit` that are to be called outliers.
    calibration_fraction : float in [0, 1), default=0.1
        Share of the rows given to `fit` that no member is trained on, and which p-values compare with; see
        `BaseDetector`.
    prefit : bool, default=False
        True: `density` is a fitted ensemble, and used as it is; see `BaseDetector`.
    cv : int or None, default=None
        Folds of a cross-conformal calibration, for small data; see `BaseDetector`.
    checkpoint : path or None, default=None
        A folder that keeps all trainings within, so that a fit that was killed goes on; see `BaseDetector`.
    random_state : int, RandomState instance or None, default=None
        Draws the calibration rows, and the members' seeds.

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
        Where a frame was given to `fit`.

    Notes
    -----
    The variance is that of the members, divided by their number. It is in squared nats, so that on images it soon
    outweighs the mean.

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
                f"got one {name_of(self.density)}; leave prefit=False, and it fits {self.n_members} clones of it."
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
        return mean - ((scores - mean[:, None]) ** 2).mean(axis=1)  # whose variance torch divides by another number

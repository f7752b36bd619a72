"""An ensemble of densities: the mixture of members with different seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from flowdetect import _persistence
from flowdetect._images import draw_seed
from flowdetect._limits import check_count
from flowdetect._members import Members
from flowdetect._protocols import PathName, RandomState
from flowdetect._rows import is_torch_tensor
from flowdetect.density.base import BaseDensity
from flowdetect.density.export import Exports


class EnsembleDensity(Exports, Members):
    r"""Mixture of several densities of one kind, fitted with different seeds.

    .. math:: p(x) = \frac{1}{M} \sum_{m=1}^{M} p_m(x)

    `WAICDetector` uses the disagreement of its members. Every operation takes M times as long as with one density.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        Cloned for each member. Every `random_state` inside gets the member's seed, and a `checkpoint` file gets the
        suffix ".member0", ".member1", ...
    n_members : int, default=5
    n_jobs : int, default=None
        Number of parallel fits, through joblib, as in scikit-learn. None: 1, or the setting of
        `joblib.parallel_config`, which can also select dask or ray. Every fit uses one thread, so that the members do
        not depend on n_jobs.
    random_state : int, RandomState instance or None, default=None
        If None and the density has a `checkpoint`, the seed is stored there, so that an interrupted fit can resume.

    Attributes
    ----------
    members_ : list of fitted densities

    Notes
    -----
    Members that are conditional densities are scored without labels.

    References
    ----------
    "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles" (Lakshminarayanan et al., 2017),
    https://arxiv.org/abs/1612.01474

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from flowdetect import EnsembleDensity
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> ensemble = EnsembleDensity(GaussianMixture(3), n_members=4, random_state=0).fit(X)
    >>> ensemble.member_scores(X[:5]).shape
    (5, 4)
    """

    def score(self, X: ArrayLike, y: ArrayLike | None = None) -> float:
        """Mean of `score_samples`, nats."""
        return float(self.score_samples(X).mean())

    def bits_per_dim(self, X: ArrayLike) -> NDArray[np.float64]:
        """Negative log-probability of each row in bits per feature, (n,); lower is more likely."""
        check_is_fitted(self, "members_")
        member = self.members_[0]
        n_dims = member.spec_.n_values if isinstance(member, BaseDensity) else math.prod(np.shape(X)[1:])
        return -self.score_samples(X) / (n_dims * math.log(2))

    def sample(
        self,
        n_samples: int = 1,
        *,
        temperature: float | Sequence[float] = 1.0,
        random_state: RandomState = None,
    ) -> NDArray[Any]:
        """Draw rows from the mixture.

        Parameters
        ----------
        n_samples : int, default=1
        temperature : float, default=1.0
            As for the members; for flows, also a sequence of one factor per level.
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        X : array in the layout of the members' samples
        """
        check_is_fitted(self, "members_")
        if not isinstance(self.members_[0], BaseDensity):
            raise TypeError(
                "EnsembleDensity.sample needs members that are densities of flowdetect, got "
                f"{type(self.members_[0]).__name__}; draw from its members_ one by one."
            )
        check_count("n_samples", n_samples)
        self.members_[0]._noise_factor(temperature)
        generator = np.random.default_rng(draw_seed(random_state))
        chosen = generator.integers(0, len(self.members_), n_samples)
        parts, places = [], []
        for number, member in enumerate(self.members_):
            places.append(np.flatnonzero(chosen == number))
            seed = int(generator.integers(2**31))
            if len(places[-1]):
                parts.append(member.sample(len(places[-1]), temperature=temperature, random_state=seed))
        samples = np.concatenate(parts)[np.argsort(np.concatenate(places))]
        return parts[0].new_tensor(samples) if is_torch_tensor(parts[0]) else samples

    def _graph_input(self) -> tuple[str, Any]:
        found: tuple[str, Any] = self.members_[0]._graph_input()
        return found

    def _score_without_noise(self, X: Any) -> NDArray[np.float64]:
        scores = np.stack([member._score_without_noise(X) for member in self.members_], axis=1)
        mixture: NDArray[np.float64] = np.logaddexp.reduce(scores, axis=1) - np.log(scores.shape[1])
        return mixture

    def save(self, path: PathName) -> None:
        """Write the ensemble to a file that `flowdetect.load` reads.

        Parameters
        ----------
        path : str or path
            An existing file is replaced only when the new one is complete.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        _persistence.save(self, path)

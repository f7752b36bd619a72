"""An ensemble of densities: the mixture of members that differ in their seeds."""

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
    r"""Several densities of one kind, fitted with different seeds; their mixture is a density again.

    .. math:: p(x) = \frac{1}{M} \sum_{m=1}^{M} p_m(x)

    It tells where its members disagree, as `WAICDetector` asks. All takes M times as long as with one of them.

    Parameters
    ----------
    density : estimator with `fit` and `score_samples`
        Cloned for each member; every `random_state` within gets the member's seed, a `checkpoint` that is a file the
        ending ".member0", ".member1", ...
    n_members : int, default=5
    n_jobs : int, default=None
        Fits at a time, through joblib, as in scikit-learn; None is 1, or what `joblib.parallel_config` says, by which
        dask and ray are used too. Every fit has one thread, so that the members are the same however they were fitted.
    random_state : int, RandomState instance or None, default=None
        None, and the density has a `checkpoint`: the seed is kept there, so that a fit that was killed goes on.

    Attributes
    ----------
    members_ : list of fitted densities

    Notes
    -----
    Of a conditional density the members are asked for scores without labels.

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
            As of the members; of flows, also a sequence of one factor a level.
        random_state : int, RandomState instance or None, default=None

        Returns
        -------
        X : array in the layout of the members' samples
        """
        check_is_fitted(self, "members_")
        if not isinstance(self.members_[0], BaseDensity):
            raise TypeError(
                f"EnsembleDensity samples from densities of flowdetect, and has {type(self.members_[0]).__name__}; "
                f"draw from its members_ one by one."
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
            An older file of that name is replaced only when the new one is whole.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        _persistence.save(self, path)

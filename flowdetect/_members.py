"""The members of an ensemble: several fits of one density, of any library, with different seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from flowdetect._callbacks import CallbackSupportMixin, begun, ended, subtask, telling, with_callbacks
from flowdetect._documented import Documented
from flowdetect._fitting import all_or_nothing, is_kept
from flowdetect._images import draw_seed
from flowdetect._limits import MOST_MEMBERS, check_count, check_jobs, is_count
from flowdetect._nested import check_within
from flowdetect._opening import check_columns
from flowdetect._protocols import RandomState, Scorer
from flowdetect._resuming import checkpoint_within, further, resuming_seed
from flowdetect._threads import torch_threads


class Members(Documented, CallbackSupportMixin, BaseEstimator):
    """Fits clones of a density with different seeds, and scores with all of them."""

    members_: list[Any]
    keeps_interrupted = True  # a fit interrupted by Ctrl-C keeps the members so far

    def __init__(
        self, density: Scorer, n_members: int = 5, *, n_jobs: int | None = None, random_state: RandomState = None
    ):
        self.density = density
        self.n_members = n_members
        self.n_jobs = n_jobs
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Members:
        """Fit the members, in parallel through joblib; serial and parallel fits give bitwise the same members.

        Parameters
        ----------
        X : rows or images, as for the members
        y : (n,) labels for conditional members, or None

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter of the ensemble or of a member breaks a rule, before any member is trained.
        KeyboardInterrupt
            After Ctrl-C. In a serial fit of flowdetect's densities, the ensemble then has the members trained so far,
            the interrupted one with its best weights. Otherwise, and if there is no member yet, it is unchanged.
        """
        context = begun(self, X, y, int(self.n_members) if is_count(self.n_members) else None)
        interrupt = self._fit(X, y)
        ended(self, context, X, y)
        if interrupt is not None:
            raise interrupt
        return self

    @all_or_nothing
    def _fit(self, X: Any, y: Any) -> KeyboardInterrupt | None:
        self._check_before_fit()
        seed = draw_seed(resuming_seed(self, checkpoint_within(self), X, y))
        seeds = np.random.default_rng(seed).integers(0, 2**31, int(self.n_members)).tolist()
        clones = [_member(self.density, number, seed) for number, seed in enumerate(seeds)]
        listened = [subtask(self, "member") for _ in clones]
        tasks = [(member, task, task and self) for member, task in zip(clones, listened, strict=True)]
        interrupt = None
        if effective_n_jobs(self.n_jobs) == 1:
            self.members_, interrupt = _fit_in_turn(tasks, X, y)
        else:
            self.members_ = list(Parallel(n_jobs=self.n_jobs)(delayed(_fit_one)(X, y, *task) for task in tasks))
        self.__dict__.pop("feature_names_in_", None)  # from an earlier fit
        check_columns(self, X, reset=True)
        for told in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.members_[0], told):
                setattr(self, told, getattr(self.members_[0], told))
        return interrupt

    def _check_before_fit(self) -> None:
        name, n_members = type(self).__name__, self.n_members
        if not is_count(n_members):
            raise ValueError(f"{name} needs n_members, a whole number >= 1, got {n_members!r}.")
        check_count(f"{name}'s n_members", n_members, most=MOST_MEMBERS)
        check_jobs(name, self.n_jobs)
        if isinstance(self.density, FrozenEstimator):
            raise TypeError(
                f"{name} fits {n_members} clones of its density, so the density must not be in FrozenEstimator; pass "
                "it unfrozen."
            )
        check_within(self, "density")

    def member_scores(self, X: ArrayLike) -> NDArray[np.float64]:
        """Score rows with every member: (n, n_members), nats."""
        check_is_fitted(self, "members_")
        check_columns(self, X, reset=False)  # members of other libraries ignore a source's column names
        return np.stack([np.asarray(member.score_samples(X), dtype=np.float64) for member in self.members_], axis=1)

    def _example(self) -> Any:
        """Return a row for a loaded ensemble to score; None if it is not fitted."""
        if not hasattr(self, "members_"):
            return None
        first = self.members_[0]
        return first._example() if hasattr(first, "_example") else np.zeros((1, first.n_features_in_))

    def score_samples(self, X: ArrayLike, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Log-density of the equally weighted mixture of the members: (n,), nats."""
        scores = self.member_scores(X)
        return np.logaddexp.reduce(scores, axis=1) - np.log(scores.shape[1])

    @property
    def image_shape(self) -> Any:
        """The members' image_shape, if they have one; images are then passed on as images."""
        return self._kind().image_shape

    @property
    def n_bins(self) -> Any:
        """The members' n_bins, if they have one."""
        return self._kind().n_bins

    @property
    def image_shape_(self) -> Any:
        """The fitted members', where they have one."""
        return self.members_[0].image_shape_

    @property
    def n_bins_(self) -> Any:
        """The fitted members', where they have one."""
        return self.members_[0].n_bins_

    def _kind(self) -> Any:
        """Return a fitted member; before `fit`, the density to be cloned."""
        return self.members_[0] if hasattr(self, "members_") else self.density


def _member(density: Any, number: int, seed: int) -> Any:
    """Return an unfitted member with its own seed and checkpoints."""
    member = clone(density)
    parameters = member.get_params(deep=True)
    member.set_params(**{name: seed for name in parameters if name.split("__")[-1] == "random_state"})
    for name, path in parameters.items():
        if name.split("__")[-1] == "checkpoint" and path is not None:
            member.set_params(**{name: further(path, f".member{number}")})
    return member


def _fit_in_turn(tasks: list[Any], X: Any, y: Any) -> tuple[list[Any], KeyboardInterrupt | None]:
    """Fit one after the other; after Ctrl-C return the fitted members and the interrupt."""
    members = [member for member, _, _ in tasks]
    for number, member in enumerate(members):
        try:
            _fit_one(X, y, *tasks[number])
        except KeyboardInterrupt as interrupt:
            fitted = members[: number + is_kept(member)]
            if not fitted or not is_kept(fitted[0]):  # densities of other libraries: all members or none
                raise
            return fitted, interrupt
    return members, None


def _fit_one(X: Any, y: Any, member: Any, task: Any, ensemble: Any) -> Any:
    # float32 gradients depend on the number of threads
    with threadpool_limits(1), torch_threads(1), telling(ensemble, task, member, X, y):
        return member.fit(X, y)

"""Cross-conformal calibration: every row is a calibration row, scored by a member that was not trained on it.

Vovk, "Cross-conformal predictors" (2015), https://arxiv.org/abs/1208.0806
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from flowdetect._callbacks import share_task
from flowdetect._fitting import is_kept
from flowdetect._resuming import further
from flowdetect.detectors.clones import LARGEST_SEED
from flowdetect.detectors.rows import Indices, hold_out, take

FEWEST_ROWS = 3  # two to train on, one to calibrate on


class CrossConformal:
    """A detector that may consist of members of its own class, each trained without one fold of the rows."""

    members_: list[Any]
    cv: int | None
    _share: Any
    calibration_fraction: float
    random_state: Any
    calibration_scores_: NDArray[np.float64]
    offset_: float
    image_shape_: tuple[int, int, int] | None
    learns: Any
    _interrupt: KeyboardInterrupt

    def _singles(self) -> Iterator[Any]:
        """Yield the detectors that have a density: the members, or the detector itself."""
        yield from getattr(self, "members_", (self,))

    def _fit_members(self, X: Any, y: Any, random: np.random.RandomState) -> None:
        """Fit one member for each fold to the other folds, and calibrate with the scores that it gives to the fold.

        X has been checked.
        """
        n_rows, n_folds = len(X), int(self.cv or 0)
        if n_rows < max(n_folds, FEWEST_ROWS):
            raise ValueError(
                f"{type(self).__name__} with cv={n_folds} needs at least {max(n_folds, FEWEST_ROWS)} rows, got "
                f"{n_rows} sample(s); give it more, or a smaller cv."
            )
        folds = [np.sort(fold) for fold in np.array_split(random.permutation(n_rows), n_folds)]
        seeds = random.randint(LARGEST_SEED, size=n_folds).tolist()
        members: list[Any] = []
        try:
            for k, fold in enumerate(folds):
                others = np.setdiff1d(np.arange(n_rows), fold)
                member = self._member(k, seeds[k])
                y_others = None if y is None else np.asarray(y)[others]
                interrupt = member._fit_without(take(X, fold), take(X, others), y_others)
                members.append(member)
                if interrupt is not None:
                    raise interrupt
        except KeyboardInterrupt as error:
            if not members or not is_kept(members[0].density_):
                raise
            self._interrupt = error  # keep the members trained so far, and drop the other folds
        for name in [name for name in vars(self) if name.endswith("_") and not name.endswith("__")]:
            if hasattr(members[0], name) and not name.startswith(("n_features_in", "feature_names_in")):
                delattr(self, name)  # of an earlier fit without cv
        self.members_, self.image_shape_ = members, members[0].image_shape_
        self.calibration_scores_ = np.sort(np.concatenate([member.calibration_scores_ for member in members]))
        self.offset_ = float(np.quantile(self.calibration_scores_, self._share))

    def _member(self, number: int, seed: int) -> Any:
        """Return an unfitted copy of this detector with its own seed and files, and the shape of the images."""
        member: Any = clone(self).set_params(cv=None, random_state=seed)
        parameters = member.get_params(deep=True)
        if parameters.get("image_shape", 0) is None:
            member.set_params(image_shape=self.image_shape_)
        for name, path in parameters.items():
            if name.endswith("__checkpoint") and path is not None:
                member.set_params(**{name: further(path, f".member{number}")})
        share_task(self, member)
        return member

    def _fit_without(self: Any, X_fold: Any, X: Any, y: Any) -> KeyboardInterrupt | None:
        """Fit to X as a member, and calibrate on the fold left out of X; return an early KeyboardInterrupt."""
        self._keep_parameters()
        checked = self._check_X(X, reset=True)
        self._check_data(checked)
        random = self._settle_seed(checked, y)
        train: Indices = np.arange(len(checked))
        reference = np.arange(len(checked))
        if self.learns and self.calibration_fraction > 0:
            train, reference = hold_out(len(checked), self.calibration_fraction, random)
        self._learn(checked, y, train, reference, random)
        scores: NDArray[np.float64] = self._finite_scores(self._check_X(X_fold, reset=False))
        self.calibration_scores_ = np.sort(scores)
        self.offset_ = float(np.quantile(scores, self._share))
        interrupt: KeyboardInterrupt | None = self._end_trainings()
        share_task(None, self)
        return interrupt

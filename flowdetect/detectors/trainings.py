"""Interrupted trainings of a detector: checkpoints and the seed for resuming, and Ctrl-C."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state

from flowdetect._callbacks import subtask, telling
from flowdetect._fitting import is_kept
from flowdetect._protocols import PathName, RandomState
from flowdetect._resuming import checkpoint_within, make_folder, resuming_seed
from flowdetect.detectors.clones import with_parameter


class Trainings:
    """A detector whose trainings can resume after a kill, or be ended by Ctrl-C."""

    checkpoint: PathName | None = None  # for detectors of users and of older files that lack this parameter
    keeps_interrupted = True  # after Ctrl-C the detector is complete, or unchanged
    shared: tuple[str, ...]
    prefit: bool
    _seed: RandomState
    _interrupt: KeyboardInterrupt

    def _check_before_fit(self: Any) -> None:
        """Raise if a parameter is invalid for any data; an outer estimator calls this before it trains."""
        self._check_parameters()

    def _settle_seed(self: Any, X: Any, y: Any) -> np.random.RandomState:
        """Set the seed of this fit, and return the generator for all other draws; X has been checked."""
        checkpoint = self.checkpoint
        if checkpoint is not None:
            checkpoint = make_folder(checkpoint)
        else:
            as_they_are = tuple(f"{name}__" for name in self.shared) if self.prefit else ()
            checkpoint = checkpoint_within(self, but=as_they_are)
        self._seed = resuming_seed(self, checkpoint, X, y)
        return check_random_state(self._seed)

    def _with_checkpoints(self, estimator: Any) -> Any:
        """Set the detector's checkpoint on each inner estimator that has none."""
        if self.checkpoint is not None:
            with_parameter(estimator, "checkpoint", None, make_folder(self.checkpoint))
        return estimator

    def _train(self, estimator: Any, X: Any, y: Any = None) -> None:
        """Fit an estimator; if Ctrl-C ends its training and leaves it fitted, keep the interrupt for the end of `fit`.

        The next training then raises the interrupt immediately.
        """
        if "_interrupt" in vars(self):
            if isinstance(estimator, Trainings):
                estimator._interrupt = self._interrupt  # it may calibrate but not train
            elif not isinstance(estimator, FrozenEstimator):
                raise self._interrupt
        task = None if isinstance(estimator, FrozenEstimator) else subtask(self, "training")
        try:
            with telling(self, task, estimator, X, y):
                estimator.fit(X, y)
        except KeyboardInterrupt as interrupt:
            if not is_kept(estimator):
                raise
            self._interrupt = interrupt

    def _end_trainings(self) -> KeyboardInterrupt | None:
        """Delete the seed, and return the interrupt that ended a training early."""
        self.__dict__.pop("_seed", None)
        interrupt: KeyboardInterrupt | None = self.__dict__.pop("_interrupt", None)
        return interrupt

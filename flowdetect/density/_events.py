"""Events for scikit-learn's callbacks: a task for each training, and inside it a task for each epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from flowdetect.density._progress import Place, Progress, show_progress


class Epochs(Progress):
    """Forwards progress to its display and reports epochs to callbacks, which may end the training.

    Parameters
    ----------
    shown : Progress
    begin : callable without arguments
        Begins the task of an epoch and returns its context.
    end : callable of the context
        Ends the task and returns whether training should stop.
    """

    def __init__(self, shown: Progress, begin: Callable[[], Any], end: Callable[[Any], bool]) -> None:
        self.shown, self._begin, self._end = shown, begin, end
        self._task: Any = None

    def begin(self) -> None:
        self._task = self._begin()

    def step(self, place: Place) -> None:
        self.shown.step(place)

    def epoch(self, place: Place) -> bool:
        self.shown.epoch(place)
        self._task.bits_per_dim = place.bits
        self._task.validation_bits_per_dim = place.held_out_bits
        return self._end(self._task)


class FitEvents:
    """The callbacks of one fit.

    Parameters
    ----------
    estimator : the density whose `fit` was called
    context : the root context of its fit
    X, y : the arguments of `fit`
    """

    def __init__(self, estimator: Any, context: Any, X: Any, y: Any) -> None:
        self.estimator, self.context, self.X, self.y = estimator, context, X, y

    def of_training(self, attributes: dict[str, Any], stage: str, n_epochs: int | None) -> TrainingEvents:
        """Return the events of one training of the fit.

        Parameters
        ----------
        attributes : dict
            Fitted attributes that are known before training.
        stage : str
        n_epochs : int, or None if a time limit may end training
        """
        return TrainingEvents(self, attributes, f"training{stage.replace('.', ' ')}", n_epochs)


class TrainingEvents:
    """The callbacks of one training, in the form of a progress display."""

    def __init__(self, fit: FitEvents, attributes: dict[str, Any], name: str, n_epochs: int | None) -> None:
        self.fit, self.attributes, self.name, self.n_epochs = fit, attributes, name, n_epochs

    @contextmanager
    def told(self, shown: AbstractContextManager[Progress], training: Any) -> Iterator[Progress]:
        """Show a training's progress, and report it and its epochs to the callbacks."""
        given: dict[str, Any] = {"estimator": self.fit.estimator, "X": self.fit.X, "y": self.fit.y}
        left = None if self.n_epochs is None else max(0, self.n_epochs - training.epoch)
        task = self.fit.context.subcontext(task_name=self.name, max_subtasks=left)
        task.call_on_fit_task_begin(**given)

        def begin() -> Any:
            epoch = task.subcontext(task_name="epoch")
            return epoch.call_on_fit_task_begin(**given)

        def end(epoch: Any) -> bool:
            return bool(epoch.call_on_fit_task_end(**given, reconstruction_attributes=lambda: self._fitted(training)))

        with shown as progress:
            yield Epochs(progress, begin, end)
        task.call_on_fit_task_end(**given)

    def _fitted(self, training: Any) -> dict[str, Any]:
        """Return the attributes of the density fitted so far, with the weights that training would return now."""
        training.copy_buffers()
        model = copy.deepcopy(training.average)
        if training.best is not None:
            model.load_state_dict(training.best)
        history = {name: list(values) for name, values in training.history.items()}
        return {**self.attributes, "model_": model, "history_": history, "n_iter_": training.epoch}


def watched(training: Any) -> AbstractContextManager[Progress]:
    """Show a training's progress if verbose, and report to callbacks if there are any.

    No bar is built unless it is shown: even a hidden tqdm bar fixes the process's start method.
    """
    shown: AbstractContextManager[Progress] = nullcontext(Progress())
    settings = training.settings
    if training.processes.rank > 0:
        return shown
    if settings.verbose:
        shown = show_progress(settings.progress_name or settings.name, training.step, training.n_steps)
    told: AbstractContextManager[Progress] = shown if settings.events is None else settings.events.told(shown, training)
    return told

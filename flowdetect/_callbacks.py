"""scikit-learn's callbacks, from version 1.9 and experimental there: our estimators tell them where a fit stands.

An estimator is told of callbacks by its own `set_callbacks`, or by an estimator around it. Without any, nothing here
does anything. What scikit-learn has not, or no longer has, is done without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """An estimator that knows no callbacks."""

    def _with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        return method


__all__ = ["CallbackSupportMixin", "begun", "ended", "forgotten", "share_task", "subtask", "telling", "with_callbacks"]
CONTEXT = "_callback_fit_ctx"

Fit = TypeVar("Fit", bound=Callable[..., Any])


def with_callbacks(fit: Fit) -> Fit:
    """Decorate a `fit` that calls `begun`, so that callbacks can tidy up whatever happens."""
    return cast(Fit, _with_callbacks(fit))


def begun(estimator: Any, X: Any, y: Any, n_subtasks: int | None = None) -> Any:
    """Begin the task of a fit, if anybody listens, and tell; give its context or None.

    Parameters
    ----------
    estimator : the one whose `fit`, decorated by `with_callbacks`, begins
    X, y : what it was given
    n_subtasks : int or None
        How many tasks `subtask` will begin in it; None: not known.
    """
    if not (hasattr(estimator, "_skl_callbacks") or hasattr(estimator, "_parent_callback_ctx")):
        return None
    context = estimator._init_callback_context(max_subtasks=n_subtasks)
    context.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
    return context


def ended(estimator: Any, context: Any, X: Any, y: Any, fitted: Any = None) -> None:
    """Tell that a task has ended; `fitted` gives the attributes of an estimator that is fitted so far."""
    if context is not None:
        context.call_on_fit_task_end(estimator=estimator, X=X, y=y, reconstruction_attributes=fitted)


def subtask(estimator: Any, name: str) -> Any:
    """Begin the task of fitting an estimator within one that is being fitted; None if nobody listens."""
    context = vars(estimator).get(CONTEXT)
    return None if context is None else context.subcontext(task_name=name)


def share_task(estimator: Any, member: Any) -> None:
    """Let what a member fits be tasks of the estimator that it is a part of; of None: no longer."""
    if estimator is None:
        vars(member).pop(CONTEXT, None)
    elif CONTEXT in vars(estimator):
        vars(member)[CONTEXT] = vars(estimator)[CONTEXT]


@contextmanager
def telling(estimator: Any, task: Any, within: Any, X: Any, y: Any) -> Iterator[None]:
    """Fit an estimator within another as a task of this: what listens to the outer one listens to the inner one."""
    if task is None:
        yield
        return
    task.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
    with task.propagate_callback_context(within):
        yield
    task.call_on_fit_task_end(estimator=estimator, X=X, y=y)


def forgotten(state: dict[str, Any]) -> dict[str, Any]:
    """Return an estimator's state without its callbacks, which no file keeps."""
    names = ("_skl_callbacks", "_skl_callbacks_to_teardown", "_parent_callback_ctx", CONTEXT)
    return {name: value for name, value in state.items() if name not in names}

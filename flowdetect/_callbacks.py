"""Support for scikit-learn's callbacks (experimental, from version 1.9), which follow the progress of a fit.

An estimator receives callbacks from its own `set_callbacks` or from an enclosing estimator. Without callbacks, the
functions here do nothing. Parts of the interface that scikit-learn lacks or removes are skipped.
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
        """An estimator without callbacks."""

    def _with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        return method


__all__ = ["CallbackSupportMixin", "begun", "ended", "forgotten", "share_task", "subtask", "telling", "with_callbacks"]
CONTEXT = "_callback_fit_ctx"

Fit = TypeVar("Fit", bound=Callable[..., Any])


def with_callbacks(fit: Fit) -> Fit:
    """Decorate a `fit` that calls `begun`, so that callbacks can always clean up."""
    return cast(Fit, _with_callbacks(fit))


def begun(estimator: Any, X: Any, y: Any, n_subtasks: int | None = None) -> Any:
    """Begin the task of a fit and notify the callbacks; return its context, or None without callbacks.

    Parameters
    ----------
    estimator : the estimator whose `fit`, decorated by `with_callbacks`, begins
    X, y : the arguments of `fit`
    n_subtasks : int or None
        Number of tasks that `subtask` will begin in it; None: unknown.
    """
    if not (hasattr(estimator, "_skl_callbacks") or hasattr(estimator, "_parent_callback_ctx")):
        return None
    context = estimator._init_callback_context(max_subtasks=n_subtasks)
    context.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
    return context


def ended(estimator: Any, context: Any, X: Any, y: Any, fitted: Any = None) -> None:
    """Notify the callbacks of a task's end; `fitted` returns the attributes fitted so far."""
    if context is not None:
        context.call_on_fit_task_end(estimator=estimator, X=X, y=y, reconstruction_attributes=fitted)


def subtask(estimator: Any, name: str) -> Any:
    """Begin the task of fitting an inner estimator; return None without callbacks."""
    context = vars(estimator).get(CONTEXT)
    return None if context is None else context.subcontext(task_name=name)


def share_task(estimator: Any, member: Any) -> None:
    """Make a member's fits tasks of the estimator that contains it; end this with None."""
    if estimator is None:
        vars(member).pop(CONTEXT, None)
    elif CONTEXT in vars(estimator):
        vars(member)[CONTEXT] = vars(estimator)[CONTEXT]


@contextmanager
def telling(estimator: Any, task: Any, within: Any, X: Any, y: Any) -> Iterator[None]:
    """Fit an inner estimator as a task of the outer one: the outer estimator's callbacks also follow the inner one."""
    if task is None:
        yield
        return
    task.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
    with task.propagate_callback_context(within):
        yield
    task.call_on_fit_task_end(estimator=estimator, X=X, y=y)


def forgotten(state: dict[str, Any]) -> dict[str, Any]:
    """Return an estimator's state without its callbacks, which files do not store."""
    names = ("_skl_callbacks", "_skl_callbacks_to_teardown", "_parent_callback_ctx", CONTEXT)
    return {name: value for name, value in state.items() if name not in names}

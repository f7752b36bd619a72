"""The state after a fit: the new fit completely or the old one unchanged, independent of later parameters."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from flowdetect._ctrl_c import whole_imports

Fit = TypeVar("Fit", bound=Callable[..., Any])


def all_or_nothing(fit: Fit) -> Fit:
    """Decorate a `fit` so that the estimator is unchanged if `fit` raises or is interrupted.

    It runs on a twin; at the end, one assignment copies the twin's attributes to the estimator. So after any Ctrl-C,
    also a second one, the fit is complete or has not happened. The twin shares the old objects, so `fit` must replace
    learned objects and never change them in place.
    """

    @functools.wraps(fit)
    def whole_fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        twin = object.__new__(type(self))
        twin.__dict__ = vars(self).copy()
        result = fit(twin, *args, **kwargs)
        self.__dict__ = vars(twin)
        return self if result is twin else result

    return cast(Fit, whole_fit)


def is_fitted(given: Any) -> bool:
    """Whether an estimator, of flowdetect or another library, is fitted."""
    try:
        check_is_fitted(given)
    except (NotFittedError, TypeError, AttributeError):  # the last two: not a scikit-learn estimator
        return False
    return True


def is_pipeline(given: Any) -> bool:
    """Whether an object is a scikit-learn Pipeline."""
    with whole_imports():
        from sklearn.pipeline import Pipeline

    return isinstance(given, Pipeline)


def is_kept(estimator: Any) -> bool:
    """Whether an estimator is fitted with its partial results after Ctrl-C ended its `fit`."""
    last = estimator
    while is_pipeline(last):
        last = last.steps[-1][1]
    return bool(getattr(last, "keeps_interrupted", False)) and is_fitted(estimator)


class KeepsParameters:
    """An estimator that, after `fit`, uses the parameters of that fit.

    `set_params` then affects only the next fit. `fit` calls `_keep_parameters`, and later code reads
    ``self._kept["name"]`` instead of ``self.name``.
    """

    kept: ClassVar[tuple[str, ...]] = ()  # names of the parameters needed after `fit`
    _kept: dict[str, Any]

    def _keep_parameters(self) -> None:
        if self.kept:
            self._kept = {name: copy.copy(getattr(self, name)) for name in self.kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        is_fitted = any(name.endswith("_") for name in state)
        if is_fitted and "_kept" not in state:  # a file of version 0.1.0, which read the present parameters
            self._keep_parameters()

"""What a fit leaves behind: a whole fit or the old one, and nothing that depends on later parameters."""

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
    """Decorate a `fit` so that, if it raises or is interrupted, the estimator stays as it was before.

    It runs on a twin, whose attributes the estimator takes over in one assignment at the end: whenever Ctrl-C comes,
    also a second one, the fit is whole or has not happened. The twin holds the same objects, so `fit` must replace
    what it learns and never change the old objects in place.
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
    """Say whether an estimator, ours or anyone's, has been fitted."""
    try:
        check_is_fitted(given)
    except (NotFittedError, TypeError, AttributeError):  # the last two: it is no estimator of scikit-learn's
        return False
    return True


def is_pipeline(given: Any) -> bool:
    """Say whether something is a Pipeline of scikit-learn's."""
    with whole_imports():
        from sklearn.pipeline import Pipeline

    return isinstance(given, Pipeline)


def is_kept(estimator: Any) -> bool:
    """Say whether an estimator whose `fit` Ctrl-C has ended is fitted, with what it had learned by then."""
    last = estimator
    while is_pipeline(last):
        last = last.steps[-1][1]
    return bool(getattr(last, "keeps_interrupted", False)) and is_fitted(estimator)


class KeepsParameters:
    """An estimator that, once fitted, works with the parameters it was fitted with.

    `set_params` then changes the next fit and nothing else. `fit` calls `_keep_parameters`, and the code that runs
    after it reads ``self._kept["name"]`` instead of ``self.name``.
    """

    kept: ClassVar[tuple[str, ...]] = ()  # names of the parameters that are needed after `fit`
    _kept: dict[str, Any]

    def _keep_parameters(self) -> None:
        if self.kept:
            self._kept = {name: copy.copy(getattr(self, name)) for name in self.kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        is_fitted = any(name.endswith("_") for name in state)
        if is_fitted and "_kept" not in state:  # written by version 0.1.0, which read the parameters
            self._keep_parameters()

"""Estimators within estimators: all of them check their parameters before any of them is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sklearn.frozen import FrozenEstimator


def check_within(estimator: Any, *names: str) -> None:
    """Have the estimators among these parameters, and all within them, check their own parameters.

    What is frozen is not trained and not checked. An error says where it comes from, as `set_params` names it.

    Raises
    ------
    ValueError, TypeError, OSError
        As the estimator's `fit` would, but for what it can only tell from data.
    """
    for name in names:
        for where, found in _estimators(name, getattr(estimator, name)):
            try:
                _check(found)
            except (ValueError, TypeError, OSError) as error:
                raise type(error)(f"{type(estimator).__name__}, {where}: {error}") from error


def _check(estimator: Any) -> None:
    if hasattr(estimator, "_check_before_fit"):
        estimator._check_before_fit()
    elif hasattr(estimator, "_parameter_constraints"):
        estimator._validate_params()


def _estimators(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Return each estimator in a parameter's value, the outer ones first, and where it stands."""
    if isinstance(value, FrozenEstimator | type):
        return
    if isinstance(value, list | tuple):
        for number, each in enumerate(value):
            named = isinstance(each, tuple) and len(each) > 1 and isinstance(each[0], str)  # a step of a pipeline
            inner = (f"{where}__{each[0]}", each[1]) if named else (f"{where}[{number}]", each)
            yield from _estimators(*inner)
    elif hasattr(value, "get_params"):
        yield where, value
        for name, each in value.get_params(deep=False).items():
            within = where if name == "steps" else f"{where}__{name}"
            yield from _estimators(within, each)

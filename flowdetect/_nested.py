"""Estimators inside estimators: all check their parameters before any of them is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sklearn.frozen import FrozenEstimator


def check_within(estimator: Any, *names: str) -> None:
    """Make the estimators among these parameters, and all inside them, check their own parameters.

    Frozen estimators are not trained, and so not checked. An error names the parameter as `set_params` does.

    Raises
    ------
    ValueError, TypeError, OSError
        As in the estimator's `fit`, except for rules that depend on data.
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
    """Yield the name and value of each estimator in a parameter's value, the outer ones first."""
    if isinstance(value, FrozenEstimator | type):
        return
    if isinstance(value, list | tuple):
        for number, each in enumerate(value):
            named = isinstance(each, tuple) and len(each) > 1 and isinstance(each[0], str)  # a step of a Pipeline
            inner = (f"{where}__{each[0]}", each[1]) if named else (f"{where}[{number}]", each)
            yield from _estimators(*inner)
    elif hasattr(value, "get_params"):
        yield where, value
        for name, each in value.get_params(deep=False).items():
            within = where if name == "steps" else f"{where}__{name}"
            yield from _estimators(within, each)

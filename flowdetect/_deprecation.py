"""Old names of parameters, methods and functions: they work for one minor version and warn with a FutureWarning.

docs/contributing/deprecations.rst says when to use which.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from flowdetect._warning import warn

DEPRECATED = "deprecated"  # default of a parameter under its old name


def warn_renamed(old: str, new: str, *, since: str, removed_in: str) -> None:
    """Warn, at the line of the user, that a name has become another: the first statement of what the old name does.

    Parameters
    ----------
    old, new : str
        As the user writes them, such as ``GlowDensity.old_method``.
    since, removed_in : str
        Versions: the first with the new name, and the first without the old one.
    """
    warn(f"{old} is deprecated since {since} and is removed in {removed_in}; use {new} instead.", FutureWarning)


def renamed_parameter(estimator: Any, old: str, new: str, *, since: str, removed_in: str) -> Any:
    """Return the value of a renamed parameter of an estimator, called by `fit`; warn if it came under the old name.

    The constructor takes and stores both, the old one last and with the default `DEPRECATED`, so that `get_params`,
    `set_params` and `clone` treat both as any parameter. `fit` calls this function and uses what it returns.

    Raises
    ------
    ValueError
        If both are given.
    """
    given, value = getattr(estimator, old), getattr(estimator, new)
    if isinstance(given, str) and given == DEPRECATED:
        return value
    name, default = type(estimator).__name__, signature(type(estimator)).parameters[new].default
    if repr(value) != repr(default):  # as scikit-learn tells a changed parameter
        both = f"{new}={value!r} and {old}={given!r}"
        raise ValueError(f"{name} takes {new} or its old name {old}, not both, got {both}; use {new}.")
    warn_renamed(f"{name}({old}=...)", f"{new}={given!r}", since=since, removed_in=removed_in)
    return given

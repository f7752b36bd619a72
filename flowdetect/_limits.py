"""Checks of users' numbers: other types, and sizes that no machine can handle, are refused before any computation.

Booleans are not numbers here: Python treats True as 1, but it usually comes from a mistaken argument.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np

MOST_DRAWN = 10**8  # rows or resamples; more take days or terabytes
MOST_MEMBERS = 10_000
MOST_RESAMPLES = 10**5
MOST_STEPS = 10**6  # steps of a training with few parameters
LARGEST_SEED = 2**32 - 1


def is_count(value: Any, least: int = 1, most: int | None = None) -> bool:
    """Whether a value is a whole number from `least` to `most`, and not a boolean."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        return False
    return most is None or value <= most


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number, and not a boolean."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number too large for float64
        return False


def check_count(name: str, value: Any, least: int = 1, most: int = MOST_DRAWN) -> int:
    """Return a whole number from `least` to `most`, or raise ValueError."""
    if not is_count(value, least):
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}.")
    if value > most:
        raise ValueError(
            f"{name} must be at most {most}, got {short(value)}; more takes days or terabytes: split the work into "
            "parts."
        )
    return int(value)


def check_seed(random_state: Any) -> None:
    """Refuse a random_state that is neither None, a seed nor a RandomState."""
    if random_state is None or isinstance(random_state, np.random.RandomState):
        return
    if not is_count(random_state, 0, LARGEST_SEED):
        raise ValueError(
            f"random_state must be None, a whole number 0..2**32 - 1 or a RandomState, got {short(random_state)}."
        )


def check_jobs(name: str, n_jobs: Any) -> None:
    """Refuse an n_jobs that is neither None nor a number of jobs; negative numbers count back from all processors."""
    if n_jobs is None:
        return
    if not is_count(n_jobs, -MOST_MEMBERS, MOST_MEMBERS) or n_jobs == 0:
        raise ValueError(
            f"{name} needs n_jobs=None, a whole number of parallel fits, at most {MOST_MEMBERS}, or -1 for one per "
            f"processor, got {short(n_jobs)}."
        )


def short(value: Any) -> str:
    """Return a value as text, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"

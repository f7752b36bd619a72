"""Numbers that users give: what is no number, and what no machine could do, is refused before anything is computed.

True is no number here: it stands for 1 in Python, and comes from a mistaken argument.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np

MOST_DRAWN = 10**8  # rows, resamples: more take days, or terabytes
MOST_MEMBERS = 10_000
MOST_RESAMPLES = 10**5
MOST_STEPS = 10**6  # of one training of a few numbers
LARGEST_SEED = 2**32 - 1


def is_count(value: Any, least: int = 1, most: int | None = None) -> bool:
    """Whether it is a whole number from `least` to `most`, which a boolean is not."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        return False
    return most is None or value <= most


def is_number(value: Any) -> bool:
    """Whether it is a finite real number, which a boolean is not."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number beyond float64
        return False


def check_count(name: str, value: Any, least: int = 1, most: int = MOST_DRAWN) -> int:
    """Return a whole number from `least` to `most`, or raise ValueError."""
    if not is_count(value, least):
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}.")
    if value > most:
        raise ValueError(
            f"{name} must be at most {most}, got {short(value)}; more takes days or terabytes: do it in parts."
        )
    return int(value)


def check_seed(random_state: Any) -> None:
    """Refuse what is neither None, a seed nor a RandomState."""
    if random_state is None or isinstance(random_state, np.random.RandomState):
        return
    if not is_count(random_state, 0, LARGEST_SEED):
        raise ValueError(
            f"random_state must be None, a whole number 0..2**32 - 1 or a RandomState, got {short(random_state)}."
        )


def check_jobs(name: str, n_jobs: Any) -> None:
    """Refuse what is neither None nor a number of jobs, which is negative where it counts from the processors."""
    if n_jobs is None:
        return
    if not is_count(n_jobs, -MOST_MEMBERS, MOST_MEMBERS) or n_jobs == 0:
        raise ValueError(
            f"{name} needs n_jobs=None or a whole number of fits at a time, at most {MOST_MEMBERS}, or -1 for one a "
            f"processor, got {short(n_jobs)}."
        )


def short(value: Any) -> str:
    """Write a value, a long number by its first digits."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"

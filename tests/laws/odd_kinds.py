"""What is said of an odd input: that it must be refused, or taken."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Refused(NamedTuple):
    """An X that must be refused, and words of the message: rule, value, remedy."""

    make: Callable[[], Any]
    words: tuple[str, ...]


class Taken(NamedTuple):
    """An X that must be taken, and the ordinary form that must have the same scores."""

    make: Callable[[], Any]
    ordinary: Any
    rtol: float = 0.0  # of what computes in a narrower dtype


def words(*found):
    return tuple(found)

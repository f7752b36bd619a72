"""Warnings that point to the user's line of code, whatever the number of calls in between."""

from __future__ import annotations

import sys
import warnings

INSIDE = ("flowdetect.", "sklearn.", "contextlib", "functools")  # names of modules, or their prefixes


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the innermost line outside of flowdetect and scikit-learn."""
    frame, level = sys._getframe(1), 3  # level 1 is this function, 2 its caller
    while frame.f_back is not None and str(frame.f_back.f_globals.get("__name__", "")).startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)

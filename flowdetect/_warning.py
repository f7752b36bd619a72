"""Warnings that point at the line of the user which led to them, however many calls lie between."""

from __future__ import annotations

import sys
import warnings

INSIDE = ("flowdetect.", "sklearn.", "contextlib", "functools")  # names of modules, or how they begin


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of the innermost line that is neither of flowdetect nor of scikit-learn."""
    frame, level = sys._getframe(1), 3  # 1 is this function, 2 its caller
    while frame.f_back is not None and str(frame.f_back.f_globals.get("__name__", "")).startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)

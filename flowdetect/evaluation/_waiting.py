"""Lines on stderr that name what a report is waiting for, after a few seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flowdetect._limits import is_count, short

FIRST_SECONDS, LINE_SECONDS = 3.0, 10.0  # until the first line, and between two


@contextmanager
def waiting(report: str, n_steps: int, verbose: Any) -> Iterator[Callable[[str], None]]:
    """Return a function that is told of each step as it begins; lines on stderr say which one takes its time.

    A thread of its own writes them, because a step is one call of a scorer, which may take minutes.

    Raises
    ------
    ValueError
        If `verbose` is no whole number >= 0.
    """
    if not isinstance(verbose, bool) and not is_count(verbose, 0):
        raise ValueError(f"verbose must be a whole number >= 0, where 0 is silent, got {short(verbose)}.")
    if not verbose or sys.stderr is None:  # None: a program without a console
        yield lambda step: None
        return
    steps: list[str] = []
    done, started = threading.Event(), time.monotonic()

    def write_lines() -> None:
        pause = FIRST_SECONDS
        while not done.wait(pause):
            pause = LINE_SECONDS
            step = f"{steps[-1]}, {len(steps)} of {n_steps}" if steps else "getting ready"
            sys.stderr.write(f"{report}: {step} ({time.monotonic() - started:.0f} s)\n")
            sys.stderr.flush()

    writer = threading.Thread(target=write_lines, daemon=True)
    writer.start()
    try:
        yield steps.append
    finally:
        done.set()
        writer.join()

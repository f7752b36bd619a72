"""Ctrl-C held back: until an import is whole, or until a training is in a state to keep."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class CtrlC:
    """Hold Ctrl-C back while in this context.

    Nothing is held where Ctrl-C is ignored, as in a job in the background; in a thread other than the main one, which
    never gets it; and where its handler was not set from Python, so that it could not be put back. On leaving, the
    handler is the one that was there.

    Parameters
    ----------
    second : "waits" or "goes through"
        What a second Ctrl-C does while a first one is held.

    Attributes
    ----------
    pending : bool
        Whether Ctrl-C was pressed.
    """

    def __init__(self, second: str = "waits") -> None:
        self.pending = False
        self._second = second
        self._previous: Any = None

    def __enter__(self) -> CtrlC:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if handler not in (signal.SIG_IGN, None):
                self._previous = handler
                signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def outcome(self) -> BaseException | None:
        """Hand a held Ctrl-C on to the handler that was there, and give what it raises, KeyboardInterrupt as a rule."""
        if not self.pending:
            return None
        try:
            self.hand_on()
        except BaseException as raised:
            return raised
        return None

    def hand_on(self) -> None:
        """Let a held Ctrl-C do what it would have done without us."""
        within = self._is_installed()
        self._restore()
        self.pending = False
        signal.raise_signal(signal.SIGINT)
        if within:  # a handler that raises nothing wants to go on
            signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.pending and self._second == "goes through":
            self.hand_on()
        else:
            self.pending = True

    def _is_installed(self) -> bool:
        return self._previous is not None and signal.getsignal(signal.SIGINT) == self._handle

    def _restore(self) -> None:
        if self._is_installed():
            signal.signal(signal.SIGINT, self._previous)


@contextmanager
def whole_imports() -> Iterator[None]:
    """Let Ctrl-C wait for the imports inside: a library that is imported by half can often not be imported again."""
    held = CtrlC()
    try:
        with held:
            yield
    finally:
        if held.pending:
            held.hand_on()

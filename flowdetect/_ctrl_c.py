"""Delayed Ctrl-C: until an import is complete, or until a training's state can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class CtrlC:
    """Delay Ctrl-C inside this context.

    Nothing is delayed if Ctrl-C is ignored (as in a background job), in threads other than the main one (which never
    receive it), or if the handler was not set from Python and so could not be restored. At the end the former handler
    is restored.

    Parameters
    ----------
    second : "waits" or "goes through"
        Effect of a second Ctrl-C while the first one is delayed.

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
        """Pass a delayed Ctrl-C to the former handler, and return its exception, usually KeyboardInterrupt."""
        if not self.pending:
            return None
        try:
            self.hand_on()
        except BaseException as raised:
            return raised
        return None

    def hand_on(self) -> None:
        """Pass a delayed Ctrl-C to the former handler."""
        within = self._is_installed()
        self._restore()
        self.pending = False
        signal.raise_signal(signal.SIGINT)
        if within:  # a handler that raises nothing lets the program continue
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
    """Delay Ctrl-C until the imports inside are complete: a half-imported library often cannot be imported again."""
    held = CtrlC()
    try:
        with held:
            yield
    finally:
        if held.pending:
            held.hand_on()

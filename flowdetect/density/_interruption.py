"""Ctrl-C that waits until a training is in a state to keep."""

from __future__ import annotations

from flowdetect._ctrl_c import CtrlC


class Interruption(CtrlC):
    """Ctrl-C during training waits for the end of the step; a second one goes through at once."""

    def __init__(self) -> None:
        super().__init__(second="goes through")

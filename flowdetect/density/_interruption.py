"""Ctrl-C that waits until the state of a training can be kept."""

from __future__ import annotations

from flowdetect._ctrl_c import CtrlC


class Interruption(CtrlC):
    """Ctrl-C during training waits for the end of the step; a second Ctrl-C takes effect at once."""

    def __init__(self) -> None:
        super().__init__(second="goes through")

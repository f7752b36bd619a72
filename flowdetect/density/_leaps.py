"""Leaps of the loss: finite values so far above recent ones that a step would ruin the weights."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from flowdetect._warning import warn
from flowdetect.density.settings import TrainingSettings

RECENT = 20  # steps
LEAP = 30.0  # above the median of the last steps: bits/dim, or mean absolute deviations if these exceed 1


@dataclass
class Leaps:
    """The loss of the last steps, bits/dim, and the count of leaps above it."""

    recent: list[float] = field(default_factory=list)
    count: int = 0
    largest: float = 0.0
    recoveries: int = 0  # returns to earlier weights

    def is_leap(self, value: float) -> bool:
        """Whether a finite loss lies far above those of the last steps; counts it if so."""
        if len(self.recent) < RECENT:
            return False
        usual = statistics.median(self.recent)
        spread = statistics.fmean(abs(other - usual) for other in self.recent)
        if value <= usual + LEAP * max(1.0, spread):
            return False
        self.count += 1
        self.largest = max(self.largest, value)
        return True

    def accept(self, value: float) -> None:
        """Add a step's loss to the last ones."""
        self.recent = [*self.recent[1 - RECENT :], value]

    def warn(self, settings: TrainingSettings, n_steps: int) -> None:
        """Warn of steps skipped because of leaps."""
        if not self.count:
            return
        back = f", and training went back to earlier weights {self.recoveries} time(s)" if self.recoveries else ""
        warn(
            f"{settings.name}: in {self.count} of {n_steps} steps the loss leapt, up to {self.largest:.3g} bits/dim; "
            f"these steps were skipped{back}. Lower learning_rate (now {settings.learning_rate:g}), or look for "
            "extreme values in X."
        )

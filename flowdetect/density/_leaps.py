"""Leaps of the loss: finite values so far above the last ones that a step on them would ruin the weights."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from flowdetect._warning import warn
from flowdetect.density.settings import TrainingSettings

RECENT = 20  # steps
LEAP = 30.0  # bits/dim above the median of the last steps, and as many of their mean deviations


@dataclass
class Leaps:
    """The loss of the last steps, bits/dim, and what leapt above it."""

    recent: list[float] = field(default_factory=list)
    count: int = 0
    largest: float = 0.0
    recoveries: int = 0  # returns to earlier weights

    def is_leap(self, value: float) -> bool:
        """Whether a finite loss lies far above those of the last steps; it is counted if so."""
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
        """Take a step's loss among the last ones."""
        self.recent = [*self.recent[1 - RECENT :], value]

    def warn(self, settings: TrainingSettings, n_steps: int) -> None:
        """Warn of steps that were skipped because the loss leapt."""
        if not self.count:
            return
        back = f", and training went back to earlier weights {self.recoveries} time(s)" if self.recoveries else ""
        warn(
            f"{settings.name}: in {self.count} of {n_steps} steps the loss leapt, to as much as {self.largest:.3g} "
            f"bits/dim; they were skipped{back}. Lower learning_rate (now {settings.learning_rate:g}), or look for "
            f"extreme values in X."
        )

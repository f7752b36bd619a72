"""A time limit as a number of steps, from the speed of the first steps; the learning-rate schedule spans them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WARM_UP_STEPS = 2  # slower than later steps, and not measured
FEWEST_MEASURED = 3
# There are two plans: a first one, for the warm-up of the learning rate, and the final one. Each is made when its share
# of the remaining seconds is used and FEWEST_MEASURED steps are measured, or when the larger share is used, even with
# fewer steps.
MEASURED_SHARES = ((0.02, 0.1), (0.1, 0.25))
PLANNED_SHARE = 0.95  # of the limit; the rest is a reserve for slower steps
VALIDATION_SHARE = 0.05  # of the limit: maximum for one pass over the held-out rows
HARD_STOP = 1.1  # times the limit: training ends then, even before the last planned step
STORED = ("limit", "n_steps", "n_plans", "n_held_out", "exceeded")


@dataclass
class TimePlan:
    """The seconds that a training has used, and the number of steps that fit into its limit.

    Attributes
    ----------
    limit : float
        Seconds; infinite: no limit.
    started : float
        Value of time.monotonic() from which seconds count; earlier than this run's start by the seconds of earlier
        runs.
    n_steps : int or None
        Number of steps in all that fit; None: not known yet.
    n_plans : int
        Number of plans (of MEASURED_SHARES) made so far; after the last, n_steps is final.
    n_held_out : int or None
        Held-out rows per validation pass; None: all.
    exceeded : bool
        Whether training ended before its last planned step because steps became slower.
    """

    limit: float
    started: float
    n_steps: int | None = None
    n_plans: int = 0
    n_held_out: int | None = None
    exceeded: bool = False
    validation_seconds: float = 0.0
    left: float = math.inf  # seconds at the first step of this run
    n_noted: int = 0  # steps of this run until the last plan, and their seconds: all, warm-up, last
    noted_seconds: float = 0.0
    warm_up_seconds: float = 0.0
    last_seconds: float = 0.0
    step_started: float = 0.0

    @property
    def is_limited(self) -> bool:
        return math.isfinite(self.limit)

    @property
    def seconds(self) -> float:
        """Seconds used so far, including earlier runs."""
        return time.monotonic() - self.started

    # ---- measuring

    def time_validation(self, evaluate: Callable[[int], object], n_rows: int, chunk_length: int) -> None:
        """Measure the time per row of a validation pass; if all rows take too long, use fewer."""
        n_timed = min(n_rows, chunk_length)
        evaluate(n_timed)
        started = time.monotonic()
        evaluate(n_timed)
        row_seconds = (time.monotonic() - started) / n_timed
        affordable = int(VALIDATION_SHARE * self.limit / max(row_seconds, 1e-9))
        self.n_held_out = min(n_rows, max(n_timed, affordable))
        self.validation_seconds = row_seconds * self.n_held_out

    def begin_step(self) -> None:
        self.step_started = time.monotonic()
        if not self.n_noted:
            self.left = self.limit - self.seconds

    def end_step(self) -> bool:
        """Note a step; return whether the next plan can now be made."""
        self.check()
        if self.n_plans == len(MEASURED_SHARES):
            return False
        self.last_seconds = time.monotonic() - self.step_started
        self.n_noted += 1
        self.noted_seconds += self.last_seconds
        if self.n_noted == WARM_UP_STEPS:
            self.warm_up_seconds = self.noted_seconds
        share, largest_share = MEASURED_SHARES[self.n_plans]
        are_enough = self.n_noted >= WARM_UP_STEPS + FEWEST_MEASURED
        return self.noted_seconds >= self.left * (share if are_enough else largest_share)

    def check(self) -> None:
        """Check whether the limit is far exceeded."""
        self.exceeded = self.exceeded or self.seconds > HARD_STOP * self.limit

    # ---- planning

    def plan_steps(self, step: int, n_batches: int, checkpoint_seconds: float) -> None:
        """Plan the number of steps; validation and a checkpoint follow each epoch of n_batches and the last step."""
        n_measured = self.n_noted - WARM_UP_STEPS
        measured_seconds = self.noted_seconds - self.warm_up_seconds
        step_seconds = measured_seconds / n_measured if n_measured > 0 else self.last_seconds
        epoch_end = self.validation_seconds + checkpoint_seconds
        left = PLANNED_SHARE * self.limit - self.seconds - epoch_end
        self.n_plans += 1
        self.n_steps = step + max(0, int(left / max(step_seconds + epoch_end / n_batches, 1e-9)))

    # ---- checkpoints

    def state(self) -> dict[str, Any]:
        return {"seconds": self.seconds, **{name: getattr(self, name) for name in STORED}}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue the plan of an earlier run and count its seconds."""
        self.started -= state["seconds"]
        for name in STORED:
            setattr(self, name, state[name])

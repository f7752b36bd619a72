"""A time limit as a number of steps: the first steps show how many fit, and the learning rate is laid over these."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

WARM_UP_STEPS = 2  # slower than those after them, and not measured
FEWEST_MEASURED = 3  # steps, and at least the following share of the seconds that are left ...
MEASURED_SHARE = 0.02
MOST_MEASURED_SHARE = 0.1  # ... but no more than this share, however few steps it holds
PLANNED_SHARE = 0.95  # of the limit; the rest is for steps that take longer than those measured
VALIDATION_SHARE = 0.05  # of the limit: the most that one pass over the held-out rows may take
HARD_STOP = 1.1  # times the limit: training ends there even if steps of the plan are left
STORED = ("limit", "n_steps", "n_held_out", "exceeded")


@dataclass
class TimePlan:
    """The seconds that a training has used, and the number of steps that fit in those it may use.

    Attributes
    ----------
    limit : float
        Seconds; infinite: training takes as long as its epochs take.
    started : float
        The time.monotonic() that seconds count from; earlier than the run if an earlier run used some.
    n_steps : int or None
        Steps that fit, counted from the first of all; None: not known yet.
    n_held_out : int or None
        Held-out rows in a validation pass; None: all of them.
    exceeded : bool
        Whether training had to end before its last step, since steps took longer than those measured.
    """

    limit: float
    started: float
    n_steps: int | None = None
    n_held_out: int | None = None
    exceeded: bool = False
    validation_seconds: float = 0.0
    left: float = math.inf  # seconds at the first step of this run
    durations: list[float] = field(default_factory=list)  # seconds of this run's steps until the number is known
    step_started: float = 0.0

    @property
    def is_limited(self) -> bool:
        return math.isfinite(self.limit)

    @property
    def seconds(self) -> float:
        """Seconds used so far, those of earlier runs included."""
        return time.monotonic() - self.started

    # ---- measuring

    def time_validation(self, evaluate: Callable[[int], object], n_rows: int, chunk_length: int) -> None:
        """Measure what a row of a validation pass takes; where all rows take too long, pass over fewer of them."""
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
        if not self.durations:
            self.left = self.limit - self.seconds

    def end_step(self) -> bool:
        """Note a step; return whether the number of steps can now be planned."""
        self.check()
        if self.n_steps is not None or not self.is_limited:
            return False
        self.durations.append(time.monotonic() - self.step_started)
        spent = sum(self.durations)
        measured = len(self.durations) - WARM_UP_STEPS >= FEWEST_MEASURED and spent >= MEASURED_SHARE * self.left
        return measured or spent >= MOST_MEASURED_SHARE * self.left

    def check(self) -> None:
        """Notice that the limit is far exceeded."""
        self.exceeded = self.exceeded or self.seconds > HARD_STOP * self.limit

    # ---- planning

    def fix(self, step: int, n_batches: int, checkpoint_seconds: float) -> None:
        """Plan the number of steps; validation and a checkpoint follow each epoch of n_batches and the last step."""
        step_seconds = statistics.fmean(self.durations[WARM_UP_STEPS:] or self.durations[-1:])
        epoch_end = self.validation_seconds + checkpoint_seconds
        left = PLANNED_SHARE * self.limit - self.seconds - epoch_end
        self.n_steps = step + max(0, int(left / max(step_seconds + epoch_end / n_batches, 1e-9)))

    # ---- checkpoints

    def state(self) -> dict[str, Any]:
        return {"seconds": self.seconds, **{name: getattr(self, name) for name in STORED}}

    def restore(self, state: dict[str, Any]) -> None:
        """Follow the plan of an earlier run, whose seconds count."""
        self.started -= state["seconds"]
        for name in STORED:
            setattr(self, name, state[name])

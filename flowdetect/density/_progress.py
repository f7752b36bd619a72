"""Progress of a training or of sampling on stderr: a bar in terminals and notebooks, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from flowdetect._ctrl_c import whole_imports

LINE_SECONDS = 10.0  # between two lines within an epoch or during sampling
BAR_AFTER = 2.0  # seconds of sampling before a bar is shown

T = TypeVar("T")


class Place(NamedTuple):
    """The position of a training: steps and epochs count from 1; totals are those of the current plan."""

    step: int
    n_steps: int
    epoch: int
    n_epochs: int
    bits: float  # bits/dim, mean of the epoch so far
    held_out_bits: float | None  # at the end of an epoch


class Progress:
    """Shows nothing; the base class of the displays."""

    def begin(self) -> None:
        """Handle the start of an epoch."""

    def step(self, place: Place) -> None:
        """Show a finished step."""

    def epoch(self, place: Place) -> bool:
        """Show a finished epoch; return whether training should end with it."""
        return False


class Bar(Progress):
    """A tqdm bar, whose total follows the plan."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def step(self, place: Place) -> None:
        if self.bar.total != place.n_steps:
            self.bar.reset(total=place.n_steps)  # the only way to change a notebook bar's total
            self.bar.n = self.bar.initial = self.bar.last_print_n = place.step - 1
        self.bar.update()
        self.bar.set_postfix_str(f"{place.bits:.4f} bits/dim", refresh=False)


class Lines(Progress):
    """One line per epoch, and one every LINE_SECONDS within a long epoch."""

    def __init__(self, name: str, first_step: int) -> None:
        self.name, self.first_step = name, first_step
        self.started = self.written = time.monotonic()

    def step(self, place: Place) -> None:
        if time.monotonic() - self.written >= LINE_SECONDS:
            self._write(place)

    def epoch(self, place: Place) -> bool:
        self._write(place)
        return False

    def _write(self, place: Place) -> None:
        self.written = time.monotonic()
        elapsed = self.written - self.started
        left = elapsed * (place.n_steps - place.step) / max(1, place.step - self.first_step)
        held_out = "" if place.held_out_bits is None else f", held out {place.held_out_bits:.4f}"
        _write_line(
            f"{self.name}: epoch {place.epoch}/{place.n_epochs}, step {place.step}/{place.n_steps}, "
            f"{place.bits:.4f} bits/dim{held_out}",
            elapsed,
            left,
        )


def _write_line(text: str, elapsed: float, left: float) -> None:
    """Write a line that ends like tqdm's: [seconds elapsed<seconds left]."""
    with whole_imports():
        from tqdm.std import tqdm

    sys.stderr.write(f"{text} [{tqdm.format_interval(elapsed)}<{tqdm.format_interval(left)}]\n")
    sys.stderr.flush()


def redraws() -> bool:
    """Whether stderr can be redrawn: it is a terminal or belongs to a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return sys.stderr.isatty() or (shell is not None and "IPKernelApp" in shell.config)


@contextmanager
def show_progress(name: str, step: int, n_steps: int) -> Iterator[Progress]:
    """Show the progress of a training that starts at the given step."""
    if sys.stderr is None:  # a program without a console
        yield Progress()
    elif not redraws():
        yield Lines(name, step)
    else:
        with whole_imports():
            from tqdm.auto import tqdm

        with tqdm(total=n_steps, initial=step, desc=name, unit="batch") as bar:
            yield Bar(bar)


def show_sampling(pixels: Iterator[T], n_pixels: int) -> Iterable[T]:
    """Yield the pixels of a sample, and show progress if sampling is slow."""
    if sys.stderr is None:
        return pixels
    if not redraws():
        return _with_lines(pixels, n_pixels)
    with whole_imports():
        from tqdm.auto import tqdm

    bar: Iterable[T] = tqdm(pixels, desc="sampling", total=n_pixels, unit="pixel", delay=BAR_AFTER)
    return bar


def _with_lines(pixels: Iterator[T], n_pixels: int) -> Iterator[T]:
    started = written = time.monotonic()
    for n_drawn, pixel in enumerate(pixels):
        yield pixel
        now = time.monotonic()
        if now - written >= LINE_SECONDS:
            written, elapsed = now, now - started
            left = elapsed * (n_pixels - n_drawn - 1) / (n_drawn + 1)
            _write_line(f"sampling: pixel {n_drawn + 1}/{n_pixels}", elapsed, left)

"""What the benchmarks share: ours and the peers in turn, ratios with their spread, the machine, results as JSON.

Whatever is compared runs in one process, a block of the one after a block of the other, round after round, so that
what else the machine does falls on all. A ratio is that of two blocks of one round; what is reported is the median over
the rounds, with the least and the largest.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import flowdetect
from flowdetect._threads import torch_threads

Seconds = dict[str, list[float]]  # of each block, by who ran it
OURS = "flowdetect"
PACKAGES = ("torch", "numpy", "scikit-learn", "normflows", "nflows", "zuko", "FrEIA", "torchflows", "pyod")


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """Make the parser of a benchmark's command, with the options that all of them have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="each in turn, e.g. 1 2")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    return parser


# ---- blocks in turn


def seconds_of(function: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def in_turn(blocks: dict[str, Callable[[], object]], n_rounds: int) -> Seconds:
    """Call every block once in each round, after a first round that does not count."""
    for block in blocks.values():
        block()
    seconds: Seconds = {name: [] for name in blocks}
    for _ in range(n_rounds):
        for name, block in blocks.items():
            seconds[name].append(seconds_of(block))
    return seconds


class AfterEachEpoch:
    """A callback of scikit-learn that times each epoch of our training, and then lets the rivals train a block each."""

    def __init__(self, rivals: dict[str, Callable[[], object]]) -> None:
        self.rivals = rivals
        self.n_threads = torch.get_num_threads()
        self.seconds: Seconds = {OURS: [], **{name: [] for name in rivals}}
        self.started = 0.0

    def setup(self, estimator: Any, context: Any) -> None:
        """Nothing to set up."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Nothing to take down."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Start the clock of an epoch."""
        if context.task_name == "epoch":
            self.started = time.perf_counter()

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """Stop it; then each rival has its turn, with the threads and the gradients that it has by itself."""
        if context.task_name != "epoch":
            return
        self.seconds[OURS].append(time.perf_counter() - self.started)
        with torch_threads(self.n_threads), torch.enable_grad():
            for name, block in self.rivals.items():
                self.seconds[name].append(seconds_of(block))


def train_in_turn(density: Any, X: Any, rivals: dict[str, Callable[[], object]], n_first: int = 1) -> Seconds:
    """Fit a density, a block of each rival after each epoch; the first round, or n_first of them, does not count."""
    callback = AfterEachEpoch(rivals)
    density.set_callbacks(callback).fit(X)
    density.set_callbacks()
    return {name: seconds[n_first:] for name, seconds in callback.seconds.items()}


# ---- memory


def _status(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


def peak_of(function: Callable[[], object]) -> float:
    """By how many MB the resident memory of this process rose above what it held, at most, in a call (Linux)."""
    gc.collect()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)  # what was freed is returned first
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    held = _status("VmRSS")
    function()
    return _status("VmHWM") - held


# ---- what is reported


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and largest of some values, to four digits."""
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def rates(seconds: Seconds, units: int) -> dict[str, dict[str, float]]:
    """Units a second of each, where a block is so many units."""
    return {name: spread([units / value for value in values]) for name, values in seconds.items()}


def ratios(seconds: Seconds, ours: str = OURS) -> dict[str, dict[str, float]]:
    """How many times the speed of each other ours is, round by round."""
    return {
        name: spread([theirs / own for own, theirs in zip(seconds[ours], values, strict=True)])
        for name, values in seconds.items()
        if name != ours
    }


def compared(seconds: Seconds, units: int) -> dict[str, Any]:
    """Give rates and ratios of blocks that ran in turn."""
    return {"per_second": rates(seconds, units), "ratio": ratios(seconds), "rounds": len(seconds[OURS])}


def told(what: str, found: dict[str, Any]) -> dict[str, Any]:
    """Print a comparison in one line, and hand it on."""
    rate = ", ".join(f"{name} {value['median']:.4g}" for name, value in found["per_second"].items())
    ratio = ", ".join(f"{v['median']:.2f} ({v['low']:.2f} to {v['high']:.2f}) x {k}" for k, v in found["ratio"].items())
    print(f"{what}: a second {rate}; ours is {ratio or 'alone'}", flush=True)
    return found


# ---- where it ran, and what is kept


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _is_compiled() -> bool:
    """Whether our networks in C are there and in use; older versions have none."""
    if find_spec("flowdetect.nets.compiled") is None:
        return False
    from flowdetect.nets import compiled

    return bool(compiled.library()[1] > 0)


def _git(*command: str) -> str:
    try:
        here = Path(flowdetect.__file__).parent  # the code that was measured
        return subprocess.run(("git", *command), cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def conditions() -> dict[str, Any]:
    """When, of which commit and on what machine a run was made, and with which versions."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    found = {name: _version(name) for name in PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".")),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "bfloat16": bool(capabilities.get("avx512_bf16")),
            "matrix unit": bool(capabilities.get("amx_bf16")),
            "compiled": _is_compiled(),
            "card": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {name: value for name, value in found.items() if value},
    }


def keep(path: Path | None, benchmark: str, quick: bool, results: Any) -> None:
    """Write the results with their conditions to a file, where one is named."""
    if path is None:
        return
    whole = {"benchmark": benchmark, **conditions(), "quick": quick, "results": results}
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(whole, indent=1) + "\n")
    part.replace(path)

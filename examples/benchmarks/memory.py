"""Memory of fitting and scoring a memory map of 3 GB, and the time of scoring one row.

    python examples/benchmarks/memory.py table|images|rows [--folder DIR] [--quick]

"table": 19 million rows of 20 columns, float64; "images": 3.9 million of 28x28, uint8. A small Glow is fitted for one
epoch in batches of 65,536 rows or 1,024 images, then all rows, or 400,000 images, are scored. Printed is by how much
the anonymous memory of the process rose above its start, once everything was imported (Linux). "rows": processor time
of scoring one row of ten columns, by densities of default size.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from flowdetect import GlowDensity, MAFDensity, PixelCNNDensity, RealNVPDensity, VAEDensity

SHAPES = {"table": (19_000_000, 20), "images": (3_900_000, 28, 28)}
N_SCORED = {"table": 19_000_000, "images": 400_000}
DTYPES = {"table": np.float64, "images": np.uint8}
BLOCK = 100_000


class Peak:
    """The highest anonymous memory since the last reset, MiB, looked at every 20 ms."""

    def __init__(self) -> None:
        self.highest = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    @staticmethod
    def now() -> float:
        """Anonymous memory, MiB."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

    def _watch(self) -> None:
        while True:
            self.highest = max(self.highest, self.now())
            time.sleep(0.02)


def memory_map(kind: str, folder: Path, n_rows: int) -> np.memmap:
    """Write rows to a file, a block repeated."""
    shape = (n_rows, *SHAPES[kind][1:])
    rng = np.random.default_rng(0)
    block = rng.normal(size=(BLOCK, *shape[1:])) if kind == "table" else rng.integers(0, 256, (BLOCK, *shape[1:]))
    rows = np.memmap(folder / kind, dtype=DTYPES[kind], mode="w+", shape=shape)
    for start in range(0, n_rows, BLOCK):
        rows[start : start + BLOCK] = block[: min(BLOCK, n_rows - start)]
    rows.flush()
    return np.memmap(folder / kind, dtype=DTYPES[kind], mode="r", shape=shape)


def measure_map(kind: str, folder: Path, n_rows: int) -> None:
    """Fit to a memory map, score it, and print what that took."""
    X = memory_map(kind, folder, n_rows)
    settings = {"n_steps": 1, "hidden_channels": 4, "max_epochs": 1, "random_state": 0}
    GlowDensity(**settings).fit(np.random.default_rng(0).normal(size=(64, 3)))  # imports everything
    batch_size = 65_536 if kind == "table" else 1_024
    peak, start = Peak(), Peak.now()
    density = GlowDensity(batch_size=batch_size, **settings)
    for what, run in (("fit", density.fit), ("score", lambda X: density.score_samples(X[: N_SCORED[kind]]))):
        peak.highest = 0.0
        started = time.perf_counter()
        run(X)
        seconds = time.perf_counter() - started
        print(f"{kind} of {X.nbytes / 2**30:.2f} GiB, {what}: {peak.highest - start:.0f} MiB more, {seconds:.0f} s")


def measure_rows() -> None:
    """Time the scoring of single rows."""
    torch.set_num_threads(1)
    X = np.random.default_rng(0).normal(size=(400, 10))
    for make in (GlowDensity, RealNVPDensity, MAFDensity, PixelCNNDensity, VAEDensity):
        density = make(max_epochs=2, random_state=0).fit(X)
        density.score_samples(X[:1])
        started = time.process_time()
        for i in range(200):
            density.score_samples(X[i : i + 1])
        print(f"{make.__name__:16} {(time.process_time() - started) * 5:.1f} ms of processor time for one row")


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "images", "rows"])
    parser.add_argument("--folder", type=Path, help="where the file of 3 GB is written; by default a temporary one")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.what == "rows":
        measure_rows()
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        measure_map(args.what, Path(folder), SHAPES[args.what][0] // (100 if args.quick else 1))


if __name__ == "__main__":
    main()

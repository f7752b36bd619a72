"""Training by torchrun with two processes beside one process with one thread: steps a second, turn about.

    FLOWDETECT_DATA=folder python examples/benchmarks/torchrun_speed.py [--quick] [--rounds 5] [--seconds 20]
        [--only GlowDensity ...] [--batch-sizes 64 256] [--out torchrun_speed.json]

Densities of images at their default settings on Fashion-MNIST, RealNVP on a table of 30 columns of normal numbers. The
two processes share each batch: the more rows it has, the less counts what is done once a step. Each process has one
thread. Seconds are those of the epochs, as history_ tells them: starting and importing are left out. The two ways take
turns, so that what else the machine does meets both; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TABLES = {"RealNVPDensity": 30, "MAFDensity": 30}  # columns
MODELS = ["GlowDensity", "PixelCNNDensity", "RealNVPDensity"]
N_BATCHES = 20  # of an epoch, so that it is longer than what is done at its end
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def steps_a_second(name: str, batch_size: int, seconds: float) -> float:
    """Train for some seconds in this process, which may be one of two."""
    import numpy as np

    import flowdetect

    settings = {"n_devices": "auto", "device": "cpu", "early_stopping": False, "random_state": 0}
    density = getattr(flowdetect, name)(batch_size=batch_size, **settings)
    if name in TABLES:
        X = np.random.default_rng(0).normal(size=(N_BATCHES * batch_size, TABLES[name]))
    else:
        X = flowdetect.load_images("fashion_mnist")[0][: N_BATCHES * batch_size]
    density.set_params(max_epochs=1).fit(X)  # the first steps import and allocate
    epoch = density.history_["seconds"][-1]
    density.set_params(max_epochs=max(1, round(seconds / epoch))).fit(X)
    spent = density.history_["seconds"]
    return float(len(spent) * N_BATCHES / np.sum(spent))


def measure(name: str, batch_size: int, seconds: float, n: int) -> float:
    """Measure in one process, or in two that torchrun starts."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found"
        command = [*(TORCHRUN if n > 1 else [sys.executable]), __file__, "--child", name, "--seconds", str(seconds)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        options = ["--batch-sizes", str(batch_size), "--out", str(out)]
        subprocess.run([*command, *options], env=environment, check=True)
        return float(out.read_text())


def main() -> None:
    """Run the benchmark and print a line a density."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of five seconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", nargs="+", default=MODELS)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--out", help="a JSON file for the results")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # a density: this is one of the processes
    args = parser.parse_args()
    if args.child:
        found = steps_a_second(args.child, args.batch_sizes[0], args.seconds)
        if os.environ.get("RANK", "0") == "0":
            Path(args.out).write_text(str(found))
        return
    if args.quick:
        args.rounds, args.seconds = 1, 5.0
    results: dict[str, Any] = {}
    for name, batch_size in itertools.product(args.only, args.batch_sizes):
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for _, n in itertools.product(range(args.rounds), speeds):
            speeds[n].append(measure(name, batch_size, args.seconds, n))
        one, two = (statistics.median(found) for found in speeds.values())
        key = f"{name}, batches of {batch_size}"
        results[key] = {"one process": one, "two processes": two, "ratio": two / one, "rounds": speeds}
        print(f"{key}: {one:.2f} and {two:.2f} steps/s, ratio {two / one:.2f}", flush=True)
        if args.out:
            Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

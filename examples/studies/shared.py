"""What the studies share: arguments, a model that is loaded where it stands already, and intervals."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap, t

from flowdetect import load
from flowdetect.density import BaseDensity

SEED = 0


def study_parser(description: str | None, quick: str) -> argparse.ArgumentParser:
    """Make a parser with the arguments of every study of one data set against another."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--in-set", default="fashion_mnist")
    parser.add_argument("--out-set", default="mnist")
    parser.add_argument("--results", default="results")
    parser.add_argument("--models", default="models")
    return parser


def loaded_or_fitted(path: Path, density: BaseDensity, X: np.ndarray, y: np.ndarray | None = None) -> BaseDensity:
    """Load the density that stands at a path, or fit this one and save it there; one that was killed resumes."""
    if path.exists():
        return load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_suffix(".checkpoint")
    density.set_params(checkpoint=checkpoint).fit(X, y)
    density.set_params(checkpoint=None).save(path)
    for left in path.parent.glob(f"{checkpoint.name}*"):  # a pre-training has one too
        left.unlink()
    return density


def interval(values: np.ndarray) -> list[float]:
    """Mean with a 95 % bootstrap interval over images."""
    found = bootstrap((values,), np.mean, n_resamples=1000, method="percentile", rng=SEED).confidence_interval
    return [float(values.mean()), float(found.low), float(found.high)]


# ---- studies of many cells, each of which is one training: run one by one, or many at a time by other processes


def cell_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every study of many cells."""
    parser.add_argument("--only", metavar="CELL", help="run this cell alone; its name is one of --list")
    parser.add_argument("--list", action="store_true", help="print the names of all cells, a line each")
    parser.add_argument("--collect", action="store_true", help="run nothing: make table and pictures of what is there")
    parser.add_argument("--results", default="results", help="folder of the cells, one json each")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, each in a process of one thread")
    parser.add_argument("--out", help="folder of table and pictures; by default that of the cells")


def training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of studies whose cells are trainings of several seeds."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--time-limit", type=float, help="seconds of each training, at most")


def run_cells(
    args: argparse.Namespace,
    names: list[str],
    run: Callable[[str], dict[str, Any]],
    collect: Callable[[dict[str, dict[str, Any]], Path], None],
) -> None:
    """Run the cells that the arguments ask for and that are not stored yet, then collect all that are.

    With --only nothing is collected, so that many processes may run cells of one folder.
    """
    folder = Path(args.results)
    stored = {name: folder / f"{name.replace(' ', '-')}.json" for name in names}
    if args.list:
        print("\n".join(names))
        return
    if args.only is not None and args.only not in names:
        raise SystemExit(f"--only must be one of the names that --list prints, got {args.only!r}")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [] if args.collect else [args.only] if args.only else [name for name in names if not stored[name].exists()]
    if args.jobs > 1 and args.only is None:
        with ThreadPool(args.jobs) as pool:
            pool.map(_run_alone, wanted, chunksize=1)
        wanted = []
    for name in wanted:
        if not stored[name].exists():
            found = json.dumps(run(name))  # as a whole: a file that stands there is complete
            stored[name].with_suffix(".part").write_text(found)
            stored[name].with_suffix(".part").rename(stored[name])
    if args.only is None:
        cells = {name: json.loads(path.read_text()) for name, path in stored.items() if path.exists()}
        missing = [name for name in names if name not in cells]
        if missing:
            print(f"{len(missing)} of {len(names)} cells are missing: {', '.join(missing)}")
        if cells:
            out = Path(args.out or args.results)
            out.mkdir(parents=True, exist_ok=True)
            collect(cells, out)


def _run_alone(name: str) -> None:
    """Run one cell of this study in a process of its own; what it says goes to our output."""
    command = [sys.executable, *sys.argv, "--only", name]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)


def t_interval(values: Sequence[float]) -> list[float]:
    """Mean with a 95 % interval over seeds, by Student's t; of one seed the mean alone."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return [mean]
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return [mean, mean - half, mean + half]


def over_seeds(values: Sequence[float], form: str = ".3f") -> str:
    """Write the mean with its interval over seeds, if there is one."""
    mean, *ends = (f"{number:{form}}" for number in t_interval(values))
    return f"{mean} [{', '.join(ends)}]" if ends else mean

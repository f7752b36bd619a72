"""A large table: RealNVPDensity beside zuko's neural spline flow, time and peak memory of fitting and of scoring.

    python examples/benchmarks/tables_zuko.py [--quick]

Ten curved and correlated columns; 100,000 rows to fit, 10,000 others for the mean log-likelihood, 10,000 and 1,000,000
to score. zuko's NSF (3 autoregressive transforms of 8 bins, networks of two layers of 64, on standardised columns) gets
as many steps of Adam on as many rows as ours took, at zuko's learning rate of 1e-3, and is scored in pieces of 16,384
rows. Every measurement has a process of its own; its memory is the peak above what the process held with its
rows and the model loaded. Rows pass in the order ours, zuko's; one run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zuko

from flowdetect import RealNVPDensity, load

SEED, N_COLUMNS, N_TEST, PIECE = 0, 10, 10_000, 16_384


def rows(n: int, seed: int) -> np.ndarray:
    """Random walks, each column bent by the one before it, the first by the last: (n, 10)."""
    z = np.random.default_rng([SEED, seed]).normal(size=(n, N_COLUMNS))
    walk = z.cumsum(1)
    return walk + np.sin(2 * np.roll(walk, 1, axis=1))


def peak() -> float:
    """Highest resident memory so far, MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def measured(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Call a function: its result, the seconds, and by how many MB memory rose above what was held before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    held = peak()
    started = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - started
    return result, seconds, peak() - held


def fit_ours(path: Path, n: int, _: int) -> dict[str, Any]:
    """Fit RealNVPDensity with its defaults."""
    X = rows(n, 0)
    density, seconds, memory = measured(lambda: RealNVPDensity(random_state=SEED).fit(X))
    density.save(path)
    n_steps = density.n_iter_ * (round(0.95 * n) // 256)
    return {"seconds": seconds, "MB": memory, "steps": n_steps, "nats": density.score(rows(N_TEST, 1))}


def new_nsf() -> Any:
    """Build zuko's flow."""
    torch.manual_seed(SEED)
    return zuko.flows.NSF(N_COLUMNS, transforms=3, hidden_features=(64, 64))


def nsf_scores(state: dict[str, Any], X: np.ndarray) -> np.ndarray:
    """Score rows by zuko's flow, in pieces."""
    flow = new_nsf()
    flow.load_state_dict(state["flow"])
    log_scale = np.log(state["scale"]).sum()
    scores = np.empty(len(X))
    with torch.no_grad():
        distribution = flow()
        for start in range(0, len(X), PIECE):
            x = (X[start : start + PIECE] - state["loc"]) / state["scale"]
            scores[start : start + PIECE] = distribution.log_prob(torch.from_numpy(x.astype(np.float32))) - log_scale
    return scores


def fit_zuko(path: Path, n: int, n_steps: int) -> dict[str, Any]:
    """Fit zuko's flow for as many steps of 256 rows."""
    X = rows(n, 0)

    def fitted() -> dict[str, Any]:
        loc, scale = X.mean(0), X.std(0)
        x = torch.from_numpy(((X - loc) / scale).astype(np.float32))
        flow = new_nsf()
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
        for _ in range(n_steps):
            loss = -flow().log_prob(x[torch.randint(n, (256,))]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return {"flow": flow.state_dict(), "loc": loc, "scale": scale}

    state, seconds, memory = measured(fitted)
    torch.save(state, path)
    return {"seconds": seconds, "MB": memory, "steps": n_steps, "nats": nsf_scores(state, rows(N_TEST, 1)).mean()}


def score_ours(path: Path, n: int, _: int) -> dict[str, Any]:
    """Score rows by the density that was saved."""
    X, density = rows(n, 2), load(path)
    scores, seconds, memory = measured(lambda: density.score_samples(X))
    return {"seconds": seconds, "MB": memory, "MB of the scores": scores.nbytes / 1e6}


def score_zuko(path: Path, n: int, _: int) -> dict[str, Any]:
    """Score rows by zuko's flow that was saved."""
    X, state = rows(n, 2), torch.load(path, weights_only=False)  # our own file, of a minute ago
    scores, seconds, memory = measured(lambda: nsf_scores(state, X))
    return {"seconds": seconds, "MB": memory, "MB of the scores": scores.nbytes / 1e6}


def main() -> None:
    """Run every measurement in a process of its own and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows, half a minute")
    args = parser.parse_args()
    sizes = [n // (100 if args.quick else 1) for n in (100_000, 10_000, 1_000_000)]
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:

        def run(task: Callable[..., dict[str, Any]], name: str, n: int, n_steps: int = 0) -> dict[str, Any]:
            found = pool.submit(task, Path(folder) / name, n, n_steps).result()
            print(f"{task.__name__:11} {n:9,} rows ", {key: round(float(v), 4) for key, v in found.items()}, flush=True)
            return found

        n_steps = run(fit_ours, "ours", sizes[0])["steps"]
        run(fit_zuko, "zuko", sizes[0], n_steps)
        for n in sizes[1:]:
            run(score_ours, "ours", n)
            run(score_zuko, "zuko", n)


if __name__ == "__main__":
    main()

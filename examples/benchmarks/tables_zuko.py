"""Flows of tables beside zuko's: likelihood at equal training time, time to equal likelihood, scoring a million rows.

    FLOWDETECT_DATA=folder python examples/benchmarks/tables_zuko.py [--quick] [--data NAME ...] [--out FILE]

Data: ten curved and correlated columns (100,000 rows to fit, 10,000 to test), and tables of ADBench: at most 20,000
inliers to fit and 10,000 others to test, after noise of 1 % of each column's range, which breaks ties for all flows
alike (`table_likelihood.py`). Ours: `MAFDensity` and `RealNVPDensity` with their defaults, and
`MAFDensity` of 3 transforms at a rate of 1e-2. zuko's: NSF and MAF of 3 and
5 transforms, with networks of two layers of 64 (its default). They are trained by Adam at 1e-3 with half a cosine to 0,
on 256 standardised rows a step, and keep the weights that are best on 5 % of rows held out, as ours. One thread.

First the speed of all: blocks of training steps, and of scored rows, one flow after the other, several rounds in one
process; a ratio is the median of those of the rounds, with the least and the largest. The seconds of a step give the
number of steps of a budget; every flow then takes the steps of its own budget, its schedule laid over them, so that
other work on the machine moves no flow's likelihood. Ours also gets an eighth, a quarter and a half of the largest
budget, for the time to equal likelihood. Every result is written when it is there, and what a file holds already is
not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401, before the clock starts, as zuko
import numpy as np
import torch
import zuko

from flowdetect import MAFDensity, RealNVPDensity

SEED, N_COLUMNS, BATCH, PIECE = 0, 10, 256, 16_384
HELD_OUT = 0.05  # of the rows
N_LOOKS = 30  # at the held-out rows in a training of zuko's
OURS: dict[str, Callable[..., Any]] = {
    "MAFDensity": MAFDensity,
    "MAFDensity 3": partial(MAFDensity, n_transforms=3, learning_rate=1e-2),
    "RealNVPDensity": RealNVPDensity,
}
THEIRS = {"NSF 3": ("NSF", 3), "NSF 5": ("NSF", 5), "MAF 3": ("MAF", 3), "MAF 5": ("MAF", 5)}
CURVED = "ten columns"
DATA = (CURVED, "http", "shuttle", "mammography")
SHARES = (1 / 8, 1 / 4, 1 / 2)  # of a budget that ours has for the time to equal likelihood


def rows(n: int, seed: int) -> np.ndarray:
    """Random walks, each column bent by the one before it, the first by the last: (n, 10)."""
    z = np.random.default_rng([SEED, seed]).normal(size=(n, N_COLUMNS))
    walk = z.cumsum(1)
    return walk + np.sin(2 * np.roll(walk, 1, axis=1))


def data_of(name: str, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Give rows to fit and rows to test."""
    n_train, n_test = (2_000, 1_000) if quick else (20_000, 10_000)
    if name == CURVED:
        return rows(n_train if quick else 100_000, 0), rows(n_test, 1)
    sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
    from table_likelihood import jittered_rows

    return jittered_rows(name, n_train, n_test)


class Theirs:
    """A flow of zuko's, and its training."""

    def __init__(self, name: str, X: np.ndarray, seed: int) -> None:
        torch.manual_seed(seed)
        order = np.random.default_rng(seed).permutation(len(X))
        n_held_out = int(HELD_OUT * len(X))
        self.loc, self.scale = X.mean(0), X.std(0)
        self.held_out, self.x = self.tensor(X[order[:n_held_out]]), self.tensor(X[order[n_held_out:]])
        kind, n_transforms = THEIRS[name]
        self.flow = getattr(zuko.flows, kind)(X.shape[1], transforms=n_transforms, hidden_features=(64, 64))
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=1e-3)

    def tensor(self, X: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((X - self.loc) / self.scale).astype(np.float32))

    def advance(self, n_steps: int) -> None:
        """Take some steps."""
        with torch.enable_grad():
            for _ in range(n_steps):
                loss = -self.flow().log_prob(self.x[torch.randint(len(self.x), (BATCH,))]).mean()
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()

    def score(self, x: torch.Tensor) -> float:
        """Mean log-likelihood of standardised rows, nats of the rows as they were."""
        with torch.no_grad():
            distribution = self.flow()
            total = sum(float(distribution.log_prob(piece).double().sum()) for piece in x.split(PIECE))
        return total / len(x) - float(np.log(self.scale).sum())

    def train(self, n_steps: int) -> None:
        """Take all steps at a falling rate, and keep the weights that are best on the rows held out."""
        best, best_score, done = self.flow.state_dict(), -math.inf, 0
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, N_LOOKS)
        for look in range(N_LOOKS):
            until = round(n_steps * (look + 1) / N_LOOKS)
            self.advance(until - done)
            done = until
            schedule.step()
            if (found := self.score(self.held_out)) > best_score:
                best, best_score = {name: value.clone() for name, value in self.flow.state_dict().items()}, found
        self.flow.load_state_dict(best)


def ours(name: str, X: np.ndarray, n_steps: int, seed: int) -> Any:
    """Fit a density of ours with its defaults for so many steps, or until it stops early."""
    n_epochs = max(1, round(n_steps / (round((1 - HELD_OUT) * len(X)) // BATCH)))
    return OURS[name](max_epochs=n_epochs, random_state=seed).fit(X)


def spread(values: list[float]) -> list[float]:
    """Median, least and largest."""
    return [statistics.median(values), min(values), max(values)]


def speeds(X: np.ndarray, quick: bool) -> dict[str, Any]:
    """Milliseconds of a training step and seconds of 1,000,000 scored rows, all flows in turn."""
    n_steps, n_scored, n_rounds = (10, 1_000, 2) if quick else (100, 16_384, 5)
    some = X[np.arange(1 + BATCH * n_steps) % len(X)]
    scored = X[np.arange(n_scored) % len(X)]
    flows: dict[str, Any] = {name: Theirs(name, X, SEED) for name in THEIRS}
    fitted = {name: OURS[name](max_epochs=1, random_state=SEED).fit(some) for name in OURS}

    def train(name: str) -> None:
        if name in THEIRS:
            flows[name].advance(n_steps)
        else:
            OURS[name](max_epochs=1, early_stopping=False, random_state=SEED).fit(some)

    def score(name: str) -> None:
        if name in THEIRS:
            flows[name].score(flows[name].tensor(scored))
        else:
            fitted[name].score_samples(scored)

    times: dict[str, dict[str, list[float]]] = {"train": {}, "score": {}}
    for round_ in range(n_rounds + 1):
        for what, function in (("train", train), ("score", score)):
            for name in (*OURS, *THEIRS):
                started = time.perf_counter()
                function(name)
                if round_:  # the first round warms up
                    times[what].setdefault(name, []).append(time.perf_counter() - started)

    def ratios(what: str) -> dict[str, list[float]]:
        """How many times as fast ours is."""
        pairs = [(mine, other) for mine in OURS for other in THEIRS]
        found = times[what]
        return {
            f"{mine} : {other}": spread([b / a for a, b in zip(found[mine], found[other], strict=True)])
            for mine, other in pairs
        }

    return {
        "ms a step": {name: spread([1e3 * t / n_steps for t in found]) for name, found in times["train"].items()},
        "s for 1e6 rows": {name: spread([1e6 * t / n_scored for t in found]) for name, found in times["score"].items()},
        "times as fast in training": ratios("train"),
        "times as fast in scoring": ratios("score"),
    }


class Results:
    """Measured values in one JSON file."""

    def __init__(self, path: str | None) -> None:
        self.path = None if path is None else Path(path)
        is_there = self.path is not None and self.path.exists()
        self.found: dict[str, Any] = json.loads(self.path.read_text()) if is_there and self.path else {}

    def of(self, data: str, key: str, measure: Callable[[], Any]) -> Any:
        """Give a value; measure it if it is not there yet."""
        of_data = self.found.setdefault(data, {})
        if key not in of_data:
            of_data[key] = measure()
            print(f"{data:12} {key:32} {of_data[key]}", flush=True)
            if self.path is not None:
                part = self.path.with_suffix(".part")
                part.write_text(json.dumps(self.found, indent=1) + "\n")
                part.replace(self.path)
        return of_data[key]


def nats_of(
    name: str, X: np.ndarray, X_test: np.ndarray, n_steps: int, seed: int, step_seconds: float
) -> dict[str, float]:
    """Train a flow for about so many steps, ours for whole epochs: mean log-likelihood of the test rows, and cost."""
    if name in THEIRS:
        flow = Theirs(name, X, seed)
        flow.train(n_steps)
        nats, steps = flow.score(flow.tensor(X_test)), n_steps
    else:
        density = ours(name, X, n_steps, seed)
        nats = float(density.score(X_test))
        steps = density.n_iter_ * (round((1 - HELD_OUT) * len(X)) // BATCH)
    return {"nats": round(nats, 4), "steps": steps, "seconds": round(steps * step_seconds, 2)}


def compare(results: Results, data: str, args: argparse.Namespace) -> None:
    """Measure what is missing of one data set."""
    X, X_test = data_of(data, args.quick)
    found = results.of(data, "speed", lambda: speeds(X, args.quick))
    for budget in args.seconds:
        for seed in args.seeds:
            for name in args.flows:
                shares = (*SHARES, 1) if name in OURS and budget == max(args.seconds) else (1,)
                for share in shares:
                    step_seconds = found["ms a step"][name][0] / 1e3
                    n_steps = max(N_LOOKS, int(budget * share / step_seconds))
                    key = f"{name}, {budget * share:g} s, seed {seed}"
                    results.of(data, key, partial(nats_of, name, X, X_test, n_steps, seed, step_seconds))


def main() -> None:
    """Run every data set and print a line a result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="2,000 rows and half a second a training, ten columns alone"
    )
    parser.add_argument("--data", nargs="+", default=None, help=f"of {', '.join(DATA)}, or another table of ADBench")
    parser.add_argument("--flows", nargs="+", default=[*OURS, *THEIRS], choices=[*OURS, *THEIRS])
    parser.add_argument("--seconds", nargs="+", type=float, default=[20, 60], help="budgets of training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", help="a JSON file for the results, which is gone on with")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.seeds = [0.5], [0]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = Results(args.out)
    for data in args.data or ([CURVED] if args.quick else DATA):
        compare(results, data, args)


if __name__ == "__main__":
    main()

"""MAFDensity beside zuko's neural spline flow: likelihood and time at equal steps, on two moons and ten columns.

    python examples/benchmarks/maf_zuko.py [--quick] [--threads 1 2] [--out FILE]

Both have 3 autoregressive spline transforms of 8 bins, with networks of two layers of 64, on standardised columns, and
take as many steps on as many rows: 2,000 on 256 of 2,000 moons, 4,000 on 256 of 100,000 rows of ten correlated columns
(`tables_zuko.py`). zuko's takes Adam at 1e-3 (its README); ours its own schedule at its default rate. A block of steps
of the one follows a block of the other, in one process, so that both see the same machine; neither holds rows out.
Likelihoods are means over 10,000 other rows, nats; seconds are those of training.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from pathlib import Path

import lightning_fabric  # noqa: F401, before the clock starts, as zuko
import numpy as np
import torch
import zuko
from sklearn.datasets import make_moons
from tables_zuko import rows

from flowdetect import MAFDensity
from flowdetect.density import _training

SEED, BATCH, BLOCK, N_TEST = 0, 256, 50, 10_000
N_TRANSFORMS, HIDDEN = 3, (64, 64)


def moons(n: int, seed: int) -> np.ndarray:
    """Draw two moons."""
    return make_moons(n, noise=0.1, random_state=seed)[0]


DATA = {"two moons": (moons, 2_000, 2_000), "ten columns": (rows, 100_000, 4_000)}


class Rival:
    """zuko's flow and its training, to be advanced some steps at a time."""

    def __init__(self, X: np.ndarray) -> None:
        torch.manual_seed(SEED)
        self.loc, self.scale = X.mean(0), X.std(0)
        self.x = torch.from_numpy(((X - self.loc) / self.scale).astype(np.float32))
        self.flow = zuko.flows.NSF(X.shape[1], transforms=N_TRANSFORMS, hidden_features=HIDDEN)
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=1e-3)
        self.seconds, self.steps = 0.0, 0

    def advance(self, n_steps: int) -> None:
        """Take some steps."""
        started = time.perf_counter()
        with torch.enable_grad():
            for _ in range(n_steps):
                loss = -self.flow().log_prob(self.x[torch.randint(len(self.x), (BATCH,))]).mean()
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
        self.seconds += time.perf_counter() - started
        self.steps += n_steps

    def score(self, X: np.ndarray) -> float:
        """Mean log-likelihood of rows, nats."""
        x = torch.from_numpy(((X - self.loc) / self.scale).astype(np.float32))
        with torch.no_grad():
            return float(self.flow().log_prob(x).mean()) - float(np.log(self.scale).sum())


def run_pair(name: str, quick: bool) -> dict[str, float]:
    """Train both, a block of steps of the one after a block of the other."""
    draw, n_rows, n_steps = DATA[name]
    if quick:
        n_rows, n_steps = min(n_rows, 2_000), 100
    X, X_test = draw(n_rows, 1), draw(N_TEST, 2)
    rival, step = Rival(X), _training.Training._step
    n_epochs = math.ceil(n_steps / (n_rows // BATCH))
    density = MAFDensity(
        n_transforms=N_TRANSFORMS,
        hidden_features=HIDDEN,
        univariate="spline",
        max_epochs=n_epochs,
        early_stopping=False,
        random_state=SEED,
    )

    def step_and_let_the_rival_catch_up(self: _training.Training, *args: object) -> BaseException | None:
        failure = step(self, *args)
        if self.step % BLOCK == 0:
            rival.advance(BLOCK)
        return failure

    _training.Training._step = step_and_let_the_rival_catch_up
    started = time.perf_counter()
    try:
        density.fit(X)
    finally:
        _training.Training._step = step
    seconds = time.perf_counter() - started - rival.seconds
    ours, theirs = density.score(X_test), rival.score(X_test)
    return {
        "steps": n_epochs * (n_rows // BATCH),
        "nats, ours": ours,
        "nats, zuko": theirs,
        "difference": ours - theirs,
        "seconds, ours": seconds,
        "seconds, zuko": rival.seconds,
        "time ratio": seconds / rival.seconds,
    }


def main() -> None:
    """Run every pair and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 steps each, half a minute")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", help="a JSON file for the results")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    results = []
    for n_threads in args.threads:
        torch.set_num_threads(n_threads)
        for name in DATA:
            found = {"data": name, "threads": n_threads, **run_pair(name, args.quick)}
            results.append(found)
            print({key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()})
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

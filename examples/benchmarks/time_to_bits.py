"""Glow beside normflows on Fashion-MNIST: bits/dim after the same steps, and the time to normflows' bits/dim.

    FLOWDETECT_DATA=folder python examples/benchmarks/time_to_bits.py [--quick] [--threads 1 2] [--size 28 512 color]
        [--seeds 0 1 2] [--precision auto] [--out FILE]

1,000 steps of 64 images: two epochs of 32,000. Both see the same values (grey levels mapped by our `Gaussianize`, with
its log-determinant), take the same peak learning rate with the same warm-up and cosine, and are scored on the same
2,000 test images. Ours has what `GlowDensity.fit` does beside: clipping and averaged weights. Half of the steps of the
one follow half of those of the other. Then ours is trained for a sixteenth of the steps, an eighth and so on, each
with its own schedule to the end, until its bits/dim are those of normflows or less; the time to normflows' bits/dim is
read off between the last two, on a line of bits/dim over log time. "color" is CIFAR-10.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import flows
import numpy as np
import peers
import side_by_side as side
import torch

from flowdetect import load_images
from flowdetect._threads import torch_threads

N_TEST, N_STEPS, SHARES = 2_000, 1_000, (1 / 16, 1 / 8, 1 / 4, 1 / 2)
WARM_UP = 0.1


class Annealed(flows.Rival):
    """normflows, trained by a schedule like ours: a linear warm-up over a tenth of the steps, then half a cosine."""

    def __init__(self, size: peers.Size, X: np.ndarray, n_steps: int, seed: int) -> None:
        torch.manual_seed(seed)
        super().__init__(peers.normflows_glow(size), flows.tensor(X))
        self.step, self.n_steps = 0, n_steps
        warm_up = max(1, round(WARM_UP * n_steps))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: (
                min(1.0, (step + 1) / warm_up)
                * 0.5
                * (1 + math.cos(math.pi * max(0.0, (step - warm_up) / max(1, n_steps - warm_up))))
            ),
        )

    def train(self, n_steps: int) -> None:
        """Take some steps, in order through shuffled images, epoch after epoch."""
        self.peer.train()
        n_batches = len(self.x) // flows.BATCH
        for _ in range(n_steps):
            batch = self.step % n_batches
            if batch == 0:
                self.order = torch.randperm(len(self.x), generator=self.generator)
            self.step_on(self.x[self.order[batch * flows.BATCH : (batch + 1) * flows.BATCH]])
            self.schedule.step()
            self.step += 1

    def bits(self, x: torch.Tensor) -> float:
        """Mean bits/dim of images."""
        return float(-self.score(x).mean() / (x[0].numel() * math.log(2)))


def time_to(bits: float, curve: list[tuple[float, float]]) -> float | None:
    """Read off the time at which a curve of (seconds, bits/dim) comes to some bits/dim; None if it never does."""
    before: tuple[float, float] | None = None
    for seconds, reached in curve:
        if reached <= bits:
            if before is None:
                return seconds
            share = (before[1] - bits) / (before[1] - reached)
            return math.exp(math.log(before[0]) + share * math.log(seconds / before[0]))
        before = seconds, reached
    return None


def compare(
    size: peers.Size, images: tuple[np.ndarray, np.ndarray], precision: str, seed: int, n: int
) -> dict[str, Any]:
    """Train both for n steps, and ours for less."""
    X, X_test = images
    half = n // 2 * flows.BATCH
    rival = Annealed(size, X[:half], n, seed)
    density = flows.glow(size, precision, 2, seed)
    seconds = side.train_in_turn(density, X[:half], {"normflows": lambda: rival.train(n // 2)}, n_first=0)
    theirs, ours = rival.bits(flows.tensor(X_test)), float(density.bits_per_dim(X_test).mean())
    whole, curve = sum(seconds[side.OURS]), []
    for share in SHARES:
        short = flows.glow(size, precision, 1, seed)
        spent = side.train_in_turn(short, X[: round(share * n) * flows.BATCH], {}, n_first=0)[side.OURS]
        curve.append((sum(spent), float(short.bits_per_dim(X_test).mean())))
        if curve[-1][1] <= theirs:
            break
    reached = time_to(theirs, [*curve, (whole, ours)])
    their_seconds = sum(seconds["normflows"])
    return {
        "seed": seed,
        "steps": n,
        "bits_per_dim": {side.OURS: round(ours, 4), "normflows": round(theirs, 4)},
        "seconds": {side.OURS: round(whole, 2), "normflows": round(their_seconds, 2)},
        "curve": [[round(s, 2), round(b, 4)] for s, b in curve],
        "time_share": None if reached is None else round(reached / their_seconds, 4),
    }


def main() -> None:
    """Run the benchmark, print a line a seed and keep the results."""
    parser = side.arguments(__doc__)
    parser.add_argument("--size", nargs="+", choices=list(flows.SIZES), default=["28"])
    parser.add_argument("--precision", nargs="+", default=["auto"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=N_STEPS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if not peers.available(peers.GLOWS, ["normflows"]):
        return
    results = []
    for n_threads, name, precision in ((t, s, p) for t in args.threads for s in args.size for p in args.precision):
        size, n, seeds = (flows.TINY, 32, args.seeds[:1]) if args.quick else (flows.SIZES[name], args.steps, args.seeds)
        with torch_threads(n_threads):
            for seed in seeds:
                found = compare(size, images(name, args.quick, n), precision, seed, n)
                results.append({"size": name, "threads": n_threads, "precision": precision, **found})
                print(results[-1], flush=True)
    side.keep(args.out, "time_to_bits", args.quick, results)


def images(name: str, quick: bool, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images."""
    if quick:
        X = flows.images(flows.TINY, n_steps // 2 * flows.BATCH + 64)
        return X[64:], X[:64]
    which = "cifar10" if name == "color" else "fashion_mnist"
    return load_images(which)[0], load_images(which, split="test")[0][:N_TEST]


if __name__ == "__main__":
    main()

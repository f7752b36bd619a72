"""Glow beside the Glows of other libraries at equal shape: images a second of training, scoring and sampling.

    python examples/benchmarks/flows.py [--quick] [--threads 1 2] [--size 28 512 color] [--peers normflows ...]
        [--what training scoring sampling] [--rounds 6] [--out FILE]

Sizes: "28", 28x28 with 2 levels of 8 steps and networks of 128 channels; "512", the same with 512; "color", 32x32x3
with 3 levels. Batches of 64. Every model sees the same values: grey levels mapped by our `Gaussianize`, whose
log-determinant is added. Ours trains by `GlowDensity.fit`, with all that it does beside (clipping, averaged weights),
in float32 and in "auto", which is bfloat16 in the networks where the processor has it; peers take a step of Adam in
float32. Scores of all are float32; a peer scores and samples in the batches that suit it best of 64, 256 and 1,024.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import peers
import rivals
import side_by_side as side
import torch
from peers import Peer, Size
from torch import Tensor

from flowdetect import GlowDensity
from flowdetect._threads import torch_threads
from flowdetect.bijections import Gaussianize

SEED, BATCH, PEAK = 0, 64, 1e-3
SIZES = {"28": Size((1, 28, 28), 2, 8, 128), "512": Size((1, 28, 28), 2, 8, 512), "color": Size((3, 32, 32), 3, 8, 128)}
TINY = Size((1, 8, 8), 2, 1, 8)
PIECES = (64, 256, 1024)


def images(size: Size, n: int) -> np.ndarray:
    """Random smooth images: (n, H, W) or (n, H, W, C) uint8. Speed does not depend on what they show."""
    channels, height, width = size.shape
    rng = np.random.default_rng(SEED)
    coarse = rng.integers(0, 256, (n, height // 4, width // 4, channels)).repeat(4, 1).repeat(4, 2)
    X = (coarse + rng.integers(-9, 10, coarse.shape)).clip(0, 255).astype(np.uint8)
    return X[..., 0] if channels == 1 else X


def tensor(X: np.ndarray) -> Tensor:
    """(n, C, H, W) float32 of images."""
    X = X[..., None] if X.ndim == 3 else X
    return torch.from_numpy(X).permute(0, 3, 1, 2).float().contiguous()


def grey_map(x: Tensor) -> Gaussianize:
    """Our map of grey levels, learned from images (n, C, H, W)."""
    counts = [torch.bincount(x[:, channel].flatten().long(), minlength=256) for channel in range(x.shape[1])]
    return Gaussianize(torch.stack(counts))


class Rival(rivals.Rival):
    """A peer on values that our map of grey levels makes."""

    def __init__(self, peer: Peer, x: Tensor) -> None:
        super().__init__(peer, x, BATCH, PEAK, PIECES)
        self.map = grey_map(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats of images (n, C, H, W) with noise in their bins."""
        z, log_det = self.map(x + torch.rand(x.shape, generator=self.generator))
        return self.peer.log_prob(z) + log_det

    def drawn(self, n: int) -> Tensor:
        """Draw grey levels."""
        return self.map.inverse(self.peer.sample(n))


def glow(size: Size, precision: str, max_epochs: int, seed: int = SEED) -> GlowDensity:
    """Make ours."""
    return GlowDensity(
        n_levels=size.n_levels,
        n_steps=size.n_steps,
        hidden_channels=size.hidden,
        batch_size=BATCH,
        learning_rate=PEAK,
        max_epochs=max_epochs,
        early_stopping=False,
        precision=precision,
        random_state=seed,
    )


class Pair:
    """Ours and the rivals at one size, on the same images."""

    def __init__(self, size: Size, names: list[str], n_steps: int, n_rounds: int, n_scored: int) -> None:
        self.size, self.n_steps, self.n_rounds = size, n_steps, n_rounds
        self.X = images(size, max(n_steps * BATCH, n_scored))
        self.scored = self.X[:n_scored]
        x = tensor(self.X)
        torch.manual_seed(SEED)
        makers = peers.available(peers.GLOWS, names)
        self.rivals = {name: Rival(make(size), x) for name, make in makers.items()}

    def training(self, precision: str) -> dict[str, Any]:
        """Compare training: an epoch of ours is a block of steps."""
        n_images = self.n_steps * BATCH
        blocks = {name: partial(rival.train, self.n_steps) for name, rival in self.rivals.items()}
        seconds = side.train_in_turn(glow(self.size, precision, 1 + self.n_rounds), self.X[:n_images], blocks)
        return side.compared(seconds, n_images)

    def scoring_and_sampling(self, what: list[str]) -> dict[str, Any]:
        """Compare scoring and sampling, after a few steps of training of each."""
        density = glow(self.size, "float32", 1).fit(self.X[: 2 * BATCH])
        n = len(self.scored)
        for rival in self.rivals.values():
            rival.train(1)
        ours = {
            "scoring": lambda: density.score_samples(self.scored),
            "sampling": lambda: density.sample(n, random_state=SEED),
        }
        ours = {kind: work for kind, work in ours.items() if kind in what}
        return rivals.score_and_sample(ours, self.rivals, tensor(self.scored), n, self.n_rounds)


def measured(size_name: str, args: Any) -> dict[str, Any]:
    """Run all that is wanted at one size."""
    size, n_steps, n_scored = (TINY, 1, 64) if args.quick else (SIZES[size_name], args.steps, args.scored)
    pair, found = Pair(size, args.peers, n_steps, args.rounds, n_scored), {}
    name = f"size {size_name}, {torch.get_num_threads()} thread(s)"
    if "training" in args.what:
        for precision in ("float32", "auto"):
            found[f"training, {precision}"] = side.told(f"{name}: training, {precision}", pair.training(precision))
    for what, comparison in pair.scoring_and_sampling(args.what).items():
        found[what] = side.told(f"{name}: {what}", comparison)
    return found


def main() -> None:
    """Run the benchmark, print a line a comparison and keep the results."""
    parser = side.arguments(__doc__)
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["28"])
    parser.add_argument("--peers", nargs="*", choices=list(peers.GLOWS), default=list(peers.GLOWS))
    kinds = ["training", "scoring", "sampling"]
    parser.add_argument("--what", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4, help="of training, in a block")
    parser.add_argument("--scored", type=int, default=512, help="images scored or sampled in a block")
    args = parser.parse_args()
    args.rounds = 2 if args.quick else args.rounds
    warnings.simplefilter("ignore")
    results = []
    for n in args.threads:
        with torch_threads(n):
            results += [{"size": size, "threads": n, **measured(size, args)} for size in args.size]
    side.keep(args.out, "flows", args.quick, results)


if __name__ == "__main__":
    main()

"""How time grows with rows, pixels and steps: slopes of log time on log size, 1 where time is proportional.

    python examples/benchmarks/slopes.py [--quick] [--threads 1] [--only "Glow, pixels" ...] [--rounds 5] [--out FILE]

"rows": images or rows scored, or trained on for an epoch; "pixels": height times width, at the same number of images;
"steps": the steps of flow of each level, or the transforms of MAF. Sizes pass in turn, round after round; each round
has a slope by least squares, and what is given is the median with the least and the largest.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import flows
import numpy as np
import side_by_side as side
from peers import Size
from tables_zuko import rows

from flowdetect import GlowDensity, MAFDensity, PixelCNNDensity, RealNVPDensity, VAEDensity
from flowdetect._threads import torch_threads

SEED, BATCH = 0, 64
GLOW = {"n_levels": 2, "n_steps": 4, "hidden_channels": 64}
PIXELCNN = {"variant": "pixelcnn++", "n_filters": 32, "n_blocks": 1, "n_mixtures": 3}
TRAINING = {"batch_size": BATCH, "max_epochs": 1, "early_stopping": False, "random_state": SEED}

Work = Callable[[], object]


def pictures(n: int, side_length: int = 28) -> np.ndarray:
    """Random smooth grey images."""
    return flows.images(Size((1, side_length, side_length), 2, 1, 1), n)


def table(n: int) -> np.ndarray:
    """Rows of ten curved columns."""
    return rows(n, 0)


def trained(make: Any, X: np.ndarray, **parameters: Any) -> Any:
    """Fit a density for a few steps, which are enough: speed does not depend on the weights."""
    return make(**{**TRAINING, **parameters}).fit(X)


def scoring(density: Any, X: np.ndarray) -> Work:
    """Score rows."""
    return partial(density.score_samples, X)


def epochs(density: Any, X: np.ndarray, n: int = 3) -> Callable[[], float]:
    """Train some epochs; give the seconds of the fastest, without what a fit does before and after."""

    def work() -> float:
        density.set_params(max_epochs=n).fit(X)
        return min(density.history_["seconds"])

    return work


# ---- what is measured: for each size, what is to be done


def by_rows(make: Any, draw: Callable[[int], np.ndarray], sizes: Iterable[int], **parameters: Any) -> dict[int, Work]:
    """Score more and more rows."""
    density = trained(make, draw(2 * BATCH), **parameters)
    return {n: scoring(density, draw(n)) for n in sizes}


def by_trained_rows(make: Any, draw: Any, sizes: Iterable[int], **parameters: Any) -> dict[int, Work]:
    """Train on more and more rows."""
    return {n: epochs(make(**{**TRAINING, **parameters}), draw(n)) for n in sizes}


def by_pixels(make: Any, lengths: Iterable[int], n: int, training: bool = False, **parameters: Any) -> dict[int, Work]:
    """Score, or train on, larger and larger images."""
    found: dict[int, Work] = {}
    for length in lengths:
        X = pictures(n, length)
        density = make(**{**TRAINING, **parameters})
        found[length**2] = epochs(density, X) if training else scoring(density.fit(X), X)
    return found


def by_steps(make: Any, name: str, X: np.ndarray, counts: Iterable[int], training: bool, **other: Any) -> dict:
    """Score with, or train, deeper and deeper flows."""
    found: dict[int, Work] = {}
    for count in counts:
        density = make(**{**TRAINING, **other, name: count})
        found[count] = epochs(density, X) if training else scoring(density.fit(X), X)
    return found


def measurements(quick: bool) -> dict[str, Callable[[], dict[int, Work]]]:
    """All slopes by name."""
    images, many = ((64, 128), (256, 512)) if quick else ((256, 512, 1024, 2048), (8_192, 16_384, 32_768, 65_536))
    lengths, n = ((8, 16), 64) if quick else ((32, 64, 128), 64)
    short, few = ((8, 16), 16) if quick else ((16, 32, 64), 32)
    counts = (1, 2) if quick else (2, 4, 8, 16)
    X, X_table = (pictures(64, 8), table(256)) if quick else (pictures(128), table(4_096))
    glow, pixelcnn, vae = (GlowDensity, GLOW), (PixelCNNDensity, PIXELCNN), (VAEDensity, {"hidden_channels": 16})
    wide = {"batch_size": 256}
    return {
        "Glow scores, rows": lambda: by_rows(glow[0], pictures, images, **glow[1]),
        "Glow trains, rows": lambda: by_trained_rows(glow[0], pictures, images[:3], **glow[1]),
        "Glow scores, pixels": lambda: by_pixels(glow[0], lengths, n, **glow[1]),
        "Glow trains, pixels": lambda: by_pixels(glow[0], lengths, n, True, **glow[1]),
        "Glow scores, steps": lambda: by_steps(glow[0], "n_steps", X, counts, False, n_levels=2, hidden_channels=64),
        "Glow trains, steps": lambda: by_steps(glow[0], "n_steps", X, counts, True, n_levels=2, hidden_channels=64),
        "PixelCNN++ scores, pixels": lambda: by_pixels(pixelcnn[0], short, few, **pixelcnn[1]),
        "PixelCNN++ trains, pixels": lambda: by_pixels(pixelcnn[0], short, few, True, **pixelcnn[1]),
        "VAE scores, pixels": lambda: by_pixels(vae[0], short, few, **vae[1]),
        "VAE trains, pixels": lambda: by_pixels(vae[0], short, few, True, **vae[1]),
        "RealNVP on tables scores, rows": lambda: by_rows(RealNVPDensity, table, many),
        "RealNVP on tables trains, rows": lambda: by_trained_rows(RealNVPDensity, table, many[:3], **wide),
        "MAF scores, rows": lambda: by_rows(MAFDensity, table, many),
        "MAF trains, rows": lambda: by_trained_rows(MAFDensity, table, many[:3], **wide),
        "MAF scores, steps": lambda: by_steps(MAFDensity, "n_transforms", X_table, counts, False),
        "MAF trains, steps": lambda: by_steps(MAFDensity, "n_transforms", X_table, counts, True, **wide),
        "RealNVP on tables trains, steps": lambda: by_steps(RealNVPDensity, "n_steps", X_table, counts, True, **wide),
    }


def measured(works: dict[int, Work], n_rounds: int) -> dict[str, Any]:
    """Time all sizes in turn; a work that gives seconds is timed by these."""
    for work in works.values():
        work()
    seconds: dict[int, list[float]] = {size: [] for size in works}
    for _ in range(n_rounds):
        for size, work in works.items():
            given: Any = None

            def run(work: Work = work) -> None:
                nonlocal given
                given = work()

            elapsed = side.seconds_of(run)
            seconds[size].append(given if isinstance(given, float) else elapsed)
    logs = np.log(list(works))
    slopes = [float(np.polyfit(logs, np.log(column), 1)[0]) for column in zip(*seconds.values(), strict=True)]
    medians = {size: float(f"{np.median(values):.4g}") for size, values in seconds.items()}
    return {"slope": side.spread(slopes), "seconds": medians}


def main() -> None:
    """Run the benchmark, print a line a slope and keep the results."""
    parser = side.arguments(__doc__)
    parser.add_argument("--only", nargs="+", help="parts of names, such as Glow or pixels")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    results = []
    for n in args.threads:
        with torch_threads(n):
            for name, make in measurements(args.quick).items():
                if args.only and not any(part in name for part in args.only):
                    continue
                found = measured(make(), 1 if args.quick else args.rounds)
                results.append({"what": name, "threads": n, **found})
                slope = found["slope"]
                print(f"{name}: slope {slope['median']:.2f} ({slope['low']:.2f} to {slope['high']:.2f})", found)
    side.keep(args.out, "slopes", args.quick, results)


if __name__ == "__main__":
    main()

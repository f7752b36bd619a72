"""Peak memory of training and scoring a Glow, ours and normflows', against the batch and the size of the images.

    python examples/benchmarks/peak_memory.py [--quick] [--threads 1] [--out FILE]

2 levels of 8 steps, networks of 128 channels, as in `flows.py`. "batch": 28x28 images in batches of 16 to 256; "side":
32 images of 16x16 to 64x64. Each number is from a process of its own: by how many MB memory rose above what it held
with the images and the libraries, at most, in three steps of training and in scoring a batch afterwards. The memory
of the weights, their gradients and the optimiser is part of it. `depth_memory.py` has memory against depth.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from functools import partial
from typing import Any

import flows
import peers
import rivals
import side_by_side as side
import torch
from peers import Size

BATCHES, SIDES, N_STEPS = (16, 64, 256), (16, 32, 64), 3


def measured(name: str, length: int, batch: int, quick: bool) -> dict[str, float]:
    """Train and score in this process; MB of each."""
    size = Size((1, length, length), 2, 1 if quick else 8, 8 if quick else 128)
    X = flows.images(size, N_STEPS * batch)
    scored = X[:batch]
    if name == side.OURS:
        flows.glow(size, "auto", 1).fit(X[:2])  # imports what a fit imports
        density = flows.glow(size, "auto", 1).set_params(batch_size=batch)
        trained = side.peak_of(partial(density.fit, X))
        return {"training": trained, "scoring": side.peak_of(partial(density.score_samples, scored))}
    torch.manual_seed(0)
    x = flows.tensor(X) / 256
    for first in (True, False):  # the first one loads what a step needs
        rows, n = (x[:2], 2) if first else (x, batch)
        rival = rivals.Rival(peers.GLOWS[name][1](size), rows, n, flows.PEAK, (n,))
        if first:
            rival.train(1)
    trained = side.peak_of(partial(rival.train, N_STEPS))
    return {"training": trained, "scoring": side.peak_of(partial(rival.score, rival.x[:batch]))}


def in_own_process(name: str, length: int, batch: int, quick: bool) -> dict[str, float]:
    """Measure in a new process."""
    command = [sys.executable, __file__, "--one", name, str(length), str(batch), *(["--quick"] if quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run every measurement, print a line each and keep the results."""
    parser = side.arguments(__doc__)
    parser.add_argument("--one", nargs=3, metavar=("NAME", "SIDE", "BATCH"), help="one measurement, as JSON")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads[0])
    if args.one:
        print(json.dumps(measured(args.one[0], int(args.one[1]), int(args.one[2]), args.quick)))
        return
    batches, sides = ((4, 8), (8, 12)) if args.quick else (BATCHES, SIDES)
    names = [side.OURS, *peers.available(peers.GLOWS, ["normflows"])]
    results: list[dict[str, Any]] = []
    wanted = [("batch", 8 if args.quick else 28, batch) for batch in batches]
    wanted += [("side", length, 4 if args.quick else 32) for length in sides]
    for against, length, batch in wanted:
        found = {name: in_own_process(name, length, batch, args.quick) for name in names}
        line = {"against": against, "side": length, "batch": batch}
        for what in ("training", "scoring"):
            line[what] = {name: round(values[what], 1) for name, values in found.items()}
        results.append(line)
        print(line, flush=True)
    side.keep(args.out, "peak_memory", args.quick, results)


if __name__ == "__main__":
    main()

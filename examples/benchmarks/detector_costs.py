"""What OODDetector costs: processor time to fit, and to score one row, on a table and on images.

    FLOWDETECT_DATA=folder OMP_NUM_THREADS=1 python examples/benchmarks/detector_costs.py [--quick] [--out FILE.json]

Default parameters, random_state 0, one thread. Processor time hardly counts other work on the machine. Scoring is of
1,000 rows at once.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
from results import written

from flowdetect import OODDetector, load_images

N_SCORED = 1_000


def shuttle() -> tuple[np.ndarray, np.ndarray]:
    """Give the inliers of ADBench's shuttle in random order, 9 columns, split in two."""
    with np.load(Path(os.environ["FLOWDETECT_DATA"]) / "adbench" / "shuttle.npz") as file:
        X = file["X"][file["y"] == 0]
    X = X[np.random.default_rng(0).permutation(len(X))]
    return X[:-N_SCORED], X[-N_SCORED:]


def images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Give all training images of a set, and the first test images."""
    return load_images(name)[0], load_images(name, "test")[0][:N_SCORED]


SETS = {
    "shuttle": (shuttle, 40_000),
    "fashion_mnist": (lambda: images("fashion_mnist"), 60_000),
    "cifar10": (lambda: images("cifar10"), 20_000),
}


def measured(name: str, quick: bool) -> dict[str, float | int | str]:
    """Fit and score one set: processor seconds of the fit, and milliseconds a scored row."""
    read, n = SETS[name]
    X, X_new = read()
    X = X[: 500 if quick else n]
    detector = OODDetector(random_state=0, time_limit=3 if quick else None)
    started = time.process_time()
    detector.fit(X)
    fitted = time.process_time()
    detector.score_samples(X_new)
    scored = time.process_time()
    return {
        "set": name,
        "rows": len(X),
        "values": int(np.prod(X.shape[1:])),
        "fit_s": round(fitted - started, 2),
        "score_ms": round(1_000 * (scored - fitted) / len(X_new), 3),
    }


def main() -> None:
    """Measure each set and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="500 rows, 3 seconds of training")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*extreme values")
    found = []
    for name in arguments.only:
        found.append(measured(name, arguments.quick))
        print(found[-1], flush=True)
        if arguments.out:
            written(arguments.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

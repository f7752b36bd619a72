"""Does a detector whose fit was killed resume and end with the very same detector?

    python examples/studies/killed_detectors.py [--quick] [--results DIR]

On the table of breast cancer (569 rows, 30 columns) `LikelihoodRatioDetector` and `WAICDetector` with `RealNVPDensity`,
and `OODDetector` without a density and with that one, each with ``random_state=None`` and 0. A process fits the
detector with a folder as `checkpoint`, and gets SIGKILL after a random time, up to 0.6 of what an undisturbed fit
takes; the next process starts the same fit, until one ends. Then comes another folder, until there were ten kills.
Every detector that was finished is compared, bit for bit, with one of a process that was left alone: scores, p-values,
`offset_` and `calibration_scores_`. With None that process has the seed's file and no other, with 0 it has no folder.

Needs fork and signals of POSIX. Writes killed_detectors.json and .txt.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer

from flowdetect import LikelihoodRatioDetector, OODDetector, RealNVPDensity, WAICDetector
from flowdetect.detectors import BaseDetector

NAMES = ("LikelihoodRatioDetector", "WAICDetector", "OODDetector", "OODDetector of RealNVPDensity")
LONGEST_WAIT = 0.6  # before a kill, in fits that are left alone


def make(name: str, max_epochs: int, **parameters: Any) -> BaseDetector:
    """Make an unfitted detector."""
    density = RealNVPDensity(n_blocks=2, hidden_channels=16, batch_size=32, max_epochs=max_epochs)
    if name == "LikelihoodRatioDetector":
        return LikelihoodRatioDetector(density, **parameters)
    if name == "WAICDetector":
        return WAICDetector(density, 3, **parameters)
    return OODDetector(density if "of" in name else None, **parameters)


def fit_and_store(name: str, max_epochs: int, seed: int | None, folder: Path | None, path: Path) -> None:
    """Be the process that is killed: fit, and write what the detector answers."""
    X, started = load_breast_cancer().data, time.monotonic()
    detector = make(name, max_epochs, checkpoint=folder, random_state=seed).fit(X)
    seconds = time.monotonic() - started
    found = {"scores": detector.score_samples(X), "p_values": detector.p_values(X), "offset": detector.offset_}
    np.savez(path, **found, calibration_scores=detector.calibration_scores_, seconds=seconds)


def run(*arguments: Any, wait: float | None = None) -> bool:
    """Run one process, killed after so many seconds; say whether it came to its end."""
    process = multiprocessing.get_context("fork").Process(target=fit_and_store, args=arguments)
    process.start()
    process.join(wait)
    process.kill()  # SIGKILL, of no effect on one that has ended
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{arguments} ended with {process.exitcode}.")
    return process.exitcode == 0


def same(path: Path, other: Path) -> bool:
    """Say whether two processes found the same, bit for bit."""
    ours, theirs = np.load(path), np.load(other)
    return all(ours[name].tobytes() == theirs[name].tobytes() for name in ours if name != "seconds")


def study(name: str, max_epochs: int, seed: int | None, n_kills: int, rng: np.random.Generator) -> dict[str, Any]:
    """Kill fits of one kind of detector so many times, and compare what became of them."""
    kills, within, equal = 0, 0, []
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        run(name, max_epochs, seed, None, home / "alone.npz")
        seconds = float(np.load(home / "alone.npz")["seconds"])
        while kills < n_kills:
            folder, resumed = home / f"folder{len(equal)}", home / f"resumed{len(equal)}.npz"
            case = name, max_epochs, seed, folder, resumed
            while not run(*case, wait=rng.uniform(0, LONGEST_WAIT * seconds) if kills < n_kills else None):
                kills += 1
                within += any(folder.glob("*.checkpoint"))
            alone = home / "alone.npz"
            if seed is None:
                kept, alone = home / f"seed{len(equal)}", home / f"alone{len(equal)}.npz"
                kept.mkdir()
                for file in folder.glob("*.seed"):
                    shutil.copy(file, kept)
                run(name, max_epochs, seed, kept, alone)
            equal.append(same(resumed, alone))
    return {"kills": kills, "with_checkpoint": within, "fits": len(equal), "equal": sum(equal), "seconds": seconds}


def table(found: dict[str, dict[str, Any]]) -> str:
    """Write the result as text."""
    lines = [f"{'':<48}{'kills':>6}{'after a checkpoint':>20}{'fits':>6}{'bitwise equal':>15}{'s a fit':>9}"]
    for case, each in found.items():
        counts = f"{each['kills']:>6}{each['with_checkpoint']:>20}{each['fits']:>6}{each['equal']:>15}"
        lines.append(f"{case:<48}{counts}{each['seconds']:>9.1f}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two kills each, of short trainings")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    folder, rng = Path(args.results), np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    max_epochs, n_kills = (2, 2) if args.quick else (6, 10)
    make(NAMES[0], 1).fit(load_breast_cancer().data[:100])  # so that kills come to trainings, not to imports
    found: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        for seed in (None, 0):
            case = f"{name}, random_state={seed}"
            found[case] = study(name, max_epochs, seed, n_kills, rng)
            print(table({case: found[case]}).splitlines()[1], flush=True)
    (folder / "killed_detectors.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "killed_detectors.txt").write_text(table(found))


if __name__ == "__main__":
    main()

"""Are the p-values of `OODDetector()` on tables right, and does `select` hold the false discovery rate?

    FLOWDETECT_DATA=folder python examples/studies/false_discoveries.py [--quick] [--results DIR]

Eight ADBench tables with at least 1,000 inliers. False alarms: 20 random splits of each, half of the inliers (2,000 at
most) to fit and 1,000 at most of the others to ask about; how many have p-values of at most 1, 5 and 10 %, and whether
that lies within the 95 % interval of the beta-binomial distribution, which counts that the calibration rows are a
sample too. False discoveries: 200 repetitions on each table, each with its own split and a batch of 180 held-out
inliers and 20 outliers; the share of inliers among the rows that ``select(X, fdr=0.1)`` names, and the share of the
outliers that it finds, beside the same procedure on another score, the mean distance to the 5 nearest training rows in
standardised columns, calibrated by leaving each training row out.

Each table is stored as it is done, and a second start resumes. Writes false_discoveries.json and .txt.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import betabinom, false_discovery_control
from shared import SEED, interval
from sklearn.neighbors import NearestNeighbors
from table_protocols import load_table

from flowdetect import OODDetector

TABLES = ["cardio", "letter", "mammography", "optdigits", "pendigits", "satellite", "thyroid", "vowels"]
LEVELS = (0.01, 0.05, 0.1)
FDR, N_INLIERS, N_OUTLIERS = 0.1, 180, 20
MOST_TRAIN, MOST_ASKED = 2000, 1000


def halves(X: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows in two at random."""
    rows = X[rng.permutation(len(X))]
    half = len(rows) // 2
    return rows[:half][:MOST_TRAIN], rows[half:]


def by_neighbours(train: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Give p-values of the mean distance to the 5 nearest training rows."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation == 0] = 1
    neighbours = NearestNeighbors(n_neighbors=5).fit((train - mean) / deviation)
    known = np.sort(neighbours.kneighbors()[0].mean(axis=1))
    found = neighbours.kneighbors((asked - mean) / deviation)[0].mean(axis=1)
    return (1 + len(known) - np.searchsorted(known, found, side="left")) / (1 + len(known))


def false_alarms(inliers: np.ndarray, n_splits: int) -> list[dict[str, Any]]:
    """Count held-out inliers with small p-values, split by split."""
    found = []
    for split in range(n_splits):
        train, asked = halves(inliers, np.random.default_rng(split))
        asked = asked[:MOST_ASKED]
        detector = OODDetector(random_state=SEED).fit(train)
        p_values, n = detector.p_values(asked), len(detector.calibration_scores_)
        for level in LEVELS:
            rank, flagged = int(level * (n + 1)), int((p_values <= level).sum())
            low, high = betabinom(len(asked), rank, n + 1 - rank).ppf([0.025, 0.975])
            found.append({"level": level, "share": flagged / len(asked), "inside": bool(low <= flagged <= high)})
    return found


def discoveries(inliers: np.ndarray, outliers: np.ndarray, n_repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Select from batches, and count what is false and what is found."""
    found: dict[str, dict[str, list[float]]] = {name: {"false": [], "power": []} for name in ("OODDetector", "KNN")}
    is_outlier = np.repeat([False, True], [N_INLIERS, N_OUTLIERS])
    for repetition in range(n_repetitions):
        rng = np.random.default_rng(1000 + repetition)
        train, rest = halves(inliers, rng)
        batch = np.concatenate([rest[:N_INLIERS], outliers[rng.permutation(len(outliers))[:N_OUTLIERS]]])
        ours = OODDetector(random_state=SEED).fit(train).select(batch, FDR) == -1
        theirs = false_discovery_control(by_neighbours(train, batch)) <= FDR
        for name, named in (("OODDetector", ours), ("KNN", theirs)):
            found[name]["false"].append(float((named & ~is_outlier).sum() / max(named.sum(), 1)))
            found[name]["power"].append(float(named[is_outlier].mean()))
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Lay all out as text."""
    lines = [
        "share of held-out inliers with p-values of at most 1, 5, 10 %, mean over splits; splits inside the interval"
    ]
    for name, cells in found.items():
        parts = []
        for level in LEVELS:
            of_level = [cell for cell in cells["alarms"] if cell["level"] == level]
            share = np.mean([cell["share"] for cell in of_level])
            parts.append(f"{share:.3f} ({sum(cell['inside'] for cell in of_level)} of {len(of_level)})")
        lines.append(f"{name:12} " + "   ".join(parts))
    inside = [cell["inside"] for cells in found.values() for cell in cells["alarms"]]
    lines += [f"inside: {sum(inside)} of {len(inside)}", ""]
    lines.append(
        f"select(X, fdr={FDR:g}): share of false discoveries [95 %]; share of the outliers found, beside KNN's"
    )
    for name, cells in found.items():
        ours, theirs = cells["discoveries"]["OODDetector"], cells["discoveries"]["KNN"]
        shown = [
            interval(np.array(values)) for values in (ours["false"], ours["power"], theirs["false"], theirs["power"])
        ]
        lines.append(f"{name:12} " + "   ".join(f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in shown))
    means = [
        np.mean([np.mean(c["discoveries"][d][k]) for c in found.values()])
        for d in ("OODDetector", "KNN")
        for k in ("false", "power")
    ]
    lines.append(f"{'mean':12} " + "   ".join(f"{value:.3f}" + " " * 15 for value in means))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two tables, two splits, four repetitions")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / ("false_discoveries_quick.json" if args.quick else "false_discoveries.json")
    found = json.loads(stored.read_text()) if stored.exists() else {}
    warnings.filterwarnings("ignore", message="select compares")
    names = ["thyroid", "vowels"] if args.quick else TABLES
    for name in names:
        if name not in found:
            X, y = load_table(name)
            counts = (2, 4) if args.quick else (20, 200)
            found[name] = {
                "alarms": false_alarms(X[y == 0], counts[0]),
                "discoveries": discoveries(X[y == 0], X[y == 1], counts[1]),
            }
            stored.write_text(json.dumps(found) + "\n")
    text = table({name: found[name] for name in names})
    (folder / "false_discoveries.txt").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

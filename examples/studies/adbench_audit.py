"""What the published one-class protocol on ADBench does to whom: two flaws, each beside the same protocol without it.

    FLOWDETECT_DATA=folder python examples/studies/adbench_audit.py [--quick] [--only NAME ...] [--tables wine ...]

The protocol is that of "On Diffusion Modeling for Anomaly Detection" (Livernoche et al., 2023),
https://arxiv.org/abs/2305.18593, as its authors' data_generator.py and run.py have it: a table of fewer than 1,000
rows is replaced by 1,000 draws of its rows with replacement; one of more than 50,000 rows by 50,000 of them, drawn
without; then the first half of the inliers trains, the other half and all outliers test, columns standardised by the
training rows. Hence two flaws. Copies: in a small table most test inliers are copies of training rows. Order: a table
of 1,000 to 50,000 rows is cut in the order of its file, which often is sorted by class, by subject or by time, so
that the test inliers are of another kind than the training rows. (`data_generator.py` by itself draws 10,000 of
larger tables, which leaves shuttle and mammography in random order; run.py asks for 50,000.) The clean protocol
differs in this alone: no draws with replacement, and rows in random order before they are cut. Five seeds; both
protocols have the same number of training rows but on the small tables, where the published one has more, copies
among them. Each number is stored as it comes, as in tables.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from table_detectors import Make, detectors, measure
from table_protocols import Results, Split, data_folder, interval_text, load_table
from tables import compile_first

METHODS = ("OODDetector", "KNN mean", "KNN", "LOF", "IForest", "ECOD", "PCA", "GaussianMixture")
FLAWS = ("copies", "order", "neither")
SMALL, LARGE = 1000, 50_000  # rows


def flaw_of(n: int) -> str:
    """Which flaw a table of n rows is subject to."""
    return "copies" if n < SMALL else "order" if n <= LARGE else "neither"


def cut(X: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Split:
    """Train on the first half of the inliers among these rows, in their order; test on the others and the outliers."""
    inliers, outliers = (rows[y[rows] == label] for label in (0, 1))
    n = round(0.5 * len(inliers))
    train, test = inliers[:n], np.concatenate([inliers[n:], outliers])
    mean, std = X[train].mean(0), X[train].std(0)
    std = np.where(std > 0, std, 1)  # as StandardScaler does
    return Split((X[train] - mean) / std, (X[test] - mean) / std, y[test], None)


def published(X: np.ndarray, y: np.ndarray, seed: int) -> Split:
    """Split as the authors' code does, with their generator."""
    rng = np.random.RandomState(seed)  # theirs: the same draws
    rows = np.arange(len(y))
    if len(y) < SMALL:
        rows = rng.choice(rows, SMALL, replace=True)
    elif len(y) > LARGE:
        rows = rng.choice(rows, LARGE, replace=False)
    return cut(X, y, rows)


def clean(X: np.ndarray, y: np.ndarray, seed: int) -> Split:
    """Split rows in random order, each of them once."""
    return cut(X, y, np.random.default_rng(seed).permutation(len(y))[:LARGE])


PROTOCOLS = {"published": published, "clean": clean}


def copies(split: Split) -> float:
    """Share of the test inliers that equal a training row."""
    seen = {row.tobytes() for row in split.train}
    return float(np.mean([row.tobytes() in seen for row in split.test[split.labels == 0]]))


def run(results: Results, makers: dict[str, Make], tables: list[str], n_seeds: int) -> None:
    """Measure what is missing."""
    compile_first(makers)
    for seed in range(n_seeds):
        for table in tables:
            X, y = load_table(table)
            for protocol, split_rows in PROTOCOLS.items():
                key = f"{protocol}/{table}/{seed}"
                missing = [name for name in makers if not results.get(name, key)]
                split = split_rows(X, y, seed)
                if not results.get("copies", key):
                    results.put("copies", key, {"share": copies(split), "n_rows": len(y)})
                for name in missing:
                    results.put(name, key, measure(name, makers[name], split, seed))
            print(seed, table, flush=True)


def values(results: Results, name: str, protocol: str, tables: list[str], n_seeds: int, what: str) -> np.ndarray:
    """Numbers of one detector, (tables, seeds)."""
    found = results.found[name]
    return np.array([[found[f"{protocol}/{table}/{seed}"][what] for seed in range(n_seeds)] for table in tables])


def cells(numbers: np.ndarray, sign: str = "") -> str:
    """Numbers side by side."""
    return "".join(f"{number:{sign}11.3f}" for number in numbers)


def by_table(results: Results, names: list[str], tables: list[str], n_seeds: int) -> list[str]:
    """AUROC of both protocols for each table, and their difference."""
    lines = []
    for flaw in FLAWS:
        chosen = [table for table in tables if flaw_of(rows_of(results, table)) == flaw]
        lines += [f"{flaw}: AUROC, mean over {n_seeds} seeds", "", f"{'':40}" + "".join(f"{n[:10]:>11}" for n in names)]
        for table in chosen:
            both = {
                protocol: np.array(
                    [values(results, name, protocol, [table], n_seeds, "auroc").mean() for name in names]
                )
                for protocol in PROTOCOLS
            }
            for protocol, numbers in both.items():
                share = values(results, "copies", protocol, [table], n_seeds, "share").mean()
                lines.append(f"{table:12} {protocol:10} {share:5.1%} copies   {cells(numbers)}")
            lines.append(f"{table:12} {'difference':26} {cells(both['published'] - both['clean'], '+')}")
        lines.append("")
    return lines


def rows_of(results: Results, table: str) -> int:
    """Count the rows of a table."""
    return results.get("copies", f"clean/{table}/0")["n_rows"]


def gains(results: Results, names: list[str], tables: list[str], n_seeds: int) -> list[str]:
    """Mean gain of each method by each flaw, with a t-interval over seeds, and its place among the methods."""
    lines = []
    for flaw in (*FLAWS, "all"):
        chosen = [table for table in tables if flaw in ("all", flaw_of(rows_of(results, table)))]
        if not chosen:
            continue
        auroc = {
            protocol: np.array([values(results, name, protocol, chosen, n_seeds, "auroc").mean(0) for name in names])
            for protocol in PROTOCOLS
        }  # (methods, seeds)
        places = {key: np.argsort(np.argsort(-array.mean(1))) + 1 for key, array in auroc.items()}
        lines += [f"{flaw} ({', '.join(chosen)})", ""]
        lines.append(f"{'':18}{'published':>10}{'clean':>8}  published minus clean{'':10}place published, clean")
        for i, name in enumerate(names):
            difference = interval_text(auroc["published"][i] - auroc["clean"][i], "+", 3)
            means = f"{auroc['published'][i].mean():10.3f}{auroc['clean'][i].mean():8.3f}"
            lines.append(f"{name:18}{means}  {difference:31}{places['published'][i]}, {places['clean'][i]}")
        lines.append("")
    return lines


def main() -> None:
    """Run the audit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three tables, one seed")
    parser.add_argument("--tables", nargs="*")
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    everything = sorted(path.stem for path in data_folder().glob("*.npz"))
    tables = args.tables or (["letter", "wine", "vowels"] if args.quick else everything)
    n_seeds = 1 if args.quick else 5
    folder, stem = Path(args.results), "adbench_audit_quick" if args.quick else "adbench_audit"
    makers: dict[str, Any] = {name: detectors()[name] for name in args.only}
    run(Results(folder / stem), makers, tables, n_seeds)
    results = Results(folder / stem)
    last = f"clean/{tables[-1]}/{n_seeds - 1}"
    names = [name for name in METHODS if results.get(name, last)]
    text = "\n".join(gains(results, names, tables, n_seeds) + by_table(results, names, tables, n_seeds))
    (folder / f"{stem}.txt").write_text(text + "\n")
    joined = {
        name: {
            protocol: {t: values(results, name, protocol, [t], n_seeds, "auroc")[0].round(4).tolist() for t in tables}
            for protocol in PROTOCOLS
        }
        for name in names
    }
    (folder / f"{stem}.json").write_text(json.dumps(joined) + "\n")
    print(text)


if __name__ == "__main__":
    main()

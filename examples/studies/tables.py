"""Detection on tables: OODDetector beside pyod and scikit-learn, trained on inliers alone and on mixed rows.

    FLOWDETECT_DATA=folder python examples/studies/tables.py [--quick] [--only NAME ...] [--tables wine thyroid ...]
        [--skip NAME ...] [--splits 5] [--results DIR] [--report] [--likelihood]

Reads ADBench's tables from FLOWDETECT_DATA/adbench (X and y of each .npz; y is 1 for outliers). Five splits (seeds 0
to 4), each in two protocols. "one-class": 70 % of the inliers train, the other inliers and all outliers test.
"contaminated": half of all rows train, their outliers among them and unlabelled, the other half tests; both halves
have the table's share of outliers. At most 20,000 rows train (in the contaminated protocol with their share of
outliers) and at most 10,000 of each kind test. Columns constant in training are dropped, the others standardised by
the training rows; all detectors get these arrays. In the contaminated protocol every detector with a parameter
`contamination` is given the true share in the training rows, 0.5 at most, ours too; of the peers only "KNN mean,
trimmed" uses it for more than a threshold. DeepSVDD, LUNAR, `OneClassSVM` and `KernelDensity` are trained on 5,000
rows at most. Seconds are CPU time of the process, of one thread if OMP_NUM_THREADS=1; pyod's detectors score their
training rows in `fit`, scikit-learn's do not.

AUROC and average precision (AUPR) are averaged over the tables. Intervals are t-intervals over the splits: they say
how much another split changes, not how much other tables would. A detector that raises counts as ranking at random.
Each number is stored as it comes, in DIR/tables/NAME.json, so that a second start resumes; `--only` measures single
detectors and reports all that are stored; `--again` measures them again. `--likelihood` compares densities instead
(table_likelihood.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from table_detectors import TRIMMED, Make, by_default, detectors, measure, same_ranking
from table_protocols import PROTOCOLS, Results, Split, data_folder, interval_text, load_table, one_class, standardised

REFERENCE = "KNN mean"
QUICK = (500, 200)  # rows to train and of each kind to test
BEHIND = 0.02  # AUROC
SHORT = 7  # letters of a table's name


def compile_first(makers: dict[str, Make]) -> None:
    """Fit all detectors to a few rows, so that numba's compilation is in no detector's seconds."""
    X = np.random.default_rng(0).normal(size=(150, 4))
    split = Split(*standardised(X[:100], X[100:]), np.repeat([0, 1], 25), None)  # the memory layout that tables have
    for name, make in makers.items():
        measure(name, make, split, 0)


def run(results: Results, makers: dict[str, Make], tables: list[str], args: argparse.Namespace) -> None:
    """Measure what is missing, split by split."""
    sizes = QUICK if args.quick else ()
    compile_first(makers)
    for seed in range(args.splits):
        for table in tables:
            X, y = load_table(table)
            for protocol in args.protocols:
                key = f"{protocol}/{table}/{seed}"
                wanted = [name for name in makers if name in args.only and args.again or not results.get(name, key)]
                if protocol == "one-class":  # nothing to trim
                    wanted = [name for name in wanted if name != TRIMMED]
                if wanted:
                    split = PROTOCOLS[protocol](X, y, seed, *sizes)
                    for name in wanted:
                        results.put(name, key, measure(name, makers[name], split, seed))
            print(seed, table, flush=True)


def values(found: dict[str, Any], protocol: str, tables: list[str], seeds: Iterable[int], what: str) -> np.ndarray:
    """Numbers of one detector, (tables, splits); NaN where there are none."""
    rows = [[found.get(f"{protocol}/{table}/{seed}", {}).get(what, np.nan) for seed in seeds] for table in tables]
    return np.array(rows, float)


class Measured(NamedTuple):
    """One detector on all tables, with the splits that it has of all of them."""

    seeds: list[int]
    auroc: np.ndarray  # (tables, splits)
    aupr: np.ndarray
    seconds: tuple[float, float]  # to fit and to score all tables, mean over splits


def measured(results: Results, protocol: str, tables: list[str], n_splits: int) -> dict[str, Measured]:
    """Detectors that have at least one split of all tables, best first."""
    kept = {}
    for name, found in results.found.items():
        has = ~np.isnan(values(found, protocol, tables, range(n_splits), "auroc")).any(0)
        if has.any():
            seeds = np.flatnonzero(has).tolist()
            fit, score, auroc, aupr = (
                values(found, protocol, tables, seeds, what)
                for what in ("fit_seconds", "score_seconds", "auroc", "aupr")
            )
            kept[name] = Measured(seeds, auroc, aupr, (fit.sum(0).mean(), score.sum(0).mean()))
    return dict(sorted(kept.items(), key=lambda item: -item[1].auroc.mean()))


def gain(one: Measured, other: Measured) -> str:
    """Difference of mean AUROC, with an interval over the splits that both have."""
    shared = sorted(set(one.seeds) & set(other.seeds))
    means = [np.mean(each.auroc[:, [each.seeds.index(seed) for seed in shared]], axis=0) for each in (one, other)]
    return interval_text(means[0] - means[1], "+") if shared else ""


def summary(found: dict[str, Measured]) -> list[str]:
    """Means over tables, one line for each detector."""
    lines = [f"{'':25}{'AUROC':26}{'AUPR':26}{'minus ' + REFERENCE:28}{'fit s':>8}{'score s':>9}  splits"]
    for name, one in found.items():
        means = "".join(f"{interval_text(numbers.mean(0)):26}" for numbers in (one.auroc, one.aupr))
        difference = gain(one, found[REFERENCE]) if REFERENCE in found and name != REFERENCE else ""
        seconds = "{:8.1f}{:9.1f}".format(*one.seconds)
        lines.append(f"{name:25}{means}{difference:28}{seconds}  {len(one.seeds)}")
    return [*lines, ""]


def by_table(found: dict[str, Measured], tables: list[str], what: str) -> list[str]:
    """Means over splits, a line for each detector and a column for each table."""
    lines = [f"{'':25}" + "".join(f"{table[:SHORT]:>{SHORT + 1}}" for table in tables)]
    for name, one in found.items():
        lines.append(f"{name:25}" + "".join(f"{mean:{SHORT + 1}.3f}" for mean in getattr(one, what).mean(1)))
    return [*lines, ""]


def behind(found: dict[str, Measured], tables: list[str]) -> list[str]:
    """Tables on which a detector is more than 0.02 behind KNN by mean distance."""
    lines = []
    for name, one in found.items():
        if name != REFERENCE and REFERENCE in found:
            gaps = found[REFERENCE].auroc.mean(1) - one.auroc.mean(1)
            far = [f"{table} ({gap:.3f})" for table, gap in zip(tables, gaps, strict=True) if gap > BEHIND]
            lines.append(f"{name:25}{', '.join(far) or 'none'}")
    return [*lines, ""]


def compact(results: Results, tables: list[str], n_splits: int) -> dict[str, Any]:
    """Numbers of each detector, protocol and table as lists over the splits, to four decimals; null where missing."""
    joined: dict[str, Any] = {}
    for name, found in results.found.items():
        for protocol in PROTOCOLS:
            for what in ("auroc", "aupr", "fit_seconds", "score_seconds"):
                numbers = values(found, protocol, tables, range(n_splits), what).round(4).tolist()
                rows = [[None if number != number else number for number in row] for row in numbers]
                joined.setdefault(name, {}).setdefault(protocol, {})[what] = dict(zip(tables, rows, strict=True))
    return joined


def report(results: Results, tables: list[str], n_splits: int) -> str:
    """Lay everything out as text."""
    lines = []
    for protocol in PROTOCOLS:
        found = measured(results, protocol, tables, n_splits)
        lines += [f"{protocol}: mean of {len(tables)} tables, 95 % t-interval over splits; seconds of all tables", ""]
        lines += [
            *summary(found),
            f"{protocol}: AUROC by table, mean over splits",
            "",
            *by_table(found, tables, "auroc"),
        ]
        lines += [f"{protocol}: AUPR by table, mean over splits", "", *by_table(found, tables, "aupr")]
        lines += [f"{protocol}: AUROC more than {BEHIND} behind {REFERENCE} on", "", *behind(found, tables)]
    failed = {f"{name} on {key}" for name, found in results.found.items() for key in found if "error" in found[key]}
    return "\n".join([*lines, "raised, and counted as ranking at random: " + ("; ".join(sorted(failed)) or "none"), ""])


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two tables, one split, at most 500 and 200 rows")
    parser.add_argument("--tables", nargs="*")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--protocols", nargs="*", default=list(PROTOCOLS), choices=PROTOCOLS)
    parser.add_argument("--only", nargs="*", default=[], help="measure these alone")
    parser.add_argument("--skip", nargs="*", default=[], help="all but these detectors")
    parser.add_argument("--defaults", action="store_true", help="only detectors with their defaults")
    parser.add_argument("--again", action="store_true", help="measure the detectors of --only again")
    parser.add_argument("--report", action="store_true", help="measure nothing, lay out what is stored")
    parser.add_argument("--likelihood", action="store_true", help="compare densities by test log-likelihood instead")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    if args.quick:
        args.splits = 1
    unknown = set(args.only + args.skip) - set(detectors())
    if unknown:
        parser.error(f"unknown detectors {sorted(unknown)}; there are {list(detectors())}")
    return args


def main() -> None:
    """Run the study."""
    args = arguments()
    everything = sorted(path.stem for path in data_folder().glob("*.npz"))
    tables = args.tables or (["wine", "thyroid"] if args.quick else everything)
    folder, stem = Path(args.results), "tables_quick" if args.quick else "tables"
    if args.likelihood:
        from table_likelihood import compare  # torch is needed by it alone

        compare(tables, folder, quick=args.quick)
        return
    results = Results(folder / stem)
    makers = by_default() if args.defaults else detectors()
    makers = {name: make for name, make in makers.items() if name not in args.skip}
    if args.only:
        makers = {name: detectors()[name] for name in args.only}
    if not args.report:
        run(results, makers, tables, args)
    results = Results(folder / stem)  # what other processes have added too
    agreeing = same_ranking(one_class(*load_table(tables[-1]), 0, *QUICK))
    text = report(results, tables, args.splits) + f"pyod's classes rank {tables[-1]} as scikit-learn's: {agreeing}\n"
    (folder / f"{stem}.txt").write_text(text)
    (folder / f"{stem}.json").write_text(json.dumps(compact(results, tables, args.splits)) + "\n")
    print(text)


if __name__ == "__main__":
    main()

"""The detector to start with on images: `OODDetector()` as it comes, in both directions of all pairs.

    FLOWDETECT_DATA=folder python examples/studies/detector.py [--quick] [--jobs fashion_mnist mnist ...] [--report]
        [--results DIR]

A job is an in-set, with what differs from the default behind a colon: ``fashion_mnist:seed1`` (random_state 1),
``mnist:limit`` (time_limit=120), ``fashion_mnist:without24`` (classes 2 and 4 left out of training, and asked about),
``cifar10_gray:elsewhere`` (asked about sets that took no part in any choice: CIFAR-10 and SVHN in gray,
their middle 28x28 pixels, beside the three gray sets; time_limit=120). Fashion-MNIST, MNIST and KMNIST train on 8,000
images, CIFAR-10 on 20,000 (in gray 8,000), SVHN on 6,000; of each set 1,000 test images are asked about, those of the
in-set too, besides 200 each of made ones: constant, random, striped, and images of the in-set upside down, mirrored and
inverted. On Fashion-MNIST and MNIST the images of the in-set are also shifted by 1 and 2 pixels and made noisy, and
compared with themselves, and with the other set, so changed.

Each job is stored as it is done, in DIR/detector-JOB.json, with the terms of the scores; a second start resumes.
--report writes DIR/detector.txt from what is stored: AUROC with 95 % intervals, false alarms, SITs, and a table in
which the weights of the statistics are chosen on all in-sets but one, by the worst AUROC, and shown on that one. The
same AUROCs go to DIR/detector.json, of which draw_answers.py draws the picture.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from shared import SEED

from flowdetect import AddNoise, OODDetector, Translate, load_images
from flowdetect.detectors import recommended
from flowdetect.evaluation import auroc, auroc_interval

GRAY, COLOUR, GRAYED = ("fashion_mnist", "mnist", "kmnist"), ("cifar10", "svhn"), ("cifar10_gray", "svhn_gray")
N_TRAIN = {"cifar10": 20_000, "svhn": 6000}
NEAR_PAIRS = ((0, 6), (2, 4), (5, 7), (7, 9), (1, 3), (0, 2), (8, 9), (4, 6), (3, 8), (1, 5))
LEVELS = (0.01, 0.05, 0.1)
WEIGHTS = (0.5, 1.0, 2.0)


def images(name: str, n_test: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give training images, their labels and test images."""
    if name in GRAYED:
        X, y, X_test = images(name.removesuffix("_gray"), n_test)
        gray, gray_test = (np.rint(each[:, 2:30, 2:30].mean(axis=3)).astype(np.uint8) for each in (X, X_test))
        return gray[:8000], y[:8000], gray_test
    if name == "svhn":
        X, y = load_images(name, "test", return_X_y=True)  # the one part that everyone has
        return X[:6000], y[:6000], X[6000 : 6000 + n_test]
    X, y = load_images(name, return_X_y=True)
    n = N_TRAIN.get(name, 8000)
    return X[:n], y[:n], load_images(name, "test")[0][:n_test]


def made(X: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Make images of the size of X that no data set has, and some that are images of X changed."""
    rng = np.random.default_rng(SEED)
    shape, height, width = X.shape[1:], X.shape[1], X.shape[2]
    rows, columns = np.mgrid[:height, :width]
    waves = rng.uniform(-1.5, 1.5, (n, 2, 1, 1))
    phase = waves[:, 0] * rows + waves[:, 1] * columns + rng.uniform(0, 2 * np.pi, (n, 1, 1))
    stripes = np.rint(127.5 + 120 * np.sin(phase)).astype(np.uint8)
    if len(shape) == 3:
        stripes = np.repeat(stripes[..., None], shape[2], axis=3)
    constant = rng.integers(0, 256, (n, *(1,) * len(shape)))
    return {
        "constant": np.broadcast_to(constant, (n, *shape)).astype(np.uint8),
        "random": rng.integers(0, 256, (n, *shape)).astype(np.uint8),
        "striped": stripes,
        "upside down": X[:n, ::-1],
        "mirrored": X[:n, :, ::-1],
        "inverted": 255 - X[:n],
    }


def changes() -> dict[str, Any]:
    """Give shifts of 1 and 2 pixels, and unnoticeable noise of all kinds and masks."""
    found: dict[str, Any] = {f"shift {dx}": Translate(dx=-dx) for dx in (1, 2)}
    for kind, below in itertools.product(("gaussian", "shifted", "negative"), (None, 0.3)):
        name = f"noise {kind}, {'all' if below is None else 'dark'} pixels"
        found[name] = AddNoise(0.001, kind=kind, background_below=below, random_state=SEED)
    return found


def terms_of(detector: OODDetector, X: np.ndarray) -> dict[str, list[float]]:
    """Give the terms of the scores of images, as a file keeps them."""
    return {name: np.round(values, 5).tolist() for name, values in detector.score_terms(X).items()}


def run(job: str, args: argparse.Namespace) -> dict[str, Any]:
    """Fit the detector of a job, and score everything."""
    in_set, _, kind = job.partition(":")
    X, y, X_test = images(in_set, args.tests)
    parameters: dict[str, Any] = {"random_state": SEED}
    asked = {in_set: X_test}
    if kind.startswith("seed"):
        parameters["random_state"] = int(kind[4:])
    if kind == "limit":
        parameters["time_limit"] = 120
    if kind.startswith("without"):
        left_out = [int(digit) for digit in kind[7:]]
        test_labels = load_images(in_set, "test", return_X_y=True)[1][: args.tests]
        asked = {in_set: X_test[~np.isin(test_labels, left_out)], kind: X_test[np.isin(test_labels, left_out)]}
        X = X[~np.isin(y, left_out)]
    elif kind == "elsewhere":
        parameters["time_limit"] = 120
        others = GRAYED if in_set in GRAY else [name for name in (*GRAY, *GRAYED) if name != in_set]
        asked |= {name: images(name, args.tests)[2] for name in others}
    else:
        others = [name for group in (GRAY, COLOUR) if in_set in group for name in group if name != in_set]
        asked |= {name: images(name, args.tests)[2] for name in others} | made(X_test, args.made)
    if args.quick:
        X, parameters["time_limit"] = X[:600], 10
    started = time.perf_counter()
    detector = OODDetector(verbose=1, **parameters).fit(X)
    seconds = {"fit": time.perf_counter() - started}
    found = {name: terms_of(detector, values) for name, values in asked.items()}
    if not kind and in_set in GRAY[:2]:
        other = GRAY[1 - GRAY.index(in_set)]
        for name, sit in changes().items():
            found[f"{in_set}, {name}"] = terms_of(detector, sit.fit_transform(asked[in_set][: args.changed]))
            found[f"{other}, {name}"] = terms_of(detector, sit.fit_transform(asked[other][: args.changed]))
    seconds["score, ms an image"] = (
        1000
        * (time.perf_counter() - started - seconds["fit"])
        / sum(len(next(iter(each.values()))) for each in found.values())
    )
    flagged = [int((detector.p_values(X_test) <= level).sum()) for level in LEVELS]
    known = len(detector.calibration_scores_)
    return {"seconds": seconds, "terms": found, "flagged": flagged, "tests": len(X_test), "calibration": known}


def score(terms: dict[str, Any], weights: dict[str, float] | None = None) -> np.ndarray:
    """Add terms up, as they are or by other weights than they have."""
    parts = {name: np.asarray(values) for name, values in terms.items()}
    if weights is None:
        return np.sum(list(parts.values()), axis=0)
    own = {name: float(recommended.WEIGHTS.get(name, 1.0)) for name in parts}
    return np.sum([weights[name] / own[name] * values for name, values in parts.items()], axis=0)


def directions(
    found: dict[str, dict[str, Any]], weights: dict[str, float] | None = None
) -> dict[str, dict[str, float]]:
    """Give the AUROC of each in-set against each other set."""
    table: dict[str, dict[str, float]] = {}
    for in_set in (*GRAY, *COLOUR):
        if in_set in found:
            terms = found[in_set]["terms"]
            outside = [name for name in (*GRAY, *COLOUR) if name in terms and name != in_set]
            inside = score(terms[in_set], weights)
            table[in_set] = {name: auroc(inside, score(terms[name], weights)) for name in outside}
    return table


def chosen_elsewhere(found: dict[str, dict[str, Any]]) -> list[str]:
    """Choose weights by the worst AUROC of all in-sets but one, and show them on that one."""
    names = list(next(iter(found.values()))["terms"].values())[0]
    grid = [dict(zip(names, w, strict=True)) for w in itertools.product(WEIGHTS, repeat=len(names))]
    tables = [directions(found, weights) for weights in grid]
    lines = ["weights chosen without an in-set (by the worst AUROC of the others), and its AUROC with them", ""]
    for left_out in tables[0]:
        worst = [min(v for name, row in table.items() if name != left_out for v in row.values()) for table in tables]
        best = int(np.argmax(worst))
        shown = ", ".join(f"{name} {weight:g}" for name, weight in grid[best].items())
        areas = "  ".join(f"{name} {area:.4f}" for name, area in tables[best][left_out].items())
        lines.append(f"{left_out:14} {areas:48} worst of the others {worst[best]:.4f}; {shown}")
    return lines


def areas(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give AUROC with its interval for each job and set, of the score and of each statistic alone."""
    table = {}
    for job, cells in found.items():
        in_set, terms = job.split(":")[0], cells["terms"]
        inside, table[job] = score(terms[in_set]), {key: value for key, value in cells.items() if key != "terms"}
        table[job]["auroc"] = {}
        for name, values in terms.items():
            if name != in_set and "," not in name:
                outside = score(values)
                area = auroc(inside, outside)
                ends = auroc_interval(inside, outside)
                alone = {key: round(auroc(terms[in_set][key], values[key]), 4) for key in values}
                table[job]["auroc"][name] = {"auroc": [round(end, 6) for end in (area, *ends)], "alone": alone}
    return table


def report(found: dict[str, dict[str, Any]]) -> str:
    """Lay out what is stored."""
    lines = ["AUROC [95 % interval over images]; seconds of fit; of test images of the in-set at p <= 1, 5, 10 %", ""]
    for job, cells in areas(found).items():
        alarms, seconds = [f"{k / cells['tests']:.3f}" for k in cells["flagged"]], cells["seconds"]
        lines.append(
            f"{job}: fit {seconds['fit']:.0f} s, score {seconds['score, ms an image']:.1f} ms an image, alarms "
            f"{' '.join(alarms)} of {cells['tests']} (by {cells['calibration']} calibration rows)"
        )
        for name, each in cells["auroc"].items():
            area, low, high = each["auroc"]
            single = " ".join(f"{key} {value:.3f}" for key, value in each["alone"].items())
            lines.append(f"    {name:14} {area:.4f} [{low:.4f}, {high:.4f}]   {single}")
        lines += _of_changes(job.split(":")[0], found[job]["terms"])
    whole = {name: cells for name, cells in found.items() if ":" not in name}
    return "\n".join([*lines, "", *(chosen_elsewhere(whole) if len(whole) > 2 else [])]) + "\n"


def _of_changes(in_set: str, terms: dict[str, Any]) -> list[str]:
    changed = [name.partition(", ")[2] for name in terms if name.startswith(f"{in_set}, ")]
    other = next((name.partition(",")[0] for name in terms if "," in name and not name.startswith(in_set)), "")
    lines = []
    for change in changed:
        after = score(terms[f"{in_set}, {change}"])
        clean = auroc(score(terms[in_set])[: len(after)], after)
        detected = auroc(after, score(terms[f"{other}, {change}"]))
        lines.append(f"    {change:32} clean against changed {clean:.3f}; {other} after it {detected:.4f}")
    return lines


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="600 images and 10 seconds of training a job")
    parser.add_argument("--jobs", nargs="*", default=list(GRAY + COLOUR))
    parser.add_argument("--report", action="store_true", help="only write the tables of what is stored")
    parser.add_argument("--results", default="results")
    args = parser.parse_args()
    args.tests, args.made, args.changed = (100, 50, 50) if args.quick else (1000, 200, 300)
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    for job in [] if args.report else args.jobs:
        stored = folder / f"detector-{job.replace(':', '-')}.json"
        if not stored.exists():
            stored.write_text(json.dumps({"job": job, **run(job, args)}) + "\n")
    found = {}
    for path in sorted(folder.glob("detector-*.json")):
        cells = json.loads(path.read_text())
        found[cells["job"]] = cells
    text = report(found)
    (folder / "detector.txt").write_text(text)
    (folder / "detector.json").write_text(json.dumps(areas(found)) + "\n")
    print(text)


if __name__ == "__main__":
    main()

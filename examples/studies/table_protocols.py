"""ADBench's tables, and the ways to split them into training and test rows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

ONE_CLASS_TRAIN = 0.7  # share of the inliers
N_TRAIN, N_TEST = 20_000, 10_000  # rows at most; N_TEST of each kind


class Split(NamedTuple):
    """Rows to fit and rows to score, standardised by the former."""

    train: np.ndarray  # (n, D)
    test: np.ndarray  # (m, D)
    labels: np.ndarray  # (m,), 1 for outliers
    contamination: float | None  # share of outliers in train, at most 0.5; None where they were taken out


def data_folder() -> Path:
    """Folder of the tables."""
    return Path(os.environ["FLOWDETECT_DATA"]) / "adbench"


def load_table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Give rows (n, D) and labels (n,), 1 for outliers, in the file's order."""
    with np.load(data_folder() / f"{name}.npz") as file:
        return file["X"].astype(np.float64), file["y"].astype(int)


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop the columns that are constant in training and standardise the others."""
    kept = np.ptp(train, axis=0) > 0
    mean, std = train[:, kept].mean(0), train[:, kept].std(0)
    return (train[:, kept] - mean) / std, (test[:, kept] - mean) / std


def split_of(X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, share: float | None) -> Split:
    """Make a split of two lists of indices."""
    return Split(*standardised(X[train], X[test]), y[test], share)


def one_class(X: np.ndarray, y: np.ndarray, seed: int, n_train: int = N_TRAIN, n_test: int = N_TEST) -> Split:
    """Train on 70 % of the inliers; test on the other inliers and on all outliers."""
    rng = np.random.default_rng(seed)
    inliers, outliers = (rng.permutation(np.flatnonzero(y == label)) for label in (0, 1))
    n = int(ONE_CLASS_TRAIN * len(inliers))
    test = np.concatenate([inliers[n:][:n_test], outliers[:n_test]])
    return split_of(X, y, inliers[:n][:n_train], test, None)


def contaminated(X: np.ndarray, y: np.ndarray, seed: int, n_train: int = N_TRAIN, n_test: int = N_TEST) -> Split:
    """Train on half of all rows, outliers among them; test on the other half. Both halves have the table's share."""
    rng = np.random.default_rng(seed)
    inliers, outliers = (rng.permutation(np.flatnonzero(y == label)) for label in (0, 1))
    halves = [(rows[: len(rows) // 2], rows[len(rows) // 2 :]) for rows in (inliers, outliers)]
    kept = min(1.0, n_train / (len(y) // 2))  # the share stays where training rows are left out
    train = np.concatenate([rows[: max(1, round(kept * len(rows)))] for rows, _ in halves])
    test = np.concatenate([rows[:n_test] for _, rows in halves])
    return split_of(X, y, rng.permutation(train), test, min(0.5, float(y[train].mean())))


PROTOCOLS: dict[str, Callable[..., Split]] = {"one-class": one_class, "contaminated": contaminated}


class Results:
    """Numbers of one detector each in a file of its own, so that several processes can add to one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}

    def put(self, name: str, key: str, value: Any) -> None:
        """Store a value at once."""
        self.found.setdefault(name, {})[key] = value
        part = self.folder / f"{name}.json.{os.getpid()}"
        part.write_text(json.dumps(self.found[name], indent=1) + "\n")
        part.replace(self.folder / f"{name}.json")

    def get(self, name: str, key: str) -> Any:
        """Give a stored value, or None."""
        return self.found.get(name, {}).get(key)


def t_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean with a 95 % t-interval over splits; of one split, without bounds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, mean - half, mean + half


def interval_text(values: np.ndarray, sign: str = "", digits: int = 4) -> str:
    """Mean with its interval over splits, if there are several."""
    mean, low, high = (f"{number:{sign}.{digits}f}" for number in t_interval(values))
    return f"{mean} [{low}, {high}]" if len(values) > 1 else mean

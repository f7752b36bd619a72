"""Categories, dates and missing cells: what does OODDetector lose by them, and which way to numbers keeps most?

    FLOWDETECT_DATA=folder python examples/studies/mixed_tables.py [--flow 5] [--telling] [--tables wine ...]

Reads ADBench tables from FLOWDETECT_DATA/adbench (X and y of each .npz; y is 1 for outliers). Tables with categories
and known outliers are made of them. Of each table, one column in three becomes a category: its values are cut at the
20, 40, 60 and 80 % quantiles and named in an order that tells nothing. One column becomes dates, a day for each
thousandth of its range. Of every column, 10 % of the cells, drawn at random, are missing. Half of the inliers are
trained on; the other half and the outliers are told apart.

Ways to numbers, all before ``OODDetector()``: skrub's TableVectorizer with one number for each column (an ordinal code
for a category, the seconds of a date) and as it comes (an indicator for each category, year, month, day and seconds of
a date); the columns of numbers alone. SimpleImputer fills the gaps, in the last two ways with an indicator for each
column that has some. Beside them the table as it was, complete. With ``--flow`` also RealNVPDensity as the detector's
density, after the first way. With ``--telling`` outliers have three times as many gaps.

Which column? Of held-out inliers one cell is replaced: a number by one beyond the 0.5 and 99.5 % quantiles of its 100
nearest training rows in the other columns, a category by one that none of these has. It is counted how often
``explain(pipeline, row, background=training rows)`` names the broken column first.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from flowdetect import OODDetector, RealNVPDensity, explain

TABLES = ["breastw", "cardio", "ionosphere", "mammography", "pima", "thyroid", "vowels", "wine"]
MISSING = 0.1  # share of all cells
N_NEIGHBORS, TAILS = 100, (0.005, 0.995)
LEVELS = np.array(["delta", "alpha", "echo", "bravo", "charlie"])  # a name's order is not that of its values
START = np.datetime64("2020-01-01")


def one_hot(indicator: bool = False) -> list[Any]:
    """TableVectorizer as it comes: a column for each category, several for a date."""
    from skrub import TableVectorizer

    return [TableVectorizer(), SimpleImputer(add_indicator=indicator)]


def one_number(indicator: bool = False) -> list[Any]:
    """TableVectorizer with one column for each column."""
    from skrub import DatetimeEncoder, TableVectorizer

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    vectorizer = TableVectorizer(low_cardinality=codes, datetime=DatetimeEncoder(resolution=None))
    return [vectorizer, SimpleImputer(add_indicator=indicator)]


def numbers(indicator: bool = False) -> list[Any]:
    """Columns of numbers alone, gaps filled."""
    chosen = make_column_transformer(("passthrough", make_column_selector(dtype_include="number")), remainder="drop")
    return [chosen, SimpleImputer(add_indicator=indicator)]


WAYS: dict[str, Callable[[], list[Any]]] = {
    "one number": one_number,
    "one-hot": one_hot,
    "numbers alone": numbers,
    "1 number, ind.": partial(one_number, indicator=True),
    "one-hot, ind.": partial(one_hot, indicator=True),
}


def mixed(X: np.ndarray, missing: np.ndarray, seed: int) -> pd.DataFrame:
    """Make a table of numbers one with categories, dates and missing cells."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(X.astype(float), columns=[f"c{i}" for i in range(X.shape[1])])
    order = rng.permutation(frame.columns)
    n_categories = max(1, len(order) // 3)
    for name in order[:n_categories]:
        cuts = np.unique(np.quantile(frame[name], [0.2, 0.4, 0.6, 0.8]))
        frame[name] = pd.Series(LEVELS[np.searchsorted(cuts, frame[name])], dtype=object)
    day = order[n_categories]
    scaled = (frame[day] - frame[day].min()) / max(float(np.ptp(frame[day])), 1e-12)
    frame[day] = START + (1000 * scaled).round().astype(int).to_numpy().astype("timedelta64[D]")
    return frame.mask(pd.DataFrame(rng.random(frame.shape) < missing[:, None], columns=frame.columns))


def split(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the rows to train on, half of the inliers, and all others."""
    inliers = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))[: 2 * 5000]
    train = np.sort(inliers[: len(inliers) // 2])
    return train, np.concatenate([np.sort(inliers[len(inliers) // 2 :]), np.flatnonzero(y == 1)])


def area(model: Any, train: Any, test: Any, y_test: np.ndarray) -> float:
    """Fit, score, and give the area under the ROC curve; NaN where a column varies too little for float32."""
    try:
        scores = model.fit(train).score_samples(test)
    except ValueError:  # TableVectorizer gives float32, and RealNVPDensity refuses such a column of cardio
        return np.nan
    return float(roc_auc_score(y_test == 0, scores))


def broken(X: np.ndarray, frame: pd.DataFrame, train: np.ndarray, test: np.ndarray, n: int) -> tuple[Any, list[str]]:
    """Break one cell in each of n rows: the rows, and the names of the broken columns."""
    rng, rows, names = np.random.default_rng(0), [], []
    known = (X - X[train].mean(axis=0)) / np.maximum(X[train].std(axis=0), 1e-12)
    for i in rng.permutation(test):
        squares = (known[train] - known[i]) ** 2
        for j in rng.permutation(X.shape[1]):
            near = frame.iloc[train[np.argsort(squares.sum(axis=1) - squares[:, j])[:N_NEIGHBORS]], j].dropna()
            cells = frame.iloc[test, j].dropna()
            if near.dtype == object:
                cells = cells[~cells.isin(near)]
            else:
                low, high = near.quantile(TAILS[0]), near.quantile(TAILS[1])
                cells = cells[(cells < low) | (cells > high)]
            if len(cells):
                rows.append(frame.iloc[[i]].copy())
                rows[-1].isetitem(
                    j, pd.Series([cells.iloc[rng.integers(len(cells))]], index=[i], dtype=frame.dtypes.iloc[j])
                )
                names.append(frame.columns[j])
                break
        if len(names) == n:
            break
    return pd.concat(rows), names


def named_first(pipeline: Pipeline, rows: Any, names: list[str], background: Any) -> float:
    """Give the share of rows whose broken column `explain` names first."""
    found = explain(pipeline, rows, background)
    return float(np.mean(np.array(found.columns)[found.importance.argmax(axis=1)] == names))


def main() -> None:
    """Measure, and print a line a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--broken", type=int, default=100, help="rows to break a table")
    parser.add_argument("--flow", type=float, default=0.0, help="seconds of training of RealNVPDensity; 0: left out")
    parser.add_argument("--telling", action="store_true", help="outliers have three times as many gaps")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    columns = ["complete", *WAYS, *(["RealNVP"] if args.flow else []), "named first"]
    print(f"{'table':12}" + "".join(f"{name:>15}" for name in columns), flush=True)
    means = []
    for table in args.tables:
        with np.load(Path(os.environ["FLOWDETECT_DATA"]) / "adbench" / f"{table}.npz") as file:
            X, y = file["X"].astype(float), file["y"]
        areas = []
        for seed in range(args.seeds):
            missing = np.where(args.telling & (y == 1), 3 * MISSING, MISSING)
            frame, (train, test) = mixed(X, missing, seed), split(y, seed)
            line = [area(OODDetector(random_state=0), X[train], X[test], y[test])]
            for way in WAYS.values():
                pipeline = make_pipeline(*way(), OODDetector(random_state=0))
                line.append(area(pipeline, frame.iloc[train], frame.iloc[test], y[test]))
            if args.flow:
                flow = OODDetector(RealNVPDensity(), time_limit=args.flow, random_state=0)
                line.append(area(make_pipeline(*one_number(), flow), frame.iloc[train], frame.iloc[test], y[test]))
            areas.append(line)
        pipeline = make_pipeline(*one_number(), OODDetector(random_state=0)).fit(frame.iloc[train])
        rows, names = broken(X, frame, train, test[y[test] == 0], args.broken)
        means.append([*np.mean(areas, axis=0), named_first(pipeline, rows, names, frame.iloc[train])])
        print(f"{table:12}" + "".join(f"{value:15.3f}" for value in means[-1]), flush=True)
    print(f"{'mean':12}" + "".join(f"{value:15.3f}" for value in np.nanmean(means, axis=0)), flush=True)


if __name__ == "__main__":
    main()

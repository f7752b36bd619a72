"""Scores of a million rows by one process, joblib, Ray, Spark and Dask, a worker killed in each: do any differ?

    python examples/benchmarks/engines.py [--quick] [--rows 1000000] [--only ray ...] [--out engines.json]

A table of 10 columns in Parquet files is scored by a `Scorer` of a LikelihoodDetector of a flow, on local clusters of
two workers. The worker that comes to the row in the middle kills itself with SIGKILL, once an engine, so that what it
had not handed on is scored again. "differ" counts, over all rows, values of score, p-value and label that are not
bitwise those of one process without engine. Seconds are those of scoring, the killed worker's included, without
starting the cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")

import joblib
import numpy as np
import pandas as pd
from joblib.externals.loky.process_executor import TerminatedWorkerError

from flowdetect import LikelihoodDetector, RealNVPDensity, Scorer

N_COLUMNS, N_TRAINED, N_FILES, N_WORKERS, BATCH = 10, 5000, 20, 2, 8192
OUTPUTS = ["score", "p_value", "label"]


class Dying:
    """A scorer, in whose first batch with the row in the middle the process is killed."""

    def __init__(self, scorer: Scorer, marker: Path, middle: int) -> None:
        self.scorer, self.marker, self.middle = scorer, str(marker), middle

    def __call__(self, batch: Any) -> Any:
        key = np.asarray(batch["key"])
        if self.middle in key:
            try:
                os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass  # a worker was killed already
        return self.scorer(batch)

    def map_frames(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Score frames one after the other."""
        return map(self, frames)


# ---- engines: from a scorer and a folder of Parquet files to a frame of answers, and the seconds that it took


def by_one(scorer: Any, folder: Path) -> tuple[pd.DataFrame, float]:
    """Score in this process."""
    started = time.perf_counter()
    parts = [scorer(pd.read_parquet(path)) for path in sorted(folder.iterdir())]
    return pd.concat(parts), time.perf_counter() - started


def read_and_score(scorer: Any, path: Path) -> tuple[Path, pd.DataFrame]:
    """Score a file."""
    return path, scorer(pd.read_parquet(path))


def by_joblib(scorer: Any, folder: Path) -> tuple[pd.DataFrame, float]:
    """Score in joblib's own workers; it starts no new one, so what is missing is asked for again."""
    joblib.Parallel(N_WORKERS)(joblib.delayed(abs)(i) for i in range(N_WORKERS))
    started = time.perf_counter()
    found: dict[Path, pd.DataFrame] = {}
    paths = set(folder.iterdir())
    while len(found) < len(paths):
        parallel = joblib.Parallel(N_WORKERS, return_as="generator_unordered", batch_size=1)
        try:
            for path, part in parallel(joblib.delayed(read_and_score)(scorer, path) for path in paths - found.keys()):
                found[path] = part
        except TerminatedWorkerError:
            continue
    return pd.concat(found.values()), time.perf_counter() - started


def by_ray(scorer: Any, folder: Path) -> tuple[pd.DataFrame, float]:
    """Score with Ray Data."""
    import ray

    ray.init(num_cpus=N_WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    started = time.perf_counter()
    found = ray.data.read_parquet(str(folder)).map_batches(scorer, batch_size=BATCH).to_pandas()
    seconds = time.perf_counter() - started
    ray.shutdown()
    return found, seconds


def by_spark(scorer: Any, folder: Path) -> tuple[pd.DataFrame, float]:
    """Score with Spark."""
    from pyspark.sql import SparkSession

    settings = {"spark.ui.enabled": "false", "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH)}
    settings |= {"spark.driver.memory": "2g", "spark.sql.execution.arrow.pyspark.enabled": "true"}
    spark = SparkSession.builder.master(f"local[{N_WORKERS}, 4]").config(map=settings).getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    schema = "key bigint, score double, p_value double, label bigint"
    started = time.perf_counter()
    found = spark.read.parquet(str(folder)).mapInPandas(scorer.map_frames, schema=schema).toPandas()
    seconds = time.perf_counter() - started
    spark.stop()
    return found, seconds


def by_dask(scorer: Any, folder: Path) -> tuple[pd.DataFrame, float]:
    """Score with Dask."""
    import dask.dataframe as dd
    from distributed import Client, LocalCluster

    meta = {"key": "int64", "score": "float64", "p_value": "float64", "label": "int64"}
    cluster = LocalCluster(
        n_workers=N_WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    with cluster, Client(cluster):
        started = time.perf_counter()
        found = dd.read_parquet(str(folder)).map_partitions(scorer, meta=meta).compute()
        return found, time.perf_counter() - started


ENGINES: dict[str, Callable[[Any, Path], tuple[pd.DataFrame, float]]] = {
    "joblib": by_joblib,
    "ray": by_ray,
    "spark": by_spark,
    "dask": by_dask,
}
PACKAGES = {"joblib": "joblib", "ray": "ray", "spark": "pyspark", "dask": "distributed"}


def n_differ(found: pd.DataFrame, expected: pd.DataFrame) -> int:
    """Count values that are not bitwise those expected, by key; a row that is missing counts as all of its values."""
    found = found.drop_duplicates("key") if len(found) == len(expected) else found[:0]
    both = expected.merge(found, on="key", how="left", suffixes=("", "_found"))
    pairs = [(both[name].to_numpy(float), both[f"{name}_found"].to_numpy(float)) for name in OUTPUTS]
    return int(sum((one.view(np.int64) != other.view(np.int64)).sum() for one, other in pairs))


def main() -> None:
    """Run the benchmark and print a line an engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--out", help="a JSON file for the results")
    args = parser.parse_args()
    n_rows = 20_000 if args.quick else args.rows
    names = [f"x{i}" for i in range(N_COLUMNS)]
    X = np.random.default_rng(0).normal(size=(n_rows, N_COLUMNS)) @ np.random.default_rng(1).normal(
        size=(N_COLUMNS,) * 2
    )
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "table").mkdir()
        table = pd.DataFrame(X, columns=names).assign(key=np.arange(n_rows))
        for number, part in enumerate(np.array_split(np.arange(n_rows), N_FILES)):
            table.iloc[part].to_parquet(folder / "table" / f"{number:02}.parquet")
        density = RealNVPDensity(max_epochs=5, random_state=0)
        LikelihoodDetector(density, random_state=0).fit(table[names][:N_TRAINED]).save(folder / "detector")
        scorer = Scorer(folder / "detector", keep="key")
        expected, seconds = by_one(scorer, folder / "table")
        results: dict[str, Any] = {
            "rows": n_rows,
            "columns": N_COLUMNS,
            "workers": N_WORKERS,
            "one process": {"seconds": round(seconds, 1)},
        }
        print("one process", json.dumps(results["one process"]), flush=True)
        for name in args.only:
            marker = folder / f"{name}-died"
            found, seconds = ENGINES[name](Dying(scorer, marker, n_rows // 2), folder / "table")
            results[name] = {
                "version": version(PACKAGES[name]),
                "seconds": round(seconds, 1),
                "workers killed": int(marker.exists()),
                "differ": n_differ(found, expected),
            }
            print(name, json.dumps(results[name]), flush=True)
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""A table of 50 million rows x 10 columns as Parquet, 4 GB: fitted and scored by a process that may take 1.5 GB.

    python examples/benchmarks/parquet_rows.py [--quick] [--rows N] [--every K] [--memory GB] [--threads N] [--json F]

The table is written in parts into a temporary folder, and removed at the end. Another process, in which private
memory (RLIMIT_DATA on Linux: heap and anonymous maps) ends at `--memory`, reads the files alone, by pyarrow; reads
them as rows by `load_parquet`; fits a small `RealNVPDensity` for one epoch on 95 % of every third row (`--every`), in
random order, in batches of 16,384, which makes 967 steps; and scores all rows, five million at a time. Steps a second
are those of the training; the seconds of the fit also hold its passes over the rows before, and the writing of a
temporary file for random order. The highest resident memory of the process is taken too, shared pages of libraries
included. --quick: one million rows.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = [f"x{i}" for i in range(10)]
ROWS, QUICK_ROWS = 50_000_000, 1_000_000
ROWS_A_FILE, ROWS_A_GROUP = 10_000_000, 500_000
BATCH, HELD_OUT = 16_384, 0.05
ROWS_SCORED = 5_000_000  # at a time
GB = 1e9


def write_table(folder: Path, n_rows: int) -> None:
    """Write files of correlated, skewed columns, half a million rows at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    mixing = np.random.default_rng(0).normal(size=(10, 10)) / 3
    schema = pa.schema([(name, pa.float64()) for name in COLUMNS])
    for start in range(0, n_rows, ROWS_A_FILE):
        with parquet.ParquetWriter(
            folder / f"part{start // ROWS_A_FILE:02}.parquet", schema, use_dictionary=False
        ) as file:
            for group in range(start, min(start + ROWS_A_FILE, n_rows), ROWS_A_GROUP):
                z = np.random.default_rng(group).normal(size=(min(ROWS_A_GROUP, n_rows - group), 10))
                x = z @ mixing + np.tanh(z[:, ::-1])
                x[:, 0] = np.exp(x[:, 0])
                file.write_table(pa.table(dict(zip(COLUMNS, x.T, strict=True))))


def read_alone(folder: Path) -> int:
    """Decode all columns with pyarrow, and do nothing with them."""
    from pyarrow import parquet

    n_rows = 0
    for path in sorted(folder.iterdir()):
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**16) as file:
            n_rows += sum(batch.num_rows for batch in file.iter_batches(2**16))
    return n_rows


def peak_gb() -> float:
    """Highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


def fit_and_score(folder: Path, every: int, memory: float, threads: int, queue: Any) -> None:
    """Do all that is measured, in a process of its own whose memory ends at `memory` GB."""
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # others reserve a GB, of which they use little
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory * GB), int(memory * GB)))
    import pyarrow as pa
    import torch

    from flowdetect import RealNVPDensity, load_parquet

    torch.set_num_threads(threads)
    pa.set_cpu_count(threads)
    told: dict[str, Any] = {"memory_limit_gb": memory, "threads": threads, "peak_gb_after_imports": peak_gb()}
    seconds: dict[str, float] = {}

    def timed(name: str, function: Any) -> Any:
        start = time.perf_counter()
        result = function()
        seconds[name] = time.perf_counter() - start
        told[f"peak_gb_after_{name}"] = peak_gb()
        print(f"{name}: {seconds[name]:.1f} s, peak memory {peak_gb():.2f} GB", flush=True)
        return result

    n_rows = timed("reading_alone", lambda: read_alone(folder))
    source = load_parquet(folder, cache_bytes=0)  # few rows are written down like many
    timed("reading_as_rows", lambda: sum(len(part) for _, part in source.parts()))
    density = RealNVPDensity(
        n_steps=2,
        hidden_channels=32,
        n_blocks=1,
        coupling="affine",
        max_epochs=1,
        batch_size=BATCH,
        validation_fraction=HELD_OUT,
        device="cpu",
        random_state=0,
    )
    timed("fit", lambda: density.fit(source[::every]))
    parts = range(0, n_rows, ROWS_SCORED)
    total = timed("score", lambda: sum(density.score_samples(source[i : i + ROWS_SCORED]).sum() for i in parts))
    assert np.isfinite(total)
    n_fitted = math.ceil(n_rows / every)
    n_steps = math.ceil((n_fitted - round(HELD_OUT * n_fitted)) / BATCH)
    told |= {
        "rows": n_rows,
        "files_gb": sum(path.stat().st_size for path in folder.iterdir()) / GB,
        "rows_per_s": {name: n_rows / seconds[name] for name in ("reading_alone", "reading_as_rows", "score")},
        "fit_steps": n_steps,
        "fit_steps_per_s": n_steps / density.history_["seconds"][0],
        "fit_rows_per_s": n_steps * BATCH / density.history_["seconds"][0],
        "seconds": seconds,
        "mean_score": total / n_rows,
        "peak_gb": peak_gb(),
    }
    queue.put(told)


def main() -> None:
    """Write the table, measure, and remove it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a million rows")
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--every", type=int, default=3, help="fit to every so many-th row")
    parser.add_argument("--memory", type=float, default=1.5, help="GB (10^9 bytes) that the process may take")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None, help="where to write the figures")
    options = parser.parse_args()
    n_rows = options.rows or (QUICK_ROWS if options.quick else ROWS)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="flowdetect-parquet-") as name:
        start = time.perf_counter()
        write_table(Path(name), n_rows)
        print(f"written: {n_rows:,} rows, {time.perf_counter() - start:.1f} s", flush=True)
        queue = context.SimpleQueue()
        arguments = (Path(name), options.every, options.memory, options.threads, queue)
        child = context.Process(target=fit_and_score, args=arguments)
        child.start()
        child.join()
        if child.exitcode:
            raise SystemExit(f"The process ended with {child.exitcode}; see above.")
        told = queue.get()
    print(json.dumps(told, indent=1))
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()

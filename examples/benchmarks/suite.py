"""Run all benchmarks, one after the other, keep their results as JSON and add a line to the history.

    FLOWDETECT_DATA=folder python examples/benchmarks/suite.py [--quick] [--threads 1 2] [--only flows_28 ...]
        [--folder docs/benchmarks]

Each benchmark is a process of its own. Its results go to FOLDER/1_thread/NAME.json (or 2_threads), and a line with
date, commit, machine and ratios to FOLDER/history.jsonl; with --quick nothing is kept. `draw_results.py` then writes
the tables and draws the pictures of the page. A benchmark whose libraries or data are missing is named; if one fails,
the rest is run and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import results
import side_by_side as side

HERE = Path(__file__).resolve().parent
SLOW = ("--rounds", "4", "--scored", "128")
JOBS: dict[str, list[str]] = {  # name -> script and options
    "flows_28": ["flows.py", "--size", "28"],
    "flows_512": ["flows.py", "--size", "512", *SLOW, "--steps", "1", "--peers", "normflows"],
    "flows_color": ["flows.py", "--size", "color", *SLOW, "--steps", "2", "--peers", "normflows", "nflows", "FrEIA"],
    "time_to_bits": ["time_to_bits.py"],
    "table_flows": ["table_flows.py"],
    "tables_zuko": ["tables_zuko.py"],
    "deep_detectors": ["deep_detectors.py"],
    "pixelcnn": ["pixelcnn.py"],
    "slopes": ["slopes.py"],
    "peak_memory": ["peak_memory.py"],
    "depth_memory": ["depth_memory.py"],
    "startup": ["startup.py"],
    "where_time_goes": ["where_time_goes.py"],
}
TIMES_A_PROCESS = ("peak_memory", "depth_memory", "startup")  # measured with one thread alone


def has_option(script: Path, option: str) -> bool:
    """Whether a script takes an option of its own or one of those that all have."""
    text = script.read_text()
    return f'"{option}"' in text or "side.arguments(" in text


def run(name: str, n_threads: int, quick: bool, out: Path) -> str:
    """Run one benchmark; give "done", "failed" or why it was left out."""
    script = HERE / JOBS[name][0]
    if not script.exists():
        return "not written yet"
    command = [sys.executable, str(script), *JOBS[name][1:], *(["--quick"] if quick else [])]
    if has_option(script, "--threads"):
        command += ["--threads", str(n_threads)]
    if has_option(script, "--out"):
        command += ["--out", str(out)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(n_threads)}, check=False)
    return "done" if done.returncode == 0 else "failed"


def kept(path: Path, name: str, n_threads: int) -> dict[str, Any]:
    """Give the results of a file, with the conditions of the run, also where the benchmark wrote none."""
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or "results" not in found:
        found = {"benchmark": name, **side.conditions(), "results": found}
    return {**found, "benchmark": name, "threads": n_threads}


def main() -> None:
    """Run what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether all run; nothing is kept")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--folder", type=Path, default=HERE.parent.parent / "docs" / "benchmarks")
    args = parser.parse_args()
    outcomes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for n in args.threads:
            for name in args.only:
                if n > 1 and name in TIMES_A_PROCESS:
                    continue
                print(f"---- {name}, {n} thread(s)", flush=True)
                out = Path(temporary) / f"{name}-{n}.json"
                outcomes[f"{name}, {n} thread(s)"] = run(name, n, args.quick, out)
                if out.exists() and not args.quick:
                    results.keep(args.folder, kept(out, name, n))
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")
    if "failed" in outcomes.values():
        sys.exit(1)


if __name__ == "__main__":
    main()

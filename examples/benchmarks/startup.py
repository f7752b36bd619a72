"""Start-up: what importing flowdetect's names costs above the libraries that they stand on.

    python examples/benchmarks/startup.py [--quick] [--out FILE.json]

Each start is a process of its own, all in turn, the first round not counted: it writes the byte code, to a folder of
its own, that an installed package has. Printed are medians over the rounds, with the lowest and highest, of the
seconds of the whole process, and for names with their libraries of the processor seconds of each import.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WHOLE = {  # what a process does -> its arguments
    "nothing": ["-c", ""],
    "import flowdetect": ["-c", "import flowdetect"],
    "flowdetect --help": ["-m", "flowdetect", "--help"],
    "import torch": ["-c", "import torch"],
    "from flowdetect import GlowDensity": ["-c", "from flowdetect import GlowDensity"],
    "from flowdetect import OODDetector": ["-c", "from flowdetect import OODDetector"],
}
STEPS = {  # a name -> the imports that lead to it
    "GlowDensity": ["import torch", "import sklearn.base", "from flowdetect import GlowDensity"],
    "OODDetector": ["import numpy", "import sklearn.base", "from flowdetect import OODDetector"],
}


def in_steps(statements: list[str]) -> list[str]:
    """Give the arguments of a process that prints the processor time of each statement, s."""
    lines = ["import time", "times = [time.process_time()]"]
    for statement in statements:
        lines += [statement, "times.append(time.process_time())"]
    return ["-c", "\n".join([*lines, "print(*[b - a for a, b in zip(times, times[1:])])"])]


def measured(rounds: int) -> tuple[dict[str, list[float]], dict[str, dict[str, list[float]]]]:
    """Start everything in turn: seconds of each whole process, and processor seconds of each import."""
    whole: dict[str, list[float]] = {name: [] for name in WHOLE}
    steps: dict[str, dict[str, list[float]]] = {
        name: {statement: [] for statement in statements} for name, statements in STEPS.items()
    }
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        environment["PYTHONPYCACHEPREFIX"] = folder
        for i in range(1 + rounds):
            for name, arguments in WHOLE.items():
                started = time.perf_counter()
                run(arguments, environment)
                whole[name] += [time.perf_counter() - started] if i else []
            for name, statements in STEPS.items():
                told = run(in_steps(statements), environment).split()
                for statement, seconds in zip(statements, told, strict=True):
                    steps[name][statement] += [float(seconds)] if i else []
    return whole, steps


def run(arguments: list[str], environment: dict[str, str]) -> str:
    """Run a Python process and give what it prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def told(values: list[float]) -> str:
    """Give median, lowest and highest."""
    return f"{statistics.median(values):.3f} s [{min(values):.3f}, {max(values):.3f}]"


def main() -> None:
    """Print, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--out", type=Path, help="a JSON file")
    args = parser.parse_args()
    whole, steps = measured(1 if args.quick else 7)
    for name, values in whole.items():
        print(f"{name:<36} {told(values)}")
    for imports in steps.values():
        print("processor time")
        for statement, values in imports.items():
            print(f"  {statement:<34} {told(values)}")
    if args.out is not None:
        args.out.write_text(json.dumps({"seconds": whole, "processor_seconds": steps}, indent=1))


if __name__ == "__main__":
    main()

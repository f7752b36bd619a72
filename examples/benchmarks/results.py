"""The kept results of benchmarks: where they are, their figures by name, the history, and the tables of the page."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent.parent / "docs" / "benchmarks"
HISTORY = "history.jsonl"
SHAPES = {"28": "Glow 28x28", "512": "Glow 28x28, 512 channels", "color": "Glow 32x32x3"}
Spread = dict[str, float]


def written(path: Path, text: str) -> None:
    """Put a text in a file's place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def path_of(folder: Path, name: str, n_threads: int) -> Path:
    """Where the results of a benchmark are."""
    return folder / ("1_thread" if n_threads == 1 else f"{n_threads}_threads") / f"{name}.json"


def read(folder: Path, name: str, n_threads: int = 1) -> dict[str, Any] | None:
    """Give the kept results of a benchmark; None where there are none."""
    path = path_of(folder, name, n_threads)
    return json.loads(path.read_text()) if path.exists() else None


def read_all(folder: Path) -> list[dict[str, Any]]:
    """Give all kept results, by threads and name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*_thread*/*.json"))]


def keep(folder: Path, found: dict[str, Any]) -> None:
    """Keep a benchmark's results, and a line of its figures in the history where it has ratios."""
    written(path_of(folder, found["benchmark"], found["threads"]), json.dumps(found, indent=1) + "\n")
    figures = dict(ratios(found))
    if not figures:
        return
    line = {name: found[name] for name in ("benchmark", "date", "commit", "changed", "machine", "threads")}
    history = folder / HISTORY
    before = history.read_text() if history.exists() else ""
    written(history, before + json.dumps({**line, "ratios": figures}) + "\n")


# ---- figures


def ratios(found: dict[str, Any]) -> Iterator[tuple[str, Spread]]:
    """Name and spread of each ratio of a benchmark's results: how many times the speed of another ours is."""
    entries = found["results"] if isinstance(found["results"], list) else [found["results"]]
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        what = entry.get("kind") or SHAPES.get(entry.get("size", ""), "")
        for name, comparison in entry.items():
            if not isinstance(comparison, dict) or "ratio" not in comparison:
                continue
            for peer, spread in comparison["ratio"].items():
                yield ": ".join(part for part in (what, f"{name} / {peer}") if part), spread


def history(folder: Path) -> list[dict[str, Any]]:
    """Give the lines of the history, oldest first."""
    path = folder / HISTORY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# ---- tables of the page, as CSV


def table(header: list[str], rows: list[list[Any]]) -> str:
    """Give a table as CSV; one without rows says so, since a page takes none that is empty."""
    text = io.StringIO()
    rows = rows or [["not measured yet", *[""] * (len(header) - 1)]]
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _range(spread: Spread, digits: int = 2) -> str:
    return f"{spread['median']:.{digits}f} ({spread['low']:.{digits}f} to {spread['high']:.{digits}f})"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio_table(folder: Path, names: tuple[str, ...]) -> str:
    """One line a comparison, one column for each number of threads."""
    by_threads: dict[int, dict[str, Spread]] = {}
    for found in read_all(folder):
        if found["benchmark"] in names:
            by_threads.setdefault(found["threads"], {}).update(ratios(found))
    counts = sorted(by_threads)
    lines = dict.fromkeys(name for n in counts for name in by_threads[n])
    header = ["ours / the other's", *(f"{n} thread" if n == 1 else f"{n} threads" for n in counts)]
    return table(
        header,
        [[name, *(_range(by_threads[n][name]) if name in by_threads[n] else "" for n in counts)] for name in lines],
    )


def slope_table(folder: Path) -> str:
    """One line a slope."""
    found = read(folder, "slopes")
    rows = [[entry["what"], _range(entry["slope"]), _sizes(entry)] for entry in found["results"]] if found else []
    return table(["time of", "slope", "sizes"], rows)


def _sizes(entry: dict[str, Any]) -> str:
    sizes = [int(size) for size in entry["seconds"]]
    return f"{min(sizes):,} to {max(sizes):,}"


def bits_table(folder: Path) -> str:
    """One line a seed of the same steps."""
    rows = []
    for found in read_all(folder):
        if found["benchmark"] != "time_to_bits":
            continue
        for entry in found["results"]:
            bits = entry["bits_per_dim"]
            share = "not reached" if entry["time_share"] is None else f"{entry['time_share']:.3f}"
            share = entry.get("note", share)  # where the machine was taken away during the measurement
            size, seconds = SHAPES[entry["size"]], entry["seconds"]
            rows.append(
                [size, entry["threads"], entry["seed"], entry["steps"], f"{bits['flowdetect']:.3f}"]
                + [f"{bits['normflows']:.3f}", f"{seconds['flowdetect'] / seconds['normflows']:.2f}", share]
            )
    header = [
        "size",
        "threads",
        "seed",
        "steps",
        "ours, bits/dim",
        "normflows, bits/dim",
        "time of ours",
        "time to theirs",
    ]
    return table(header, rows)


def memory_table(folder: Path) -> str:
    """One line a batch or an image size."""
    found = read(folder, "peak_memory")
    rows = []
    for entry in found["results"] if found else []:
        values = [f"{entry[what].get(name, float('nan')):.0f}" for what in ("training", "scoring") for name in PEERS]
        rows.append([f"{entry['side']}x{entry['side']}", entry["batch"], *values])
    return table(["images", "batch", *(f"{what}, {name}" for what in ("training", "scoring") for name in PEERS)], rows)


def profile_entries(folder: Path, n_threads: int = 1) -> list[tuple[str, str, dict[str, Any], dict[str, float]]]:
    """Model, case, its figures, and the machine's limits in the same run."""
    found = read(folder, "where_time_goes", n_threads)
    cases = ("training", "scoring", "sampling")
    entries = found["results"] if found else []
    return [(entry["model"], case, entry[case], entry["limits"]) for entry in entries for case in cases]


def profile_table(folder: Path) -> str:
    """One line a model and case: rates, the share of the limit, and the shares of the time in percent."""
    rows, groups = [], []
    for model, case, figures, limits in profile_entries(folder):
        shares = dict(figures["shares"])
        shares["other"] += shares.pop("reductions")  # the picture has both
        groups = list(shares)
        limit = f"{limits[figures['format'] + ' GFLOP/s']:,.0f} ({figures['format']})"
        rate = [_rate(figures["per_second"]), limit, f"{figures['of the limit']:.0%}"]
        rows.append([model, case, *rate, *(f"{share:.0%}" for share in shares.values())])
    return table(["model", "", "rows/s", "limit, GFLOP/s", "share of it", *groups], rows)


def limit_table(folder: Path) -> str:
    """One line a model: what the machine reaches at the size of its largest product."""
    found = read(folder, "where_time_goes")
    entries = found["results"] if found else []
    rows = [[entry["model"], *(f"{value:,.0f}" for value in entry["limits"].values())] for entry in entries]
    return table(["at the sizes of", *(entries[0]["limits"] if entries else [])], rows)


def startup_table(folder: Path) -> str:
    """One line a process, and one an import: seconds."""
    found = read(folder, "startup")
    named: list[tuple[str, str, list[float]]] = []
    if found:
        named = [(name, "whole process", values) for name, values in found["results"]["seconds"].items()]
        for target, steps in found["results"]["processor_seconds"].items():
            named += [(name, f"on the way to {target}", values) for name, values in steps.items()]
    rows = []
    for name, what, values in named:
        spread = {"median": statistics.median(values), "low": min(values), "high": max(values)}
        rows.append([name, what, _range(spread, 3)])
    return table(["what runs", "", "seconds"], rows)


PEERS = ("flowdetect", "normflows")
FLOWS, TABLES, DEEP = ("flows_28", "flows_512", "flows_color"), ("table_flows",), ("deep_detectors",)


def condition_table(folder: Path) -> str:
    """Of which run each result is."""
    rows = []
    for found in read_all(folder):
        commit = found["commit"] + (" and changes" if found["changed"] else "")
        rows.append([found["benchmark"], found["threads"], found["date"], commit, found["machine"]["processor"]])
    return table(["benchmark", "threads", "date (UTC)", "commit", "processor"], rows)


def tables(folder: Path) -> dict[str, str]:
    """All tables of the page, by the name of their file."""
    return {
        "flows.csv": ratio_table(folder, FLOWS),
        "tables.csv": ratio_table(folder, TABLES),
        "deep_detectors.csv": ratio_table(folder, DEEP),
        "time_to_bits.csv": bits_table(folder),
        "slopes.csv": slope_table(folder),
        "peak_memory.csv": memory_table(folder),
        "startup.csv": startup_table(folder),
        "runs.csv": condition_table(folder),
        "where_time_goes.csv": profile_table(folder),
        "limits.csv": limit_table(folder),
    }

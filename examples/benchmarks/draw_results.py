"""Write the tables and draw the pictures of the benchmarks' page from the kept results.

python examples/benchmarks/draw_results.py [--folder docs/benchmarks]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import results
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

GREY, BLUE, ORANGE = "#8a8a8a", "#1f5fa8", "#d9822b"
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
GROUP_COLORS = (BLUE, "#6b4fa0", ORANGE, "#3a8f5a", "#c9a227", "#b5b5b5", "#e3e3e3")
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 4, 6, 8)
SLOPES = (0.9, 1.1)  # where a cost counts as proportional
WATCHED = ("training, float32", "training, auto", "scoring", "sampling")  # of Glow, in the history


def save(figure: Any, path: Path) -> None:
    """Write a picture, without the version that would change its bytes."""
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    print(path)


def spreads(axes: Axes, named: Iterable[tuple[str, results.Spread]], color: str, shift: float, label: str) -> None:
    """Draw a point and its range a line, first on top."""
    for i, (_, spread) in enumerate(named):
        axes.plot([spread["low"], spread["high"]], [i + shift] * 2, color=color, lw=2, alpha=0.5)
        axes.plot(spread["median"], i + shift, "o", color=color, ms=5, label=label if i == 0 else None)


def draw_ratios(folder: Path, names: tuple[str, ...], path: Path) -> None:
    """Draw ratios as points with ranges, one color a number of threads."""
    by_threads: dict[int, dict[str, results.Spread]] = {}
    for found in results.read_all(folder):
        if found["benchmark"] in names:
            by_threads.setdefault(found["threads"], {}).update(results.ratios(found))
    lines = list(dict.fromkeys(name for figures in by_threads.values() for name in figures))
    if not lines:
        return
    figure, axes = plt.subplots(figsize=(8.5, 0.9 + 0.24 * len(lines)), layout="constrained")
    for (n, figures), color, shift in zip(sorted(by_threads.items()), (BLUE, ORANGE), (-0.12, 0.12), strict=False):
        nowhere = {"low": float("nan"), "high": float("nan"), "median": float("nan")}
        named = [(name, figures.get(name, nowhere)) for name in lines]
        spreads(axes, named, color, shift, f"{n} thread" if n == 1 else f"{n} threads")
    axes.axvline(1, color=GREY, lw=1)
    axes.set(xscale="log", xlabel="speed of ours / speed of the other: median and range over rounds")
    axes.set_yticks(range(len(lines)), lines, fontsize=8)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([tick for tick in TICKS if _is_inside(tick, axes)])
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="best")
    save(figure, path)


def _is_inside(value: float, axes: Axes) -> bool:
    low, high = axes.get_xlim()
    return low <= value <= high


def draw_slopes(folder: Path) -> None:
    """Draw slopes as points with ranges, the band of proportional cost behind."""
    found = results.read(folder, "slopes")
    if found is None:
        return
    named = [(entry["what"], entry["slope"]) for entry in found["results"]]
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.26 * len(named)), layout="constrained")
    axes.axvspan(*SLOPES, color="#e4efe4")
    spreads(axes, named, BLUE, 0, "")
    axes.set_yticks(range(len(named)), [name for name, _ in named], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="slope of log time on log size; the band is 0.9 to 1.1")
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    save(figure, folder / "slopes.png")


def draw_memory(folder: Path) -> None:
    """Draw peak memory of training against depth, batch and image size."""
    panels = list(memory_panels(folder))
    if not panels:
        return
    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(3.6 * len(panels), 3.4), layout="constrained", squeeze=False
    )
    for axes, (xlabel, curves) in zip(all_axes[0], panels, strict=True):
        for (name, points), color in zip(curves.items(), (BLUE, ORANGE, GREY, "#3a8f5a"), strict=False):
            axes.plot(*zip(*sorted(points), strict=True), "o-", color=color, label=name, ms=4)
        axes.set(xlabel=xlabel, ylabel="peak memory, MB", xscale="log", yscale="log")
        ticks = sorted({x for points in curves.values() for x, _ in points})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PLAIN)
        axes.grid(color="#e6e6e6")
        axes.legend(frameon=False, fontsize=8)
    save(figure, folder / "memory.png")


def memory_panels(folder: Path) -> Iterable[tuple[str, dict[str, list[tuple[float, float]]]]]:
    """Curves of MB by name, with what they are drawn against."""
    found = results.read(folder, "peak_memory")
    for against, xlabel in (("batch", "images in a batch, 28x28"), ("side", "height = width, 32 images")):
        curves = {}
        for entry in found["results"] if found else []:
            if entry["against"] == against:
                for name, value in entry["training"].items():
                    curves.setdefault(name, []).append((entry[against], value))
        if curves:
            yield xlabel, curves


def draw_history(folder: Path) -> None:
    """Draw the ratios of Glow to normflows, run after run."""
    lines = [line for line in results.history(folder) if line["benchmark"] in results.FLOWS]
    curves: dict[str, list[tuple[str, results.Spread]]] = {}
    for line in lines:
        for what in WATCHED:
            name = f"{results.SHAPES[line['benchmark'].removeprefix('flows_')]}: {what} / normflows"
            if name in line["ratios"] and line["threads"] == 1:
                curves.setdefault(name, []).append((f"{line['date'][5:]}\n{line['commit']}", line["ratios"][name]))
    if not curves:
        return
    figure, axes = plt.subplots(figsize=(8.5, 4), layout="constrained")
    runs = list(dict.fromkeys(when for curve in curves.values() for when, _ in curve))
    for i, (name, curve) in enumerate(curves.items()):
        x = [runs.index(when) + 0.03 * (i - len(curves) / 2) for when, _ in curve]
        medians = [spread["median"] for _, spread in curve]
        reach = [[s["median"] - s["low"] for _, s in curve], [s["high"] - s["median"] for _, s in curve]]
        axes.errorbar(x, medians, reach, fmt="o-", ms=4, lw=1, capsize=2, label=name.removesuffix(" / normflows"))
    axes.axhline(1, color=GREY, lw=1)
    axes.set_xticks(range(len(runs)), runs, fontsize=7)
    axes.set(ylabel="speed of ours / normflows', 1 thread", ylim=(0, None), xlim=(-0.5, len(runs) - 0.5))
    axes.grid(axis="y", color="#e6e6e6")
    axes.legend(frameon=False, fontsize=7, ncols=2)
    save(figure, folder / "history.png")


def draw_profile(folder: Path) -> None:
    """Draw the shares of the time as bars, with the share of the machine's limit beside."""
    entries = results.profile_entries(folder)
    if not entries:
        return
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.3 * len(entries)), layout="constrained")
    starts = [0.0] * len(entries)
    for group, color in zip(entries[0][2]["shares"], GROUP_COLORS, strict=True):
        widths = [figures["shares"][group] for _, _, figures, _ in entries]
        axes.barh(range(len(entries)), widths, left=starts, color=color, label=group, height=0.72)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for i, (_, _, figures, _) in enumerate(entries):
        axes.text(1.01, i, f"{figures['of the limit']:.0%}", va="center", fontsize=8)
    axes.text(1.01, -1.0, "of the matrix\nproducts' limit", fontsize=8, va="bottom")
    axes.set_yticks(range(len(entries)), [f"{model}: {case}" for model, case, _, _ in entries], fontsize=8)
    axes.set(xlim=(0, 1), xlabel="share of the time, 1 thread")
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save(figure, folder / "where_time_goes.png")


def main() -> None:
    """Write and draw all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=results.FOLDER)
    folder = parser.parse_args().folder
    for name, text in results.tables(folder).items():
        results.written(folder / name, text)
    draw_ratios(folder, results.FLOWS, folder / "flows.png")
    draw_ratios(folder, (*results.TABLES, *results.DEEP), folder / "tables.png")
    draw_slopes(folder)
    draw_memory(folder)
    draw_history(folder)
    draw_profile(folder)


if __name__ == "__main__":
    main()

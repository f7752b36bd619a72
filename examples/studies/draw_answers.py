"""Draw the pictures that open the pages of studies from the results that the repository keeps.

python examples/studies/draw_answers.py [--folder docs/studies]

detection.png from detector.json, tables.png from tables.txt, semantics.png from semantics_mnist.json and
semantics_fashion_mnist.json. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

TITLES = {
    "fashion_mnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR-10",
    "svhn": "SVHN",
}
SCORERS = {
    "Glow, affine": "likelihood, Glow",
    "complexity, Glow, affine": "complexity, Glow",
    "PixelCNN++": "likelihood, PixelCNN++",
    "complexity, PixelCNN++": "complexity, PixelCNN++",
}
SITS = ("1 pixel left", "2 pixels left", "noise", "noise, negative")
SHOWN = 8  # detectors of tables, the best of each protocol
PROTOCOLS = {"one-class": "trained on normal rows", "contaminated": "outliers among the training rows"}
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00")


def clean(ax: Axes) -> Axes:
    """Leave a light grid and the axes that carry numbers."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x", color="#e5e5e5")
    ax.set_axisbelow(True)
    return ax


def draw_semantics(folder: Path) -> Figure:
    """AUROC of clean against transformed images, a panel for each set."""
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    for ax, name in zip(figure.subplots(1, 2, sharey=True), ("mnist", "fashion_mnist"), strict=True):
        records = json.loads((folder / f"semantics_{name}.json").read_text())["reports"]["pixels"]
        areas = {(each["scorer"], each["sit"]): each["auroc_clean"] for each in records if each["label"] == "all"}
        for i, (scorer, title) in enumerate(SCORERS.items()):
            places = [row + 0.15 * (i - 1.5) for row in range(len(SITS))]
            clean(ax).plot([areas[scorer, sit] for sit in SITS], places, "o", color=COLOURS[i], label=title)
        ax.axvline(0.5, color="#8a8a8a", linewidth=1)
        ax.set(title=TITLES[name], xlabel="AUROC, clean against transformed (ideal 0.5)", xlim=(0.45, 1.02))
    ax.set_yticks(range(len(SITS)), SITS)
    ax.invert_yaxis()
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def table_areas(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Mean AUROC with its interval of each detector in each protocol, from tables.txt."""
    found: dict[str, dict[str, list[float]]] = {}
    protocol = ""
    for line in (folder / "tables.txt").read_text().splitlines():
        if begins := re.match(r"(one-class|contaminated): mean of", line):
            protocol = begins[1]
        elif protocol and (row := re.match(r"(\S.*?)\s+(0\.\d{4}) \[(0\.\d{4}), (0\.\d{4})\]", line)):
            found.setdefault(row[1], {})[protocol] = [float(number) for number in row.groups()[1:]]
        elif protocol and protocol in next(reversed(found.values()), {}) and not line.strip():
            protocol = ""
    return found


def draw_tables(folder: Path) -> Figure:
    """AUROC of the best detectors of each protocol, in both."""
    areas = table_areas(folder)
    best = [
        name
        for protocol in ("one-class", "contaminated")
        for name in sorted((n for n in areas if protocol in areas[n]), key=lambda n: -areas[n][protocol][0])[:SHOWN]
    ]
    names = sorted(dict.fromkeys([*best, "LOF"]), key=lambda name: -areas[name]["one-class"][0])
    figure = Figure(figsize=(8, 1.1 + 0.27 * len(names)), layout="constrained")
    ax = clean(figure.subplots())
    for protocol, color, marker in (("one-class", COLOURS[0], "o"), ("contaminated", COLOURS[2], "D")):
        for row, name in enumerate(names):
            if protocol in areas[name]:
                area, low, high = areas[name][protocol]
                ax.plot([low, high], [row, row], color=color, linewidth=2)
                ax.plot(area, row, marker, color=color, markersize=5, label=None if row else PROTOCOLS[protocol])
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="mean AUROC over 16 tables, 95 % interval over five splits")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def draw_detection(folder: Path) -> Figure:
    """AUROC of `OODDetector` with its interval, and of its statistics by themselves, a row for each direction."""
    found: dict[str, Any] = json.loads((folder / "detector.json").read_text())
    rows = [
        (f"{TITLES[in_set]} / {TITLES[outside]}", found[in_set]["auroc"][outside])
        for in_set in TITLES
        for outside in TITLES
        if outside in found.get(in_set, {}).get("auroc", {})
    ]
    figure = Figure(figsize=(8, 0.9 + 0.33 * len(rows)), layout="constrained")
    ax = clean(figure.subplots())
    for row, (_, cells) in enumerate(rows):
        area, low, high = cells["auroc"]
        alone = list(cells["alone"].values())
        ax.plot(alone, [row] * len(alone), "|", color="#8a8a8a", markersize=10, label=None if row else "one statistic")
        ax.plot([low, high], [row, row], color=COLOURS[0], linewidth=2)
        ax.plot(area, row, "o", color=COLOURS[0], label=None if row else "OODDetector")
    ax.set_yticks(range(len(rows)), [title for title, _ in rows])
    ax.invert_yaxis()
    ax.set(xlabel="AUROC, 95 % interval over images", xlim=(None, 1.01))
    ax.legend(frameon=False, loc="lower left")
    return figure


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("docs/studies"))
    folder = parser.parse_args().folder
    for name, draw in {"detection": draw_detection, "tables": draw_tables, "semantics": draw_semantics}.items():
        draw(folder).savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
        print(folder / f"{name}.png")


if __name__ == "__main__":
    main()

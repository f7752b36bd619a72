"""Tables and a picture of what `all_models.py` measured."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Cells = dict[str, dict[str, Any]]
BITS = ("digits", "fashion_mnist", "kmnist")  # bits/dim, lower is better; the others nats, higher is better
FAMILIES = {
    "flows": ["Glow", "Glow, variational", "RealNVP", "Flow++", "TarFlow", "MAF", "IAF", "planar", "radial"],
    "autoregressive models": [
        "NADE",
        "MADE",
        "PixelCNN",
        "gated PixelCNN",
        "rectified PixelCNN",
        "PixelCNN++",
        "PixelRNN, rows",
        "PixelRNN, diagonals",
    ],
    "latent-variable models": ["VAE", "VAE, IAF posterior", "PixelVAE"],
}
COLORS = {"flows": "#0072B2", "autoregressive models": "#D55E00", "latent-variable models": "#009E73"}
OTHER_COLOR = "#666666"
FAR = 3.0  # times the distance of the third quarter from the best
SITS = ["1 pixel left", "2 pixels left", "noise", "level 1 zeroed"]


def family(model: str) -> str:
    """Name the family of a model."""
    return next((name for name, models in FAMILIES.items() if model in models), "others")


def rounded(value: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits, and nothing for none."""
    if value is None or not np.isfinite(value):
        return ""
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value))))) if value else 0
    return f"{value:,.{decimals}f}"


def with_interval(values: list[float], signed: bool = False) -> str:
    """Write a mean with its interval."""
    mean, low, high = (f"{value:+.3f}" if signed else f"{value:.3f}" for value in values)
    return f"{mean} [{low}, {high}]"


def write(path: Path, head: list[str], rows: Iterable[list[str]]) -> None:
    """Write a table for the docs."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def kind_of_likelihood(found: Iterable[dict[str, Any]]) -> str:
    """Say whether a likelihood is exact, a bound, or which of them where."""
    bounds = {cell["is_bound"] for cell in found}
    return "bound in bins, else exact" if len(bounds) == 2 else "bound" if True in bounds else "exact"


def values(cells: Cells, models: list[str], sets: list[str]) -> list[list[str]]:
    """Make a line a model: exact or bound, and its likelihood of each set."""
    rows = []
    for model in models:
        found = {name: cells[f"{name} {model}"] for name in sets if f"{name} {model}" in cells}
        if found:
            numbers = [with_interval(found[name]["value"]) if name in found else "" for name in sets]
            rows.append([model, kind_of_likelihood(found.values()), *numbers])
    return rows


def costs(cells: Cells, models: list[str], name: str) -> list[list[str]]:
    """Make a line a model: what it costs on one set."""
    rows = []
    for model in models:
        cell = cells.get(f"{name} {model}")
        if cell is not None:
            numbers = [cell["train_seconds"], cell["score_ms"], cell.get("sample_ms"), cell["memory_mib"]]
            rows.append([model, str(cell["epochs"]), *map(rounded, numbers), f"{cell['parameters']:,}"])
    return rows


def spread(numbers: list[float]) -> str:
    """Write the least and the most of some numbers."""
    return f"{rounded(min(numbers), 2)} to {rounded(max(numbers), 2)}" if numbers else ""


def properties(cells: Cells, name: str) -> list[list[str]]:
    """Make the lecture's summary, a line a family, of what was measured on one set of images."""
    rows = []
    for group, models in FAMILIES.items():
        found = [cells[f"{name} {model}"] for model in models if f"{name} {model}" in cells]
        if not found:
            continue
        everywhere = [cell for key, cell in cells.items() if key.partition(" ")[2] in models]
        skipped = sum(cell["skipped"] for cell in everywhere)
        latents = sorted({cell["latents"] for cell in found if cell["latents"] is not None})
        sizes = f"{spread([float(n) for n in latents])} numbers of {found[0]['n_values']}" if latents else "no latents"
        if len(latents) == 1:
            sizes = f"{latents[0]} numbers of {found[0]['n_values']}"
        rows.append(
            [
                group,
                f"{skipped} steps skipped in {len(everywhere)} trainings",
                kind_of_likelihood(everywhere),
                f"{spread([cell['score_ms'] for cell in found])} ms",
                f"{spread([cell['sample_ms'] for cell in found if 'sample_ms' in cell])} ms",
                sizes,
            ]
        )
    return rows


def transformed(cells: Cells, models: list[str], name: str = "fashion_mnist") -> list[list[str]]:
    """Make a line a model: what each transformation does to its bits/dim, and to its verdict on MNIST."""
    rows = []
    for model in models:
        cell = cells.get(f"{name} {model}")
        if cell is None:
            continue
        found = {record["sit"]: record for record in cell["sits"] if record["label"] == "all"}
        shifts = [
            with_interval([found[sit][key] for key in ("shift", "shift_low", "shift_high")], signed=True)
            if sit in found
            else ""
            for sit in SITS
        ]
        areas = [found[sit]["auroc_clean"] for sit in ("1 pixel left", "noise")]
        rows.append([model, f"{cell['value'][0]:.3f}", *shifts, *(f"{area:.2f}" for area in areas)])
    return rows


def color_of(model: str) -> str:
    """Give the color of a model's family."""
    return COLORS.get(family(model), OTHER_COLOR)


def draw_likelihoods(ax: Axes, found: dict[int, list[float]], colors: list[str], lower_is_better: bool) -> None:
    """Draw means with intervals at their heights; those far behind stand at the edge, with their number."""
    means = np.array([value[0] for value in found.values()])
    sign = 1 if lower_is_better else -1
    best = (sign * means).min()
    edge = sign * (best + FAR * (np.percentile(sign * means, 75) - best))
    for y, (mean, low, high) in found.items():
        if sign * (mean - edge) > 0:
            ax.plot(edge, y, ">" if sign > 0 else "<", color=colors[y], markersize=5)
            ax.annotate(
                f"{mean:.1f}",
                (edge, y),
                (-7 * sign, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                ha="right" if sign > 0 else "left",
            )
        else:
            ax.errorbar(mean, y, xerr=[[mean - low], [high - mean]], fmt="o", color=colors[y], markersize=4)
    ends = sorted((edge, float(sign * best)))
    margin = 0.08 * (ends[1] - ends[0])
    ax.set_xlim(ends[0] - margin, ends[1] + margin)
    ax.set_xlabel("bits/dim, lower is better" if lower_is_better else "nats, higher is better")


def draw(cells: Cells, models: list[str], sets: list[str]) -> Figure:
    """Draw the likelihood of each set, and the times to score and to sample an image."""
    shown = [model for model in models if any(key.partition(" ")[2] == model for key in cells)]
    figure = Figure(figsize=(3.0 * (len(sets) + 1), 0.28 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots(1, len(sets) + 1, sharey=True)
    for ax, name in zip(axes, sets, strict=False):
        draw_likelihoods(
            ax,
            {y: cells[f"{name} {model}"]["value"] for y, model in enumerate(shown) if f"{name} {model}" in cells},
            [color_of(model) for model in shown],
            name in BITS,
        )
        ax.set_title(name, fontsize=9)
    last = axes[-1]
    for y, model in enumerate(shown):
        cell = cells.get(f"fashion_mnist {model}")
        if cell is not None:
            color = color_of(model)
            last.plot(cell["score_ms"], y, "|", color=color, markersize=9)
            if "sample_ms" in cell:
                last.plot(cell["sample_ms"], y, "o", color=color, markersize=4, fillstyle="none")
    last.set_xscale("log")
    last.set_xlabel("ms an image")
    last.set_title("fashion_mnist: | score, o sample", fontsize=9)
    axes[0].set_yticks(range(len(shown)), shown, fontsize=8)
    axes[0].invert_yaxis()
    for ax in axes:
        ax.grid(axis="y", color="0.92")
        ax.tick_params(labelsize=8)
    return figure


def collect(cells: Cells, out: Path, models: list[str]) -> None:
    """Write all tables and the picture."""
    sets = list(dict.fromkeys(key.partition(" ")[0] for key in cells))
    (out / "all_models.json").write_text(json.dumps(cells, indent=1) + "\n")
    write(out / "all_models_values.csv", ["model", "likelihood", *sets], values(cells, models, sets))
    costs_head = ["model", "epochs", "training, s", "score, ms", "sample, ms", "memory, MiB", "parameters"]
    families_head = ["family", "training", "likelihood", "scoring", "sampling", "compression"]
    for name in sets:
        write(out / f"all_models_cost_{name}.csv", costs_head, costs(cells, models, name))
    if "fashion_mnist" in sets:
        write(out / "all_models_properties.csv", families_head, properties(cells, "fashion_mnist"))
        head = ["model", "bits/dim", *SITS, "AUROC, 1 pixel left", "AUROC, noise"]
        write(out / "models_sit.csv", head, transformed(cells, models))
    draw(cells, models, sets).savefig(out / "all_models.png", dpi=110)
    for row in values(cells, models, sets):
        print("  ".join(row))

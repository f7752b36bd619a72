"""Every density of the library on the same data at the same training time: likelihood, time and memory, in one table.

    FLOWDETECT_DATA=folder python examples/studies/all_models.py [--quick] [--sets digits ...] [--models "Glow" ...]
        [--seconds 60] [--jobs 2] [--results DIR] [--out DIR]

Data: 8x8 digits (17 grey levels), Fashion-MNIST at 28x28 (256), and the inliers of two ADBench tables, whose ties are
broken by the same noise for all (table_likelihood.py). Each density has its default settings, one thread and
`--seconds` of training (`time_limit`); a training that early stopping ends takes less. What is measured: bits/dim
(images) or nats (tables) of test rows with a 95 % bootstrap interval over rows; whether that is exact or a bound;
seconds of training, milliseconds to score and to sample a row, the most memory beyond what the process held before;
steps skipped for a loss that is not finite; the dimensions of the latents. On Fashion-MNIST every model is probed with
semantic-invariant transformations too (models_sit.csv), with MNIST outside. With `--sets kmnist`: 28x28 images on which
nothing in the library was chosen.

Each cell is stored as one json in --results; a second start resumes. `--quick`: 6 seconds each, fewer rows, 20 minutes
on two cores. Writes all_models.json, the tables all_models_*.csv, models_sit.csv and all_models.png.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from all_models_report import collect
from shared import SEED, cell_arguments, interval, run_cells
from sklearn.frozen import FrozenEstimator
from table_likelihood import jittered_rows

import flowdetect
from flowdetect import AddNoise, Translate, ZeroLatents, load_images, sit_report
from flowdetect.density import BaseDensity

SETS = ["digits", "fashion_mnist", "thyroid", "satellite"]
IMAGE_SETS = ("digits", "fashion_mnist", "kmnist")
ELSEWHERE = ["kmnist"]  # no choice of a default or of a model's form was made on it
N_TABLE = 5000, 2000  # rows to train and to test, at most
N_PROBED, N_BOOTSTRAP = 300, 200


class Model(NamedTuple):
    """A density and what it is for."""

    name: str
    settings: dict[str, Any]
    of: str = "all"  # "images" or "tables" where it is made for these alone; "rows": not for 784 pixels


MODELS = {
    "Glow": Model("GlowDensity", {}),
    "Glow, variational": Model("GlowDensity", {"dequantization": "variational"}, "images"),
    "RealNVP": Model("RealNVPDensity", {}),
    "Flow++": Model("FlowPPDensity", {}),
    "TarFlow": Model("TarFlowDensity", {}),
    "MAF": Model("MAFDensity", {}),
    "IAF": Model("IAFDensity", {}, "rows"),
    "planar": Model("PlanarDensity", {}),
    "radial": Model("RadialDensity", {}),
    "NADE": Model("NADEDensity", {}),
    "MADE": Model("MADEDensity", {}),
    "PixelCNN": Model("PixelCNNDensity", {"variant": "pixelcnn"}, "images"),
    "gated PixelCNN": Model("PixelCNNDensity", {}),
    "rectified PixelCNN": Model(
        "PixelCNNDensity", {"variant": "rectified", "likelihood": "stretched_mixture"}, "images"
    ),
    "PixelCNN++": Model("PixelCNNDensity", {"variant": "pixelcnn++"}, "images"),
    "PixelRNN, rows": Model("PixelRNNDensity", {"variant": "row_lstm"}, "images"),
    "PixelRNN, diagonals": Model("PixelRNNDensity", {"variant": "diagonal_bilstm"}),
    "VAE": Model("VAEDensity", {}),
    "VAE, IAF posterior": Model("VAEDensity", {"posterior": "iaf"}),
    "PixelVAE": Model("PixelVAEDensity", {}),
    "nearest neighbours": Model("NeighborsDensity", {}, "tables"),
    "two Glows": Model("EnsembleDensity", {"density": "GlowDensity", "n_members": 2}),
}


def rows_of(name: str, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Give training rows, test rows and what a density must be told of them."""
    if name in IMAGE_SETS:
        told = {"n_bins": 17} if name == "digits" else {}
        return load_images(name)[0][: args.images], load_images(name, "test")[0][: args.tests], told
    return *jittered_rows(name, *N_TABLE), {}


def made(model: Model, told: dict[str, Any], seconds: float) -> Any:
    """Make a density that may train so long; the members of an ensemble share the time."""
    if model.name == "EnsembleDensity":
        n_members = model.settings["n_members"]
        member = made(Model(model.settings["density"], {}), told, seconds / n_members)
        return flowdetect.EnsembleDensity(member, n_members=n_members, random_state=SEED)
    kind = getattr(flowdetect, model.name)
    known = kind().get_params()
    limits = {"time_limit": seconds, "max_epochs": 10_000} if "time_limit" in known else {}
    settings = {**limits, **told, **model.settings, "random_state": SEED, "device": "cpu"}
    return kind(**{name: value for name, value in settings.items() if name in known})


def memory(field: str) -> float:
    """Memory of this process, MiB, as Linux counts it: VmRSS, what it holds, or VmHWM, the most since a reset."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith(field))


def seconds_a_row(function: Any, n: int) -> float:
    """Time one call for n rows."""
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) / n


def run_cell(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train, score and sample one density on one set."""
    set_name, _, model_name = name.partition(" ")
    model = MODELS[model_name]
    X, X_test, told = rows_of(set_name, args)
    made(model, told, 0.5).fit(X[:200])  # imports, and compilation
    density = made(model, told, args.seconds)
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    held, started = memory("VmRSS"), time.perf_counter()
    density.fit(X)
    trained = time.perf_counter() - started
    n_values = X_test[0].size
    unit = np.log(2) * n_values if set_name in IMAGE_SETS else -1.0  # bits/dim, lower is better; nats, higher is
    values = -density.score_samples(X_test) / unit
    scoring = min(seconds_a_row(lambda: density.score_samples(X_test[:256]), len(X_test[:256])) for _ in range(2))
    found = {
        "value": interval(values),
        "is_bound": is_bound(density),
        "train_seconds": trained,
        "epochs": int(getattr(density, "n_iter_", 0)),
        "score_ms": 1000 * scoring,
        "memory_mib": memory("VmHWM") - held,
        "skipped": int(sum(history(density).get("skipped_steps", []))),
        "curve": history(density).get("validation_bits_per_dim", []),
        "parameters": n_parameters(density),
        "latents": n_latents(density, X_test[:2]),
        "n_values": n_values,
        "settings": {"seconds": args.seconds, "train_rows": len(X), "test_rows": len(X_test)},
    }
    if hasattr(density, "sample"):
        n = 4 if n_values > 100 else 64
        density.sample(1, random_state=SEED)
        found["sample_ms"] = 1000 * seconds_a_row(partial(density.sample, n, random_state=SEED), n)
    if set_name == "fashion_mnist":
        found["sits"] = probed(density, X_test[:N_PROBED])
    return found


def members(density: Any) -> list[Any]:
    """Give the trained densities inside."""
    return list(getattr(density, "members_", [density]))


def is_bound(density: Any) -> bool:
    """Say whether scores are lower bounds."""
    return any(bool(getattr(member, "score_is_bound_", False)) for member in members(density))


def history(density: Any) -> dict[str, list[Any]]:
    """Give the training's history, of the first member."""
    return dict(getattr(members(density)[0], "history_", {}))


def n_parameters(density: Any) -> int:
    """Count the trained parameters."""
    models = [member.model_ for member in members(density) if isinstance(member, BaseDensity)]
    return sum(parameter.numel() for model in models for parameter in model.parameters())


def n_latents(density: Any, X: np.ndarray) -> int | None:
    """Count the dimensions of a row's latents; None where it has none."""
    return int(density.transform(X).shape[1]) if hasattr(density, "transform") else None


def probed(density: Any, X: np.ndarray) -> list[dict[str, Any]]:
    """Probe the transformations of "Exploring the Correlation ...", sections 4.1 to 4.3, with MNIST outside."""
    sits = {"1 pixel left": Translate(dx=-1), "2 pixels left": Translate(dx=-2), "noise": AddNoise(random_state=SEED)}
    if len(getattr(density, "latent_slices_", [])) > 1:
        sits["level 1 zeroed"] = ZeroLatents(FrozenEstimator(density), n_factors=1)
    X_out = load_images("mnist", "test")[0][:N_PROBED]
    report = sit_report({"density": density}, X, sits, X_out=X_out, n_bootstrap=N_BOOTSTRAP)
    return list(report.to_frame().to_dict("records"))


def names(args: argparse.Namespace) -> list[str]:
    """Name every cell: a set and a model that is for such data."""
    made_for = {"digits": {"images", "rows"}, "fashion_mnist": {"images"}, "kmnist": {"images"}}
    return [
        f"{name} {model}"
        for name in args.sets
        for model in args.models
        if MODELS[model].of in {"all"} | made_for.get(name, {"tables", "rows"})
    ]


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 seconds each, fewer rows: 20 minutes on two cores")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS + ELSEWHERE)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, of each cell")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--tests", type=int, default=1000)
    cell_arguments(parser)
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.images, args.tests = 6.0, 10_000, 256
    run_cells(args, names(args), partial(run_cell, args=args), partial(collect, models=list(MODELS)))


if __name__ == "__main__":
    main()

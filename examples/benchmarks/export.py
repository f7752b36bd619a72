"""Graphs of every density: how near their scores are to ours, and how long one row takes.

    python examples/benchmarks/export.py [--quick] [--results DIR]

Each density is fitted for two epochs, as wide as `SIZES` says, to a table of ten columns (two clusters, 2,000 rows) and
to digits of 8x8 pixels in 17 bins, then exported in both formats. 500 new rows, a tenth of them far out, are scored by
`score_samples(X, dequantize=False)`, by both files, and by the model in float64. Then one row is scored 100 times by
each in turn, with one thread; what is compared is the thread's processor time, since a machine does other work too.
Results: export.json and export.csv in DIR, which is docs/studies by default. --quick: two densities, 20 rounds.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

import flowdetect as fd
from flowdetect.density._derivatives import double
from flowdetect.density.graphs import ModelGraph

N_NEW, N_ROUNDS = 500, 100
IS_FAR = np.arange(N_NEW) % 10 == 0
COLUMNS = "ours, ms", "torch, ms", "ONNX, ms"
pixelcnn = partial(fd.PixelCNNDensity, n_filters=32, n_blocks=1)
SIZES = {
    "Glow": partial(fd.GlowDensity, n_steps=2, hidden_channels=64),
    "RealNVP": partial(fd.RealNVPDensity, n_steps=1, n_blocks=1, hidden_channels=32),
    "Flow++": partial(fd.FlowPPDensity, n_couplings=(1, 1, 1), hidden_channels=32, n_blocks=1, n_mixtures=4),
    "TarFlow": partial(fd.TarFlowDensity, n_flows=2, n_layers=1, hidden_channels=32),
    "MAF": partial(fd.MAFDensity, n_transforms=3, hidden_features=(64, 64)),
    "IAF": partial(fd.IAFDensity, n_transforms=2, hidden_features=(64, 64)),
    "Planar": partial(fd.PlanarDensity, n_steps=8),
    "Radial": partial(fd.RadialDensity, n_steps=8),
    "MADE": partial(fd.MADEDensity, hidden_features=(64, 64)),
    "NADE": partial(fd.NADEDensity, n_hidden=64),
    "PixelCNN": partial(pixelcnn, variant="pixelcnn"),
    "PixelCNN, local": partial(pixelcnn, variant="local"),
    "PixelCNN, gated": partial(pixelcnn, variant="gated"),
    "PixelCNN, rectified": partial(pixelcnn, variant="rectified"),
    "PixelCNN++": partial(pixelcnn, variant="pixelcnn++"),
    "PixelRNN": partial(fd.PixelRNNDensity, n_filters=16, n_blocks=1),
    "VAE": partial(fd.VAEDensity, latent_dim=8, hidden_channels=32),
    "PixelVAE": partial(fd.PixelVAEDensity, latent_dim=8, hidden_channels=32, n_filters=16),
    "Neighbors": fd.NeighborsDensity,
    "Ensemble of three MADE": lambda **more: fd.EnsembleDensity(fd.MADEDensity(hidden_features=(64, 64), **more), 3),
}
ONE_OF_TABLES = {"PixelCNN, local", "PixelCNN, gated", "PixelCNN, rectified", "PixelCNN++"}  # where all are one model
ONLY_TABLES = {"IAF", "Neighbors"}  # IAF solves a pixel after the other
QUICK = {"MADE", "Neighbors"}


def table(n_rows: int, seed: int, far: float = 1.0) -> np.ndarray:
    """Draw rows of two clusters; a tenth of them `far` times as far out."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, 10)) * np.geomspace(0.1, 10, 10) + rng.choice([0.0, 30.0], size=(n_rows, 1))
    rows[::10] *= far
    return rows


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Digits to train on and new ones, a tenth of them noise."""
    X, _ = fd.load_images("digits")
    new = X[-N_NEW:].copy()
    new[::10] = np.random.default_rng(0).integers(0, 17, new[::10].shape)
    return X[:-N_NEW], new


def float64_scores(density: object, X: np.ndarray) -> np.ndarray | None:
    """Score by the model in float64, to see what float32 rounds off; None where the score is float64 already."""
    if not hasattr(density, "model_"):
        return None
    graph = ModelGraph(double(density.model_), density.spec_)
    graph._as_seen = partial(as_seen, graph)
    with torch.no_grad():
        return graph(torch.from_numpy(np.asarray(X, dtype=np.float64).reshape(len(X), -1))).numpy()


def as_seen(graph: ModelGraph, rows: torch.Tensor) -> torch.Tensor:
    """Do as the graph does, but stay in float64."""
    x = rows if graph.loc is None else (rows - graph.loc) / graph.scale
    channels, height, width = graph.event_shape
    return x.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def runners(density: object, folder: Path) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Export a density, and give the functions that score rows."""
    found = {"ours": density._score_without_noise}
    if "torch" in density.export_formats:
        density.export(folder / "graph.pt2")
        module = torch.export.load(folder / "graph.pt2").module()
        found["torch"] = lambda X: module(torch.from_numpy(X))[0].numpy()
    if "onnx" in density.export_formats:
        density.export(folder / "graph.onnx", format="onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "graph.onnx", options, providers=["CPUExecutionProvider"])
        found["onnx"] = lambda X: session.run(["score"], {"X": X})[0]
    return found


def difference(scores: np.ndarray, expected: np.ndarray) -> list[float]:
    """Give the largest difference, nats, of rows like the data, and that of far ones in relation to the score."""
    off = np.abs(scores - expected)
    return [float(off[~IS_FAR].max()), float((off / np.abs(expected))[IS_FAR].max())]


def measure(density: object, X: np.ndarray, n_rounds: int) -> dict[str, object]:
    """Compare scores of X, and time those of one row, in milliseconds of the processor."""
    X = X.astype(np.float64)
    with tempfile.TemporaryDirectory() as folder:
        score = runners(density, Path(folder))
        sizes = {path.suffix: path.stat().st_size for path in Path(folder).iterdir()}
        expected = score["ours"](X)
        found: dict[str, object] = {"largest_score": float(np.abs(expected[~IS_FAR]).max()), "bytes": sizes}
        exact = float64_scores(density, X)
        found["float64"] = None if exact is None else difference(exact, expected)
        times: dict[str, list[float]] = {name: [] for name in score}
        for i in range(n_rounds + 10):  # ten to get warm
            for name, function in score.items():
                started = time.thread_time()
                function(X[i : i + 1])
                times[name].append(1e3 * (time.thread_time() - started))
        for name, function in score.items():
            found[name] = difference(function(X), expected)
            found[f"{name}_ms"] = [float(q) for q in np.quantile(times[name][10:], [0.5, 0.05, 0.95])]
    return found


def write(results: list[dict[str, object]], folder: Path) -> None:
    """Write the results, and a table of them for the documentation."""
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    told = {"processor": platform.processor() or platform.machine(), "versions": versions, "results": results}
    (folder / "export.json").write_text(json.dumps(told, indent=1) + "\n")
    with open(folder / "export.csv", "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["density", "data", "largest", "float32", "torch", "ONNX", "ONNX, far", *COLUMNS])
        for each in results:
            rounding = "" if each["float64"] is None else f"{each['float64'][0]:.0e}"
            row = [each["density"], each["data"], f"{each['largest_score']:.0f}", rounding]
            row += [f"{each[name][i]:.0e}" for name, i in (("torch", 0), ("onnx", 0), ("onnx", 1))]
            row += [f"{each[f'{name}_ms'][0]:.2f}" for name in ("ours", "torch", "onnx")]
            out.writerow(row)


def main() -> None:
    """Measure all densities, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two densities, 20 rounds")
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[2] / "docs" / "studies")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = {"table": (table(2000, 0), table(N_NEW, 1, far=5.0)), "digits": digits()}
    results: list[dict[str, object]] = []
    for kind, (X, new) in data.items():
        for name, make in SIZES.items():
            left_out = ONE_OF_TABLES if kind == "table" else ONLY_TABLES
            if name in left_out or (options.quick and name not in QUICK):
                continue
            more = {} if name == "Neighbors" else {"max_epochs": 2, "random_state": 0}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                density = make(**more, **({"n_bins": 17} if kind == "digits" else {})).fit(X)
                found = measure(density, new, 20 if options.quick else N_ROUNDS)
            results.append({"density": name, "data": kind, **found})
            print(json.dumps(results[-1]), flush=True)
            write(results, options.results)


if __name__ == "__main__":
    main()

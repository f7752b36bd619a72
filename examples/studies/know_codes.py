"""Moments, latent codes and bits/dim over the training of the second study, and PixelCNN and VAEs in it.

    FLOWDETECT_DATA=folder python examples/studies/know_codes.py [--quick] [--sets fashion_mnist cifar10 mnist svhn]
        [--images 4000] [--tests 1000] [--times 1] [--results DIR] [--models DIR]

The rest of "Do Deep Generative Models Know What They Don't Know?" (Nalisnick et al., 2019),
https://arxiv.org/abs/1810.09136, beside know_what_they_dont_know.py, with models so small that one core has them in
minutes. Of each set and the other one of its pair:

- moments of the test images, as its Figures 6a and 11 have them, and what they predict by its second-order analysis;
- codes under a constant-volume Glow, as in Figure 12: means and standard deviations of each latent, norms;
- bits/dim of both sets as that Glow trains, as in Figure 5b. The Glow trains once, to the end of its schedule, and its
  weights are kept on the way as they stand, no average of them; the last point is the trained model;
- histograms of the likelihoods of that Glow, a gated PixelCNN, a VAE whose posterior is a RealNVP, and a VAE with a
  categorical likelihood, as in Figures 5a and 3a to 3c; those of VAEs are lower bounds.

--times multiplies the epochs of all models. The PixelCNN and the VAEs are stored in --models, under names that hold
their size, and loaded by a second start. Writes know_codes_<set>.json, .txt and .png.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from know_what_they_dont_know import write
from matplotlib.figure import Figure
from scores import PAIRS, images_of
from shared import SEED, interval, loaded_or_fitted

from flowdetect import GlowDensity, PixelCNNDensity, VAEDensity, second_order_gap
from flowdetect.density import BaseDensity
from flowdetect.density.spec import DataSpec
from flowdetect.evaluation import auroc, plot_score_histograms

GLOW = "constant-volume Glow"
MARKS = (0.0, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)  # shares of the steps, at which weights are kept
N_CURVE, N_GAP = 500, 200  # images of each set
SIZES: dict[str, tuple[Callable[..., BaseDensity], dict[str, Any]]] = {
    "PixelCNN": (PixelCNNDensity, {"n_filters": 16, "n_blocks": 3, "max_epochs": 4}),
    "VAE, RealNVP posterior": (VAEDensity, {"posterior": "realnvp", "hidden_channels": 16, "max_epochs": 10}),
    "VAE, categorical": (VAEDensity, {"likelihood": "categorical", "hidden_channels": 16, "max_epochs": 10}),
}
Sets = dict[str, np.ndarray]


class KeepingGlow(GlowDensity):
    """A Glow that keeps its weights as they stand when its training passes each of MARKS."""

    def _build(self, spec: DataSpec) -> Any:
        model, passed = super()._build(spec), 0
        begin, self.weights = model.begin_step, {}
        kept = self.weights  # by the share of the steps made

        def begin_step(seed: int, progress: float) -> None:
            nonlocal passed
            n_passed = sum(mark <= progress for mark in MARKS)
            if n_passed > passed:
                kept[progress] = {key: value.detach().clone() for key, value in model.state_dict().items()}
            passed = n_passed
            begin(seed, progress)

        model.begin_step = begin_step  # a function, which copies of the model share
        return model


def sets_of(args: argparse.Namespace, name: str) -> tuple[np.ndarray, Sets]:
    """Images to train on; and training, test and other images."""
    X, X_test = images_of(name, args.tests)
    X = X[np.random.default_rng(SEED).permutation(len(X))[: args.images]]
    other = PAIRS[name]
    tested = {f"{name}, test": X_test, f"{other}, test": images_of(other, args.tests)[1]}
    return X, {f"{name}, train": X[: args.tests], **tested}


# ---- models


def trained(args: argparse.Namespace, name: str, X: np.ndarray) -> tuple[dict[str, Any], dict[str, float]]:
    """Train all models, or load them; give the seconds of those trained now too."""
    fixed = {"early_stopping": False, "random_state": SEED}
    tiny = {"n_filters": 4, "n_blocks": 1} if args.quick else {}
    epochs = max(1, round(20 * args.times))
    size = {"n_steps": 1, "hidden_channels": 8} if args.quick else {"n_steps": 4, "hidden_channels": 32}
    glow = KeepingGlow(coupling="additive", split_prior="standard", max_epochs=epochs, **size, **fixed)
    started = time.perf_counter()
    models: dict[str, Any] = {GLOW: glow.fit(X)}
    seconds = {GLOW: time.perf_counter() - started}
    for key, (make, parameters) in SIZES.items():
        size = parameters | {"max_epochs": max(1, round(parameters["max_epochs"] * args.times))}
        size |= tiny if key == "PixelCNN" else {"hidden_channels": 4} if args.quick else {}
        slug = f"know codes {name} {key} {len(X)} {size['max_epochs']}{' quick' * args.quick}"
        path = Path(args.models) / f"{slug.replace(',', '').replace(' ', '-')}.safetensors"
        started, is_new = time.perf_counter(), not path.exists()
        models[key] = loaded_or_fitted(path, make(**size, **fixed), X)
        if is_new:
            seconds[key] = time.perf_counter() - started
    return models, seconds


def curve(glow: KeepingGlow, sets: Sets, n_steps: int) -> list[dict[str, float]]:
    """Mean bits/dim of each set under the weights kept, and under those of the trained model."""
    rows, then = [], copy.deepcopy(glow)
    for share, weights in [*glow.weights.items(), (1.0, glow.model_.state_dict())]:
        then.model_.load_state_dict(weights)
        bits = {key: float(then.bits_per_dim(X[:N_CURVE]).mean()) for key, X in sets.items()}
        rows.append({"step": round(share * n_steps), **bits})
    return rows


# ---- moments of images and of codes


def moments(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and variance of each column of (n, D), the covariances of all pairs, and norms by the root of D."""
    covariance = np.cov(rows, rowvar=False)
    return {
        "mean": rows.mean(axis=0),
        "variance": covariance.diagonal().copy(),
        "covariance": covariance[np.triu_indices(len(covariance), 1)],
        "norm": np.linalg.norm(rows, axis=1) / np.sqrt(rows.shape[1]),
    }


def compared(inside: dict[str, np.ndarray], outside: dict[str, np.ndarray]) -> dict[str, Any]:
    """Say what the paper reads off the histograms: whether the other set sits inside."""
    low, high = inside["mean"].min(), inside["mean"].max()
    each = (inside, outside)
    return {
        "sum of variances": [float(part["variance"].sum()) for part in each],
        "mean of the means": [float(part["mean"].mean()) for part in each],
        "mean |mean|": [float(np.abs(part["mean"]).mean()) for part in each],
        "mean covariance of a pair": [float(part["covariance"].mean()) for part in each],
        "mean norm": [float(part["norm"].mean()) for part in each],
        "norm, 5 % and 95 %": [np.quantile(part["norm"], (0.05, 0.95)).tolist() for part in each],
        "means outside in the range of those inside": float(
            ((outside["mean"] >= low) & (outside["mean"] <= high)).mean()
        ),
        "dimensions of less variance outside": float((outside["variance"] < inside["variance"]).mean()),
    }


def by_channel(X: np.ndarray) -> list[float]:
    """Variances of each channel, summed over its pixels, of values in [0, 1)."""
    return (X.reshape(len(X), *X.shape[1:3], -1) / 256).var(axis=0).sum(axis=(0, 1)).tolist()


# ---- the study


def study(args: argparse.Namespace, name: str) -> None:
    """Run all on one set, draw and write."""
    X, sets = sets_of(args, name)
    models, seconds = trained(args, name, X)
    glow = models[GLOW]
    ins, outs = list(sets)[1:]
    tests = {key: sets[key] for key in (ins, outs)}
    images = {key: moments(tested.reshape(len(tested), -1) / 256) for key, tested in tests.items()}
    codes = {key: moments(glow.transform(tested)) for key, tested in tests.items()}
    scores = {key: {each: model.score_samples(of) for each, of in sets.items()} for key, model in models.items()}
    gap = second_order_gap(glow, *(tested[:N_GAP] for tested in tests.values()))
    n_dims = X[0].size
    found = {
        "settings": vars(args),
        "seconds of training": seconds,
        "variance by channel": {key: by_channel(tested) for key, tested in tests.items()},
        "images": compared(*images.values()),
        "codes": compared(*codes.values()),
        "gap, nats: measured [low, high], of first, of second order": [
            *(gap.measured, gap.measured_low, gap.measured_high),
            *(gap.first_order, gap.second_order),
        ],
        "bits/dim [low, high]": {
            key: {each: interval(-score / (n_dims * np.log(2))) for each, score in of.items()}
            for key, of in scores.items()
        },
        "AUROC of the likelihood": {key: auroc(of[ins], of[outs]) for key, of in scores.items()},
        "bits/dim by step": curve(glow, sets, glow.n_iter_ * (len(X) // glow.batch_size)),
    }
    figure = drawn(name, images, codes, scores, found["bits/dim by step"])
    write(Path(args.results) / f"know_codes_{name}", found, text(name, found), figure)


def text(name: str, found: dict[str, Any]) -> str:
    """Tables."""
    bits = {
        key: {each: f"{mean:.3f} [{low:.3f}, {high:.3f}]" for each, (mean, low, high) in of.items()}
        for key, of in found["bits/dim [low, high]"].items()
    }
    tables = pd.DataFrame(bits).T.to_string(), pd.DataFrame(found["bits/dim by step"]).round(3).to_string(index=False)
    lines = [f"{key}: {value}" for key, value in found.items() if not key.startswith(("bits", "images", "codes"))]
    lines += [f"{part}, {key}: {value}" for part in ("images", "codes") for key, value in found[part].items()]
    return "\n\n".join([f"Trained on {name}", *tables, "\n".join(lines)]) + "\n"


def drawn(name: str, images: Any, codes: Any, scores: Any, steps: list[dict[str, float]]) -> Figure:
    """Draw the paper's Figures 6a and 11 in the first row, 12 and 5b in the second, 5a and 3 in the third."""
    figure = Figure(figsize=(16, 10), layout="constrained")
    axes = figure.subplots(3, 4)
    titles = {
        "mean": "means",
        "variance": "variances",
        "covariance": "covariances of pairs",
        "norm": "norm by root of D",
    }
    for ax, (key, title) in zip(axes[0], titles.items(), strict=True):
        values = {each.split(",")[0]: of[key] for each, of in images.items()}
        plot_score_histograms(values, xlabel="values in [0, 1)", ax=ax).set_title(f"images: {title}", fontsize=10)
    for ax, key in zip(axes[1], ("mean", "deviation", "norm"), strict=False):
        values = {
            each.split(",")[0]: np.sqrt(of["variance"]) if key == "deviation" else of[key] for each, of in codes.items()
        }
        title = {**titles, "deviation": "standard deviations"}[key]
        plot_score_histograms(values, xlabel="", ax=ax).set_title(f"codes: {title}", fontsize=10)
    frame = pd.DataFrame(steps).set_index("step")
    for column in frame:
        axes[1, 3].plot(frame.index + 1, frame[column], marker="o", markersize=3, label=column)
    axes[1, 3].set(xscale="log", yscale="log", xlabel="steps + 1", ylabel="bits/dim")
    axes[1, 3].set_title(f"{GLOW}, as it trains", fontsize=10)
    axes[1, 3].legend(frameon=False, fontsize=8)
    for ax, (key, values) in zip(axes[2], scores.items(), strict=True):
        plot_score_histograms(values, xlabel="nats", ax=ax).set_title(f"{key}: log p(x)", fontsize=10)
    figure.suptitle(f"Trained on {name}")
    return figure


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models, 640 images, 100 tests: about a minute")
    parser.add_argument("--sets", nargs="+", default=["fashion_mnist", "cifar10"], choices=list(PAIRS))
    parser.add_argument("--images", type=int, default=4000, help="to train on")
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--times", type=float, default=1.0, help="as many epochs")
    parser.add_argument("--results", default="results")
    parser.add_argument("--models", default="models")
    args = parser.parse_args()
    if args.quick:
        args.images, args.tests, args.times = 640, 100, 0.1
    for name in args.sets:
        study(args, name)


if __name__ == "__main__":
    main()

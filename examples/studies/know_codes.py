"""Moments, latents and bits/dim over the training of the second study, and PixelCNN and VAEs in it.

    FLOWDETECT_DATA=folder python examples/studies/know_codes.py [--quick] [--sets fashion_mnist cifar10 mnist svhn]
        [--moments-alone cifar10] [--images 4000] [--tests 1000] [--times 1] [--hidden 32] [--depth 4] [--results DIR]

The rest of "Do Deep Generative Models Know What They Don't Know?" (Nalisnick et al., 2019),
https://arxiv.org/abs/1810.09136, beside know_what_they_dont_know.py, with models so small that one core has them in
minutes. Of each set and the other one of its pair:

- moments of the test images, as its Figures 6a and 11 have them, and what they predict by its second-order analysis;
- codes under a constant-volume Glow, as in Figure 12: means and standard deviations of each latent, norms;
- bits/dim of both sets as that Glow trains, as in Figure 5b. The Glow trains once, to the end of its schedule, and its
  weights are kept on the way as they stand, no average of them; the last point is the trained model;
- histograms of the likelihoods of that Glow, a gated PixelCNN, a VAE whose posterior is a RealNVP, and a VAE with a
  categorical likelihood, as in Figures 5a and 3a to 3c; those of VAEs are lower bounds.

--times multiplies the epochs of all models, --hidden and --depth are the width of the Glow and its steps at each level,
and the PixelCNN and the VAEs are half as wide. --moments-alone names sets of which no model is trained. Writes
know_codes_<set>.json after each model, .txt and .png at the end.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from know_what_they_dont_know import write
from matplotlib.figure import Figure
from scores import PAIRS, images_of
from shared import SEED, interval

from flowdetect import GlowDensity, PixelCNNDensity, VAEDensity, second_order_gap
from flowdetect.density import BaseDensity
from flowdetect.density.spec import DataSpec
from flowdetect.evaluation import auroc, plot_score_histograms

COLORS = ("#0072B2", "#D55E00", "#009E73")  # as of the histograms
GLOW = "constant-volume Glow"
MARKS = (0.0, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)  # shares of the steps, at which weights are kept
N_CURVE, N_GAP, N_MOMENTS, N_PAIRS = 200, 100, 1000, 20_000  # images of each set, and pairs of values
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
    X, X_test = images_of(name, max(args.tests, N_MOMENTS))
    X = X[np.random.default_rng(SEED).permutation(len(X))[: args.images]]
    other = PAIRS[name]
    tested = {f"{name}, test": X_test, f"{other}, test": images_of(other, max(args.tests, N_MOMENTS))[1]}
    return X, {f"{name}, train": X, **tested}


# ---- models


def densities(args: argparse.Namespace) -> dict[str, BaseDensity]:
    """Make all models, not fitted."""
    fixed = {"early_stopping": False, "random_state": SEED}
    half = max(4, args.hidden // 2)
    made = {
        GLOW: KeepingGlow(coupling="additive", split_prior="standard", max_epochs=20, n_steps=args.depth, **fixed),
        "PixelCNN": PixelCNNDensity(n_filters=half, n_blocks=args.depth, max_epochs=4, **fixed),
        "VAE, RealNVP posterior": VAEDensity(posterior="realnvp", hidden_channels=half, max_epochs=10, **fixed),
        "VAE, categorical": VAEDensity(likelihood="categorical", hidden_channels=half, max_epochs=10, **fixed),
    }
    made[GLOW].set_params(hidden_channels=args.hidden)
    for density in made.values():
        density.set_params(max_epochs=max(1, round(density.max_epochs * args.times)))
    return made


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
    """Mean and variance of each column of (n, D), covariances of pairs drawn, and norms by the root of D."""
    first, second = np.random.default_rng(SEED).integers(rows.shape[1], size=(2, N_PAIRS))
    first, second = first[first != second], second[first != second]
    mean = rows.mean(axis=0)
    centred = rows - mean
    return {
        "mean": mean,
        "variance": rows.var(axis=0, ddof=1),
        "covariance": np.einsum("ni,ni->i", centred[:, first], centred[:, second]) / (len(rows) - 1),
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
    path = Path(args.results) / f"know_codes_{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    tests = dict(list(sets.items())[1:])
    images = {key: moments(tested[:N_MOMENTS].reshape(-1, X[0].size) / 256) for key, tested in tests.items()}
    sets = {key: tested[: args.tests] for key, tested in sets.items()}
    found: dict[str, Any] = {"settings": {**vars(args), "results": None}, "images": compared(*images.values())}
    found["variance by channel"] = {key: by_channel(tested[:N_MOMENTS]) for key, tested in tests.items()}
    scores: dict[str, dict[str, np.ndarray]] = {}
    codes: dict[str, dict[str, np.ndarray]] = {}
    for key, density in {} if name in args.moments_alone else densities(args).items():
        started = time.perf_counter()
        density.fit(X)
        found.setdefault("seconds of training", {})[key] = time.perf_counter() - started
        scores[key] = {each: density.score_samples(of) for each, of in sets.items()}
        found |= told(scores, X[0].size)
        if key == GLOW:
            codes |= {each: moments(density.transform(of)) for each, of in list(sets.items())[1:]}
            found |= of_glow(density, X, sets) | {"codes": compared(*codes.values())}
        path.with_suffix(".json").write_text(json.dumps(found) + "\n")
    write(path, found, text(name, found), drawn(name, images, codes, scores, found.get("bits/dim by step", [])))


def told(scores: dict[str, dict[str, np.ndarray]], n_dims: int) -> dict[str, Any]:
    """Bits per dimension with intervals, and AUROCs, of each model."""
    bits = {
        key: {each: interval(-score / (n_dims * np.log(2))) for each, score in of.items()} for key, of in scores.items()
    }
    aurocs = {key: auroc(*list(of.values())[1:]) for key, of in scores.items()}
    return {"bits/dim [low, high]": bits, "AUROC of the likelihood": aurocs}


def of_glow(glow: KeepingGlow, X: np.ndarray, sets: Sets) -> dict[str, Any]:
    """Give the curve, and the gap between the sets beside what it is predicted to be."""
    gap = second_order_gap(glow, *(tested[:N_GAP] for tested in list(sets.values())[1:]))
    return {
        "bits/dim by step": curve(glow, sets, glow.n_iter_ * (len(X) // glow.batch_size)),
        "gap, nats: measured [low, high], of first, of second order": [
            *(gap.measured, gap.measured_low, gap.measured_high),
            *(gap.first_order, gap.second_order),
        ],
    }


def text(name: str, found: dict[str, Any]) -> str:
    """Tables."""
    bits = {
        key: {each: f"{mean:.3f} [{low:.3f}, {high:.3f}]" for each, (mean, low, high) in of.items()}
        for key, of in found.get("bits/dim [low, high]", {}).items()
    }
    tables = []
    if bits:
        steps = pd.DataFrame(found["bits/dim by step"]).round(3)
        tables = [pd.DataFrame(bits).T.to_string(), steps.to_string(index=False)]
    lines = [f"{key}: {value}" for key, value in found.items() if not key.startswith(("bits", "images", "codes"))]
    for part in ("images", "codes"):
        lines += [f"{part}, {key}: {value}" for key, value in found.get(part, {}).items()]
    return "\n\n".join([f"Trained on {name}", *tables, "\n".join(lines)]) + "\n"


def drawn(name: str, images: Any, codes: Any, scores: Any, steps: list[dict[str, float]]) -> Figure:
    """Draw the paper's Figures 6a and 11 in the first row, 12 and 5b in the second, 5a and 3 in the third."""
    n_rows = 3 if scores else 1
    figure = Figure(figsize=(16, 3.3 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, 4, squeeze=False)
    titles = {
        "mean": "means",
        "variance": "variances",
        "covariance": "covariances of pairs",
        "norm": "norm by root of D",
    }
    for ax, (key, title) in zip(axes[0], titles.items(), strict=True):
        values = {each.split(",")[0]: of[key] for each, of in images.items()}
        plot_score_histograms(values, xlabel="values in [0, 1)", ax=ax).set_title(f"images: {title}", fontsize=10)
    if scores:
        draw_codes(axes[1], codes, titles)
        draw_steps(axes[1, 3], steps)
        for ax, (key, values) in zip(axes[2], scores.items(), strict=False):
            plot_score_histograms(values, xlabel="nats", ax=ax).set_title(f"{key}: log p(x)", fontsize=10)
    figure.suptitle(name if not scores else f"Trained on {name}")
    return figure


def draw_codes(axes: Any, codes: Any, titles: dict[str, str]) -> None:
    """Draw means, standard deviations and norms."""
    for ax, key in zip(axes, ("mean", "deviation", "norm"), strict=False):
        values = {
            each.split(",")[0]: np.sqrt(of["variance"]) if key == "deviation" else of[key] for each, of in codes.items()
        }
        title = {**titles, "deviation": "standard deviations"}[key]
        plot_score_histograms(values, xlabel="", ax=ax).set_title(f"codes: {title}", fontsize=10)


def draw_steps(ax: Any, steps: list[dict[str, float]]) -> None:
    """Draw bits/dim by step, in the colours of the histograms."""
    frame = pd.DataFrame(steps).set_index("step")
    for column, color in zip(frame, COLORS, strict=False):
        ax.plot(frame.index + 1, frame[column], color=color, marker="o", markersize=3, label=column)
    ax.set(xscale="log", xlabel="steps + 1", ylabel="bits/dim")
    ax.set_title(f"{GLOW}, as it trains", fontsize=10)
    ax.legend(frameon=False, fontsize=8)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models, 640 images, 100 tests: about a minute")
    parser.add_argument("--sets", nargs="+", default=["fashion_mnist", "cifar10"], choices=list(PAIRS))
    parser.add_argument("--moments-alone", nargs="+", default=[], choices=list(PAIRS), help="train no model of these")
    parser.add_argument("--images", type=int, default=4000, help="to train on")
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--times", type=float, default=1.0, help="as many epochs")
    parser.add_argument("--results", default="results")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--depth", type=int, default=4)
    args = parser.parse_args()
    if args.quick:
        args.images, args.tests, args.times, args.hidden, args.depth = 640, 100, 0.1, 8, 1
    for name in args.sets:
        study(args, name)


if __name__ == "__main__":
    main()

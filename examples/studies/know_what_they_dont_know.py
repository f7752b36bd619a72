"""Do deep generative models know what they don't know? The experiments of the paper of that name.

    FLOWDETECT_DATA=folder python examples/studies/know_what_they_dont_know.py [--quick]
        [--sets fashion_mnist mnist cifar10 svhn moons] [--minutes 14] [--steps 800] [--tests 2000]
        [--results DIR] [--models DIR]

"Do Deep Generative Models Know What They Don't Know?" (Nalisnick et al., 2019), https://arxiv.org/abs/1810.09136: bits
per dimension of training, test and other images, of random and constant ones; histograms; the likelihood's two terms;
constant-volume Glow and an ensemble; the second-order analysis, on the constant-volume Glow, beside the measured gap;
graying; latents; and, on two moons of growing dimension, how large the terms get with "exp" and "sigmoid" scales.
Fashion-MNIST stands for the paper's NotMNIST. Both directions of both pairs of sets. Moments, histograms
of codes, bits/dim over the training, PixelCNN and VAEs are in know_codes.py.

The Glow with affine couplings is that of scores.py, trained on nine tenths of the images for 0.7 of the minutes, at
most 40 epochs; the constant-volume one trains for so many steps of 64 images, each member of the ensemble for a third
of them, both rounded to whole epochs, at least one. Each model is stored as it is trained, and a second start resumes
where the first one ended; sets can run side by side. Writes know_<set>.json, .txt and .png for each set, and the same
of "moons".

Sizes: --quick is tiny networks on 1,280 images, 100 test images, 4 dimensions at most. For a GPU, nearer the paper:
--minutes 1000 --steps 100000 --hidden 400 --members 5; of its Glows it says 3 levels of 8 steps, as here on 32x32.
--hidden is the width of the constant-volume Glow and of the members; that of scores.py keeps its 128.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scores import HELD_OUT, PAIRS, images_of, trained
from shared import SEED, interval, loaded_or_fitted
from sklearn.datasets import make_moons
from sklearn.frozen import FrozenEstimator

from flowdetect import (
    EnsembleDensity,
    GlowDensity,
    Gray,
    WAICDetector,
    constant_images,
    load,
    random_images,
    second_order_gap,
)
from flowdetect.bijections import AffineCoupling
from flowdetect.density import BaseDensity
from flowdetect.evaluation import auroc, plot_score_histograms

N_GAP = 500  # images of each set, since second derivatives cost
GRAYS = (1.0, 0.75, 0.5, 0.25, 0.0)
JITTER = 0.05  # of the copied coordinates of two moons; without it their density has no bound
LARGEST_LOG_SCALE = {"exp": 3.0, "sigmoid": -np.log1p(np.exp(-5.0))}  # of one value in one coupling


class Study:
    """The experiments on one image set."""

    def __init__(self, args: argparse.Namespace, name: str):
        self.args, self.name, self.other = args, name, PAIRS[name]
        self.seconds: dict[str, float] = {}
        self.ensemble_key = f"ensemble of {args.members}"
        self.X, X_test = images_of(name, args.tests)
        self.X = self.X[: 1280 if args.quick else None]
        self.X = self.X[np.random.default_rng(SEED).permutation(len(self.X))][int(HELD_OUT * len(self.X)) :]
        self.sets = {
            f"{name}, train": self.X[: args.tests],
            f"{name}, test": X_test,
            f"{self.other}, test": images_of(self.other, args.tests)[1],
        }

    def glow(self, n_steps: int, **parameters: Any) -> GlowDensity:
        """Make a Glow that trains for so many steps."""
        size = {"n_steps": 1, "hidden_channels": 8} if self.args.quick else {"hidden_channels": self.args.hidden}
        n_epochs = max(1, round(64 * n_steps / len(self.X)))
        fixed = {"max_epochs": n_epochs, "early_stopping": False, "random_state": SEED, "verbose": 1}
        return GlowDensity(**{**size, **fixed, **parameters})

    def path(self, key: str) -> Path:
        """Say where a model of this set and size is kept."""
        slug = f"know {self.name} {key} {self.args.steps} {self.args.hidden}".replace(" ", "-")
        return Path(self.args.models) / f"{slug}.safetensors"

    def timed(self, key: str, make: Any) -> Any:
        """Train or load, and keep how many seconds the training took."""
        told = self.path(key).with_suffix(".seconds")
        started = time.perf_counter()
        model = make()
        if not told.exists():
            told.write_text(str(time.perf_counter() - started))
        self.seconds[key] = float(told.read_text())
        return model

    def models(self) -> dict[str, Any]:
        """Glow with affine couplings, the constant-volume one, and an ensemble of affine ones."""
        affine, self.seconds["affine"] = trained(self.args, self.name, "density", self.X)
        constant = self.glow(self.args.steps, coupling="additive", split_prior="standard")
        key = "constant volume"
        return {
            "affine": affine,
            key: self.timed(key, partial(loaded_or_fitted, self.path(key), constant, self.X)),
            "ensemble": self.timed(self.ensemble_key, self.ensemble),
        }

    def ensemble(self) -> EnsembleDensity:
        """Load or train members, each for less long than a model of its own."""
        path = self.path(self.ensemble_key)
        if path.exists():
            return load(path)
        member = self.glow(max(1, self.args.steps // 3), checkpoint=path.with_suffix(".checkpoint"), verbose=0)
        ensemble = EnsembleDensity(member, n_members=self.args.members, random_state=SEED).fit(self.X)
        ensemble.save(path)
        return ensemble

    def bits(self, models: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
        """Bits per dimension with intervals, of each model on each set."""
        shape = self.X.shape[1:]
        n_probes = min(200, self.args.tests)
        probes = {"random": random_images(n_probes, shape), "constant": constant_images(n_probes, shape)}
        return {
            key: {name: interval(model.bits_per_dim(X)) for name, X in (self.sets | probes).items()}
            for key, model in models.items()
        }

    def waic(self, ensemble: EnsembleDensity) -> float:
        """AUROC of what the members say together and how far they agree."""
        detector = WAICDetector(FrozenEstimator(ensemble)).fit(self.X[:200])
        return auroc(*(detector.score_samples(X) for X in list(self.sets.values())[1:]))

    def graying(self, flow: BaseDensity) -> dict[str, list[float]]:
        """Mean bits/dim of test images as they lose contrast."""
        tests = list(self.sets.items())[1:]
        grays = [Gray(factor, requantize=True, n_bins=256) for factor in GRAYS]
        return {name: [float(flow.bits_per_dim(gray.fit_transform(X)).mean()) for gray in grays] for name, X in tests}

    def codes(self, flow: BaseDensity) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
        """Norms of the latents by root D, and what the moments of the latents are, each set as it is and grayed."""
        gray = Gray(0.5, requantize=True, n_bins=256)
        tests = dict(list(self.sets.items())[1:])
        sets = tests | {f"{name.split(',')[0]}, gray": gray.fit_transform(X) for name, X in tests.items()}
        latents = {name: flow.transform(X) for name, X in sets.items()}
        norms = {name: np.linalg.norm(z, axis=1) / np.sqrt(z.shape[1]) for name, z in latents.items()}
        moments = {name: [float(np.abs(z.mean(0)).mean()), float(z.var(0).sum())] for name, z in latents.items()}
        return norms, moments

    def run(self) -> None:
        """Run all, draw and write."""
        models = self.models()
        scores = {key: {n: m.score_samples(X) for n, X in self.sets.items()} for key, m in models.items()}
        terms = {name: models["affine"].likelihood_terms(X) for name, X in self.sets.items()}
        norms, moments = self.codes(models["constant volume"])
        gap = second_order_gap(models["constant volume"], *(X[:N_GAP] for X in list(self.sets.values())[1:]))
        ins, outs = list(self.sets)[1:]
        found = {
            "settings": vars(self.args),
            "seconds of training": self.seconds,
            "bits/dim [low, high]": self.bits(models),
            "AUROC of the likelihood": {key: auroc(each[ins], each[outs]) for key, each in scores.items()},
            "AUROC of the ensemble's WAIC": self.waic(models["ensemble"]),
            "AUROC of the terms": {key: auroc(terms[ins][key], terms[outs][key]) for key in ("log_pz", "log_det")},
            "mean of the terms, nats": {
                name: {key: float(each[key].mean()) for key in ("log_pz", "log_det")} for name, each in terms.items()
            },
            "gap, nats: measured [low, high], of first, of second order": [
                *(gap.measured, gap.measured_low, gap.measured_high),
                *(gap.first_order, gap.second_order),
            ],
            "variance by channel, values in [0, 1]": {
                name: (gap.by_channel(X.reshape(len(X), -1).var(axis=0)) / 256**2).tolist()
                for name, X in list(self.sets.items())[1:]
            },
            "graying": self.graying(models["constant volume"]),
            "codes: mean |mean|, sum of variances": moments,
        }
        figure = self.drawn(scores, terms, norms, found["graying"])
        write(Path(self.args.results) / f"know_{self.name}", found, f"{self.text(found)}\n\n{gap}\n", figure)

    def text(self, found: dict[str, Any]) -> str:
        """Tables."""
        cells = {
            key: {name: f"{m:.3f} [{low:.3f}, {high:.3f}]" for name, (m, low, high) in each.items()}
            for key, each in found["bits/dim [low, high]"].items()
        }
        graying = pd.DataFrame(found["graying"], index=pd.Index(GRAYS, name="bits/dim at contrast")).round(3)
        rest = "\n".join(f"{key}: {value}" for key, value in found.items() if not key.startswith(("bits", "graying")))
        return f"{self.name}\n\n{pd.DataFrame(cells).to_string()}\n\n{graying.to_string()}\n\n{rest}"

    def drawn(self, scores: Any, terms: Any, norms: Any, graying: Any) -> Figure:
        """Draw the paper's Figures 2, 4, 5a, 6b, 10 and 12 for this set."""
        figure = Figure(figsize=(15, 7), layout="constrained")
        axes = figure.subplots(2, 4).ravel()
        panels = {
            "Glow: log p(x)": scores["affine"],
            "Glow: log p(z)": {name: each.log_pz for name, each in terms.items()},
            "Glow: log|det|": {name: each.log_det for name, each in terms.items()},
            "constant-volume Glow: log p(x)": scores["constant volume"],
            "ensemble: log p(x)": scores["ensemble"],
            "constant-volume Glow: norm of the latents": norms,
        }
        for ax, (title, values) in zip(axes, panels.items(), strict=False):
            unit = "|z| by root of D" if "norm" in title else "nats"
            plot_score_histograms(values, xlabel=unit, ax=ax).set_title(title, fontsize=10)
        for name, bits in graying.items():
            axes[6].plot(GRAYS, bits, marker="o", label=name)
        axes[6].set(xlabel="contrast", ylabel="bits/dim", title="graying, constant-volume Glow")
        axes[6].legend(frameon=False)
        axes[7].axis("off")
        figure.suptitle(f"Trained on {self.name}")
        return figure


def moons(args: argparse.Namespace) -> None:
    """Measure the terms of flows with each scale on two moons whose coordinates are copied, and what bounds them."""
    dimensions = (2, 4) if args.quick else (2, 10, 20, 50, 100)
    generator = np.random.default_rng(SEED)
    rows = []
    for scale in ("exp", "sigmoid"):
        for n_dims in dimensions:
            X = np.tile(make_moons(2000, noise=0.05, random_state=SEED)[0], n_dims // 2)
            X = X + JITTER * generator.normal(size=X.shape)
            X = (X - X.mean(axis=0)) / X.std(axis=0)
            flow = GlowDensity(scale=scale, max_epochs=3 if args.quick else 30, early_stopping=False, random_state=SEED)
            terms = flow.fit(X).likelihood_terms(X)
            share, n_couplings = coupling_share(flow, X)
            rows.append(
                {
                    "scale": scale,
                    "D": n_dims,
                    "log p(z)": float(terms.log_pz.mean()),
                    "bound of log p(z)": -n_dims / 2 * np.log(2 * np.pi),
                    "log|det|": float(terms.log_det.mean()),
                    "log|det| of couplings": share,
                    "bound of couplings": n_couplings * (n_dims // 2) * LARGEST_LOG_SCALE[scale],
                }
            )
    frame = pd.DataFrame(rows)
    figure = Figure(figsize=(10, 4), layout="constrained")
    for ax, (scale, part) in zip(figure.subplots(1, 2), frame.groupby("scale"), strict=True):
        for column in ("log p(z)", "log|det|", "log|det| of couplings"):
            ax.plot(part["D"], part[column], marker="o", label=column)
        ax.plot(part["D"], part["bound of log p(z)"], "--", color="C0", label="bound of log p(z)")
        if scale == "sigmoid":
            ax.plot(part["D"], part["bound of couplings"], "--", color="C2", label="bound of couplings")
        ax.set(title=f'scale="{scale}"', xlabel="dimensions", ylabel="mean, nats")
        ax.legend(frameon=False, fontsize=8)
    write(Path(args.results) / "know_moons", {"rows": rows}, frame.round(2).to_string(index=False) + "\n", figure)


def coupling_share(flow: GlowDensity, X: np.ndarray) -> tuple[float, int]:
    """Mean of what the affine couplings add to log|det|, nats, and how many there are."""
    couplings = [module for module in flow.model_.modules() if isinstance(module, AffineCoupling)]
    kept: list[list[torch.Tensor]] = [[] for _ in couplings]
    hooks = [
        coupling.register_forward_hook(lambda _m, _i, out, parts=parts: parts.append(out[1].detach()))
        for coupling, parts in zip(couplings, kept, strict=True)
    ]
    flow.likelihood_terms(X)
    for hook in hooks:
        hook.remove()
    # rows come in chunks, the last of which is filled up
    return sum(float(torch.cat(parts)[: len(X)].mean()) for parts in kept), len(couplings)


def write(path: Path, numbers: dict[str, Any], text: str, figure: Figure) -> None:
    """Write numbers, tables and the picture side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(numbers) + "\n")
    path.with_suffix(".txt").write_text(text)
    figure.savefig(path.with_suffix(".png"), dpi=110)
    print(text, flush=True)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models, a few minutes")
    parser.add_argument("--sets", nargs="+", default=[*PAIRS, "moons"], choices=[*PAIRS, "moons"])
    parser.add_argument("--minutes", type=float, default=14, help="as of scores.py; 0.7 of them for the affine Glow")
    parser.add_argument(
        "--steps", type=int, default=800, help="on 64 images, constant volume; a third of them a member"
    )
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--results", default="results")
    parser.add_argument("--models", default="models")
    args = parser.parse_args()
    if args.quick:
        args.minutes, args.steps, args.tests, args.hidden, args.members = 0.1, 20, 100, 8, 2
    for name in args.sets:
        moons(args) if name == "moons" else Study(args, name).run()


if __name__ == "__main__":
    main()

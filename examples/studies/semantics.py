"""Do likelihoods follow meaning or pixels? The experiments of the paper on semantic-invariant transformations (SITs).

    FLOWDETECT_DATA=folder python examples/studies/semantics.py [--quick] [--sets mnist fashion_mnist]
        [--images 60000] [--tests 2000] [--epochs 2] [--results DIR] [--models DIR]

"Exploring the Correlation Between Likelihood of Flow-based Generative Models and Image Semantics" (anonymous, under
double-blind review), Figures 1 to 11 and Table 1: Glow with affine and additive couplings, told the labels or not, and
PixelCNN++, on images of 28x28; for the latents, which need five levels, Glow on images padded to 32x32, not told the
labels. Beside them, as nobody has reported, scores corrected for complexity. Models that were told the labels score
without them, by the mixture over classes; the paper gives them the label.

Each model is stored as it is trained, and a second start resumes where the first one ended. For each set the study
writes <set>.json (all numbers), <set>.txt (tables) and pictures. The two sets can run side by side. The flows of five
levels train with the paper's learning rate of 2e-4, for half of the epochs: with the default of 1e-3 their loss leaps
when the rate is highest, and additive couplings do not recover.

Sizes: --quick is 2,560 images, one epoch, tiny networks and 200 test images. The paper's sizes, for a GPU: --epochs 100
--tests 10000 --hidden 128 --filters 100 --blocks 2 (its Glow has five levels and 8 steps, its PixelCNN three mixtures).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from classifier import probabilities, train_classifier
from shared import SEED, loaded_or_fitted
from sklearn.frozen import FrozenEstimator

from flowdetect import (
    AddNoise,
    ComplexityDetector,
    GlowDensity,
    PixelCNNDensity,
    Translate,
    ZeroLatents,
    load_images,
    sit_report,
)
from flowdetect.density import BaseDensity
from flowdetect.evaluation import SITReport

OTHER = {"mnist": "fashion_mnist", "fashion_mnist": "mnist"}
GLOWS = {
    f"Glow, {coupling}{', by label' if told else ''}": {"coupling": coupling, "conditional": told}
    for coupling in ("affine", "additive")
    for told in (False, True)
}
PIXELCNN = "PixelCNN++"
SHIFTS = {"1 pixel left": Translate(dx=-1), "2 pixels left": Translate(dx=-2)}
NOISES = {
    "noise": AddNoise(0.001, random_state=SEED),
    "noise, background": AddNoise(0.001, background_below=0.3, random_state=SEED),
    "noise, shifted": AddNoise(0.001, "shifted", random_state=SEED),
    "noise, negative": AddNoise(0.001, "negative", random_state=SEED),
}


class BinCentres:
    """A flow scored as in the paper: at the given values, no new noise added."""

    def __init__(self, flow: BaseDensity):
        self.flow = flow

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Log-density at x + 1/2, (n,), nats."""
        return self.flow.score_samples(X, dequantize=False)

    def bits_per_dim(self, X: np.ndarray) -> np.ndarray:
        """Give the same in bits per dimension, (n,)."""
        return -self.score_samples(X) / (X[0].size * np.log(2))


def padded(X: np.ndarray) -> np.ndarray:
    """(n, 28, 28) -> (n, 32, 32) with black margins."""
    return np.pad(X, ((0, 0), (2, 2), (2, 2)))


class Study:
    """The experiments on one image set."""

    def __init__(self, args: argparse.Namespace, name: str):
        self.args, self.name, self.seconds = args, name, {}
        self.folder = Path(args.results)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.X, self.y), (X_test, y_test) = load_images(name), load_images(name, "test")
        self.X, self.y = self.X[: args.images], self.y[: args.images]
        self.X_test, self.y_test = X_test[: args.tests], y_test[: args.tests]
        self.X_out = load_images(OTHER[name], "test")[0][: args.tests]

    def fitted(self, key: str, density: BaseDensity, X: np.ndarray) -> BaseDensity:
        """Load or train a model; labels go to those that take them."""
        args = self.args
        density.set_params(early_stopping=False, random_state=SEED, verbose=1)
        slug = key.replace("++", "pp").replace(", ", "-").replace(" ", "-").lower()
        size = args.images, args.epochs, args.steps, args.hidden, args.filters, args.blocks, args.mixtures
        path = Path(args.models) / f"semantics-{self.name}-{slug}-{'-'.join(map(str, size))}.safetensors"
        started = time.perf_counter()
        density = loaded_or_fitted(path, density, X, self.y)
        seconds = path.with_suffix(".seconds")
        if not seconds.exists():
            seconds.write_text(str(time.perf_counter() - started))
        self.seconds[key] = float(seconds.read_text())
        return density

    def glow(self, **parameters: Any) -> GlowDensity:
        """Make a Glow of the study's size."""
        size = {"n_steps": self.args.steps, "hidden_channels": self.args.hidden, "max_epochs": self.args.epochs}
        return GlowDensity(**{**size, **parameters})

    def pixels(self) -> SITReport:
        """Shifts and noise on 28x28: all models, and scores corrected for complexity, against the other set."""
        scorers: dict[str, Any] = {key: self.fitted(key, self.glow(**kind), self.X) for key, kind in GLOWS.items()}
        pixelcnn = PixelCNNDensity(
            variant="pixelcnn++",
            n_filters=self.args.filters,
            n_blocks=self.args.blocks,
            n_mixtures=self.args.mixtures,
            max_epochs=self.args.epochs,
        )
        scorers[PIXELCNN] = self.fitted(PIXELCNN, pixelcnn, self.X)
        for key in ("Glow, affine", PIXELCNN):
            detector = ComplexityDetector(FrozenEstimator(scorers[key]))
            scorers[f"complexity, {key}"] = detector.fit(self.X[:1000])
        return sit_report(scorers, self.X_test, SHIFTS | NOISES, self.y_test, self.X_out)

    def latents(self, coupling: str) -> SITReport:
        """Zeroed latents of a Glow of five levels on 32x32, scored as any image and as in the paper."""
        glow = self.glow(n_levels=5, coupling=coupling, learning_rate=2e-4, max_epochs=-(-self.args.epochs // 2))
        flow = self.fitted(f"Glow five levels, {coupling}", glow, padded(self.X))
        sits = {f"first {k} zeroed": ZeroLatents(FrozenEstimator(flow), k) for k in (1, 2)}
        scorers = {f"{coupling}, as any image": flow, f"{coupling}, no new noise": BinCentres(flow)}
        return sit_report(scorers, padded(self.X_test), sits, self.y_test)

    def accuracies(self, latents: SITReport) -> dict[str, float]:
        """Table 1: how often a classifier is right after each SIT."""
        classifier = train_classifier(self.X, self.y, 1 if self.args.quick else 6)
        sets = {"none": self.X_test, "1 pixel left": SHIFTS["1 pixel left"].fit_transform(self.X_test)}
        sets["noise"] = NOISES["noise"].fit_transform(self.X_test)
        for sit, transformer in list(latents.sits.items())[:2]:
            sets[sit] = np.clip(transformer.transform(padded(self.X_test)), 0, 255)[:, 2:-2, 2:-2]
        return {sit: float((probabilities(classifier, X).argmax(1) == self.y_test).mean()) for sit, X in sets.items()}

    def run(self) -> None:
        """Run all, draw and write."""
        pixels, zeroed = self.pixels(), {coupling: self.latents(coupling) for coupling in ("affine", "additive")}
        accuracies = self.accuracies(zeroed["affine"])
        self.draw(pixels, zeroed)
        reports = {"pixels": pixels, **{f"latents, {key}": report for key, report in zeroed.items()}}
        numbers = {
            "settings": vars(self.args),
            "seconds of training": self.seconds,
            "accuracies": accuracies,
            "unscored": [str(problem) for report in reports.values() for problem in report.unscored],
            "reports": {key: _records(report) for key, report in reports.items()},
        }
        (self.folder / f"{self.name}.json").write_text(json.dumps(numbers) + "\n")
        told = "\n\n".join(f"{key}\n\n{report}" for key, report in reports.items())
        right = "\n".join(f"{sit:20} {share:.4f}" for sit, share in accuracies.items())
        text = f"{self.name}\n\n{told}\n\naccuracy of a classifier\n\n{right}\n"
        (self.folder / f"{self.name}.txt").write_text(text)
        print(text)

    def draw(self, pixels: SITReport, zeroed: dict[str, SITReport]) -> None:
        """Draw the paper's figures."""
        models = ["Glow, affine", "Glow, additive", PIXELCNN]
        first = [int(np.flatnonzero(self.y_test == label)[0]) for label in range(10)]
        shifted = pixels.select(models, list(SHIFTS))
        noisy = pixels.select(["Glow, affine", PIXELCNN], ["noise", "noise, background"])
        figures = {"translation": shifted.plot()}
        figures["noise"] = pixels.select(["Glow, affine", PIXELCNN], list(NOISES)).plot(yscale="log")
        for coupling, report in zeroed.items():
            figures[f"latents_{coupling}"] = report.plot()
            examples = report.select([f"{coupling}, no new noise"])
            figures[f"latents_{coupling}_examples"] = examples.plot_examples(first).figure
        figures["translation_examples"] = shifted.plot_examples(first).figure
        figures["noise_examples"] = noisy.plot_examples(first).figure
        for key, figure in figures.items():
            figure.savefig(self.folder / f"{self.name}_{key}.png", dpi=110)


def _records(report: SITReport) -> list[dict[str, Any]]:
    frame = report.to_frame().round(5)
    return frame.astype(object).where(frame.notna(), None).to_dict("records")  # JSON has no NaN


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models on 2,560 images, a few minutes")
    parser.add_argument("--sets", nargs="+", default=list(OTHER), choices=list(OTHER))
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--mixtures", type=int, default=10)
    parser.add_argument("--results", default="results")
    parser.add_argument("--models", default="models")
    args = parser.parse_args()
    if args.quick:
        args.images, args.tests, args.epochs, args.steps, args.hidden, args.filters = 2560, 200, 1, 2, 32, 8
    for name in args.sets:
        Study(args, name).run()


if __name__ == "__main__":
    main()

"""Every OoD score but `OODDetector` (detector.py) on the same densities, both directions of two pairs of image sets.

    FLOWDETECT_DATA=folder python examples/studies/scores.py [--quick] [--sets fashion_mnist mnist cifar10 svhn]
        [--minutes 14] [--tests 2000] [--results DIR] [--models DIR]

For each set: trains `GlowDensity` (for 0.7 of the minutes), a background for the likelihood ratio (0.3) and a
PixelCNN++ (0.9; on colour images with smaller steps at a higher rate), with a local model as its background (0.1), in
whole epochs, at least one and at most 40, on all images but a tenth, held out; fits every detector on at most 4,000 of
these; scores test images of the set and of the other one of its pair (Fashion-MNIST and MNIST, CIFAR-10 and SVHN).
Scores that cost many likelihoods or gradients an image, those in SLOW, are fitted on 400 images and score 400. Of
CIFAR-10 20,000 images to train and 2,000 to test, of SVHN 6,000 and 2,000, as far as the files go.

Each model and each set's scores are stored as they are done, and a second start resumes; sets can run side by side, and
a start with all of them joins what is there. Writes scores.json (all numbers), scores.txt (tables; also how often test
images of the set, and training images that no model and no detector has seen, are flagged at p <= 1, 5 and 10 %, and
what SITs do to each score) and scores.png (AUROC of every score on every pair). "Four codecs" are the three of Pillow
and JPEG XL, which needs imagecodecs: pip install 'flowdetect-ood[codecs]'.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from shared import SEED, loaded_or_fitted
from sklearn.frozen import FrozenEstimator

from flowdetect import (
    AddNoise,
    ComplexityDetector,
    DoSEDetector,
    FisherDetector,
    Flip,
    GlowDensity,
    GradientNormDetector,
    LikelihoodDetector,
    LikelihoodRatioDetector,
    PixelCNNDensity,
    ScaleDetector,
    TransformDetector,
    Translate,
    TypicalityDetector,
    combine,
    load_images,
    ood_report,
    sit_report,
)
from flowdetect.density import BaseDensity
from flowdetect.detectors.codecs import CODECS, check_codecs
from flowdetect.detectors.ratio import mutated
from flowdetect.evaluation import OODReport

PAIRS = {"fashion_mnist": "mnist", "mnist": "fashion_mnist", "cifar10": "svhn", "svhn": "cifar10"}
PIXELCNN = "pixelcnn++"
SHARES = {"density": 0.7, "background": 0.3, PIXELCNN: 0.9, "local": 0.1}  # of the minutes a score may train its models
HELD_OUT, MOST_HELD, LEVELS = 0.1, 4000, (0.01, 0.05, 0.1)
SLOW = ("gradient norms", "stirring, PixelCNN++", "shaking, PixelCNN++")
N_SLOW, N_SITS, N_SLOW_SITS = 400, 500, 150  # images to fit and to test slow ones, to transform, to transform for them
SITS = {"1 pixel left": Translate(dx=-1), "mirrored": Flip(), "noise": AddNoise(0.001, random_state=SEED)}


def images_of(name: str, n_tests: int) -> tuple[np.ndarray, np.ndarray]:
    """Give training and test images."""
    if name == "svhn":
        X = load_images("svhn", "test")[0]  # the one part that everyone has
        return X[:6000], X[6000 : 6000 + n_tests]
    X_test = load_images(name, "test")[0]
    if name == "cifar10" and len(X_test) < n_tests:
        X_test = np.concatenate([X_test, load_images(name, "val")[0]])
    return load_images(name)[0][: 20_000 if name == "cifar10" else None], X_test[:n_tests]


def trained(args: argparse.Namespace, name: str, role: str, X: np.ndarray) -> tuple[BaseDensity, float]:
    """Load or train a density for its share of the minutes; give the seconds too."""
    minutes = args.minutes * SHARES[role]
    path = Path(args.models) / f"scores-{name}-{role}-{minutes:g}.safetensors"
    told = path.with_suffix(".json")
    density = density_of(args, role, X.shape[1:]).set_params(early_stopping=False, random_state=SEED)
    if not told.exists():
        density.set_params(max_epochs=2)
        n_probe = min(len(X), 64 * 40)
        density.fit(X[:n_probe])
        epoch = density.history_["seconds"][1] * len(X) / n_probe  # the second one, all being warm
        n_epochs = max(1, min(int(60 * minutes / epoch), 40))
        density.set_params(max_epochs=n_epochs, verbose=1)
        started = time.perf_counter()
        loaded_or_fitted(path, density, X)
        told.write_text(json.dumps({"epochs": n_epochs, "seconds": time.perf_counter() - started}))
    model = loaded_or_fitted(path, density, X)
    kept = model.get_params()
    other = {k: v for k, v in density.get_params().items() if k not in ("max_epochs", "verbose") and kept[k] != v}
    if other:
        raise ValueError(f"{path} was trained with other parameters than {other}; remove it, or take another --models.")
    return model, json.loads(told.read_text())["seconds"]


def density_of(args: argparse.Namespace, role: str, image_shape: tuple[int, ...]) -> BaseDensity:
    """Make the density of a role, not fitted."""
    if role == "local":
        return PixelCNNDensity(variant="local", n_filters=8 if args.quick else 32, n_blocks=2)
    if role == PIXELCNN:
        sizes: dict[str, Any] = {"n_filters": 8 if args.quick else 32, "n_blocks": 1}
        if image_shape[2:] == (3,):  # small steps at a high rate: better on photographs, and failed on digits
            sizes |= {"batch_size": 8, "learning_rate": 6e-3}
        return PixelCNNDensity(variant="pixelcnn++", **sizes)
    sizes = {"n_steps": 1, "hidden_channels": 8} if args.quick else {}
    return GlowDensity(weight_decay=1.0 if role == "background" else 0.0, **sizes)


def fitted_detectors(models: dict[str, BaseDensity], X: np.ndarray) -> dict[str, Any]:
    """Fit every detector on held-out images, the densities being ready."""
    frozen, background, pixels, local = (FrozenEstimator(models[role]) for role in SHARES)
    detectors = {
        "likelihood": LikelihoodDetector(frozen),
        "typicality": TypicalityDetector(frozen),
        "complexity": ComplexityDetector(frozen),
        "complexity, mixture": ComplexityDetector(frozen, kind="mixture"),
        "ratio": LikelihoodRatioDetector(frozen, background),
        "last scale": ScaleDetector(frozen),
        "DoSE, kde": DoSEDetector(frozen),
        "DoSE, svm": DoSEDetector(frozen, kind="svm"),
        "Fisher": FisherDetector(frozen),
        "gradient norms": GradientNormDetector(frozen),
        "likelihood, PixelCNN++": LikelihoodDetector(pixels),
        "complexity, PixelCNN++": ComplexityDetector(pixels),
        "complexity, four codecs": ComplexityDetector(pixels, codecs=CODECS),
        "local ratio, PixelCNN++": LikelihoodRatioDetector(pixels, local),
        "stirring, PixelCNN++": TransformDetector(pixels),
        "shaking, PixelCNN++": TransformDetector(pixels, transforms="shaking"),
    }
    return {name: each.fit(X[: N_SLOW if name in SLOW else None]) for name, each in detectors.items()}


def study(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Train, score and report one set, or read what an earlier start stored."""
    stored = Path(args.results) / f"scores-{name}-{args.minutes:g}-{args.tests}-{MOST_HELD}.json"
    if stored.exists():
        return dict(json.loads(stored.read_text()))
    X, X_test = images_of(name, args.tests)
    X_out = images_of(PAIRS[name], args.tests)[1]
    if args.quick:
        X = X[:1280]
    rng = np.random.default_rng(SEED)
    X = X[rng.permutation(len(X))]
    n_held = int(HELD_OUT * len(X))
    seen = {"background": mutated(X[n_held:], 0.2)}
    models, seconds = {}, {}
    for role in SHARES:
        models[role], seconds[role] = trained(args, name, role, seen.get(role, X[n_held:]))
    detectors = fitted_detectors(models, X[: min(n_held, MOST_HELD)])
    fresh = X[MOST_HELD:n_held][: args.tests]  # seen by no model and no detector
    slow = {key: each for key, each in detectors.items() if key in SLOW}
    rest = {key: each for key, each in detectors.items() if key not in SLOW}
    reports = [ood_report(rest, X_test, {PAIRS[name]: X_out}, name=name)]
    reports.append(ood_report(slow, X_test[:N_SLOW], {PAIRS[name]: X_out[:N_SLOW]}, name=name))
    sits = [sit_report(rest, X_test[:N_SITS], SITS, X_out=X_out[:N_SITS])]
    sits.append(sit_report(slow, X_test[:N_SLOW_SITS], SITS, X_out=X_out[:N_SLOW_SITS]))
    found = {
        "bits/dim": {key: float(m.bits_per_dim(X_test).mean()) for key, m in models.items() if key != "background"},
        "seconds of training": seconds,
        "false alarms": {
            key: false_alarms(detectors[key], of_set[name]) for each in reports for key, of_set in each.scores.items()
        },
        "false alarms, held out": {
            key: false_alarms(each, each.score_samples(fresh)) for key, each in rest.items() if len(fresh)
        },
        "ood": [result for each in reports for result in each.results],
        "sits": [record for each in sits for record in each.to_frame().to_dict("records")],
        "unscored": [str(problem) for each in (*reports, *sits) for problem in each.unscored],
    }
    stored.write_text(json.dumps(found) + "\n")
    return found


def false_alarms(detector: Any, scores: np.ndarray) -> dict[str, Any]:
    """Count at each level the fresh images whose p-value, by the detector's calibration scores, is at most that."""
    known = detector.calibration_scores_
    p_values = (1 + np.searchsorted(known, scores, side="right")) / (1 + len(known))
    return {"images": len(scores), "flagged": [int((p_values <= level).sum()) for level in LEVELS]}


def alarm_table(found: dict[str, dict[str, Any]]) -> str:
    """Say how often fresh images are flagged, and whether that is within the binomial interval of each level."""
    lines = ["share of fresh images with p-values of at most " + ", ".join(f"{level:.0%}" for level in LEVELS)]
    for name, cells in found.items():
        for kind in ("false alarms", "false alarms, held out"):
            lines.append(f"{name}, {kind}")
            for detector, alarms in cells[kind].items():
                n, flagged = alarms["images"], alarms["flagged"]
                inside = [binomtest(k, n, level).pvalue > 0.05 for k, level in zip(flagged, LEVELS, strict=True)]
                told = "  ".join(f"{k / n:.3f}{' ' if ok else '*'}" for k, ok in zip(flagged, inside, strict=True))
                lines.append(f"{detector:24} {told}")
    return "\n".join([*lines, "* outside the 95 % binomial interval"])


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models on 1,280 images, 200 tests, a few minutes")
    parser.add_argument("--sets", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--minutes", type=float, default=14, help="of training, all models of a score")
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--results", default="results")
    parser.add_argument("--models", default="models")
    args = parser.parse_args()
    if args.quick:
        args.minutes, args.tests = 0.1, 200
    check_codecs("scores.py", CODECS)
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: study(args, name) for name in args.sets}
    combined = combine([OODReport(name, cells["ood"], {}) for name, cells in found.items()])
    columns = ["scorer", "sit", "auroc_clean", "auroc_ood", "auroc_ood_low", "auroc_ood_high"]
    sits = {name: pd.DataFrame(cells["sits"])[columns].round(3) for name, cells in found.items()}
    told = "\n\n".join(f"{name}\n{frame.to_string(index=False)}" for name, frame in sits.items())
    unscored = (
        "\n".join(problem for cells in found.values() for problem in cells["unscored"]) or "all images were scored"
    )
    text = f"{combined}\n\n{unscored}\n\n{combined.worst().round(3).to_string()}\n\n{alarm_table(found)}\n\n{told}\n"
    (folder / "scores.txt").write_text(text)
    (folder / "scores.json").write_text(json.dumps(found) + "\n")
    combined.plot().figure.savefig(folder / "scores.png", dpi=110)
    print(text)


if __name__ == "__main__":
    main()

"""What the studies share: arguments, a model that is loaded where it stands already, and intervals."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import bootstrap, norm

from flowdetect import load
from flowdetect.density import BaseDensity

SEED = 0


def study_parser(description: str | None, quick: str) -> argparse.ArgumentParser:
    """Make a parser with the arguments of every study of one data set against another."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--in-set", default="fashion_mnist")
    parser.add_argument("--out-set", default="mnist")
    parser.add_argument("--results", default="results")
    parser.add_argument("--models", default="models")
    return parser


def loaded_or_fitted(path: Path, density: BaseDensity, X: np.ndarray, y: np.ndarray | None = None) -> BaseDensity:
    """Load the density that stands at a path, or fit this one and save it there; one that was killed goes on."""
    if path.exists():
        return load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_suffix(".checkpoint")
    density.set_params(checkpoint=checkpoint).fit(X, y)
    density.set_params(checkpoint=None).save(path)
    for left in path.parent.glob(f"{checkpoint.name}*"):  # a pre-training has one too
        left.unlink()
    return density


def interval(values: np.ndarray) -> list[float]:
    """Mean with a 95 % bootstrap interval over images."""
    found = bootstrap((values,), np.mean, n_resamples=1000, method="percentile", rng=SEED).confidence_interval
    return [float(values.mean()), float(found.low), float(found.high)]


def auroc_interval(area: float, n_in: int, n_out: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of an AUROC over images, by inverting Hanley and McNeil's variance, which holds near 1.

    Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2" (2006),
    method 5.
    """
    z, pairs = norm.ppf((1 + level) / 2), (n_in + n_out) / 2 - 1

    def distance(theta: float) -> float:
        spread = 1 + pairs * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(area - theta) - z * np.sqrt(max(theta * (1 - theta), 0) * spread / (n_in * n_out))

    low = 0.0 if distance(0.0) <= 0 else brentq(distance, 0, area) if area > 0 else 0.0
    high = 1.0 if distance(1.0) <= 0 else brentq(distance, area, 1) if area < 1 else 1.0
    return float(low), float(high)

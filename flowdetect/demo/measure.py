"""The demonstration's numbers: one fitted flow, two scores of it, and what small changes of an image do to them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator

from flowdetect._ctrl_c import whole_imports
from flowdetect.demo.sets import Sets
from flowdetect.density import GlowDensity
from flowdetect.detectors import BaseDetector, ComplexityDetector, LikelihoodDetector
from flowdetect.evaluation import OODReport, ood_report
from flowdetect.sit import AddNoise, Translate, ZeroLatents

if TYPE_CHECKING:
    import pandas as pd

LIKELIHOOD, CORRECTED = "likelihood", "corrected score"
N_SIT = 500  # images on which the shifts are measured
N_SAMPLES = 20


@dataclass(frozen=True)
class Settings:
    """What the flow is and how it is trained."""

    epochs: int
    steps: int
    hidden: int
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Shift:
    """What one semantic-invariant transformation does: images before and after, bits/dim of both, in the same order."""

    images: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


@dataclass(frozen=True)
class Measurements:
    """All that a demonstration found.

    Attributes
    ----------
    sets, settings : what was asked for
    density : GlowDensity, fitted
    detectors : dict of score name to fitted detector
    report : OODReport
    shifts : dict of transformation to Shift
    samples : images drawn from the density
    fit_seconds, seconds : float, of the fit and of everything
    """

    sets: Sets
    settings: Settings
    density: GlowDensity
    detectors: dict[str, BaseDetector]
    report: OODReport
    shifts: dict[str, Shift]
    samples: NDArray[Any]
    fit_seconds: float
    seconds: float

    def flagged(self) -> pd.DataFrame:
        """Share of each set's images that each detector's threshold calls outliers: sets down, detectors across."""
        with whole_imports():
            import pandas as pd

        columns = {
            name: {key: float(np.mean(scores < detector.offset_)) for key, scores in self.report.scores[name].items()}
            for name, detector in self.detectors.items()
        }
        return pd.DataFrame(columns)

    def shift_table(self) -> pd.DataFrame:
        """Mean bits/dim before and after each transformation, and the change."""
        with whole_imports():
            import pandas as pd

        rows = {name: (shift.before.mean(), shift.after.mean()) for name, shift in self.shifts.items()}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["before", "after"])
        return table.assign(change=table.after - table.before)

    def result(self, score: str, outside: str) -> dict[str, Any]:
        """Return the report's numbers of one score and outside set."""
        return next(r for r in self.report.results if (r["scorer"], r["out_set"]) == (score, outside))

    def aurocs(self) -> dict[str, tuple[float, float]]:
        """Each outside set's AUROC by the likelihood and by the corrected score."""
        scores = (LIKELIHOOD, CORRECTED)
        areas = {name: [self.result(score, name)["auroc"] for score in scores] for name in self.sets.outside}
        return {name: (likelihood, corrected) for name, (likelihood, corrected) in areas.items()}


def measure(sets: Sets, settings: Settings, verbose: int = 1) -> Measurements:
    """Fit the density, calibrate the detectors on held-out images, and score everything."""
    start = time.perf_counter()
    density = GlowDensity(
        n_bins=sets.n_bins,
        n_steps=settings.steps,
        hidden_channels=settings.hidden,
        max_epochs=settings.epochs,
        device=settings.device,
        random_state=settings.seed,
        verbose=verbose,
    ).fit(sets.train)
    fit_seconds = time.perf_counter() - start
    frozen = FrozenEstimator(density)  # both detectors ask the one fitted density
    detectors = {
        LIKELIHOOD: LikelihoodDetector(frozen).fit(sets.calibration),
        CORRECTED: ComplexityDetector(frozen, image_shape=density.image_shape_).fit(sets.calibration),
    }
    return Measurements(
        sets,
        settings,
        density,
        detectors,
        report=ood_report(detectors, sets.test, sets.outside, name=sets.name),
        shifts=_shifts(density, sets),
        samples=density.sample(N_SAMPLES, random_state=settings.seed),
        fit_seconds=fit_seconds,
        seconds=time.perf_counter() - start,
    )


def _shifts(density: GlowDensity, sets: Sets) -> dict[str, Shift]:
    X = sets.test[:N_SIT]
    transformers: dict[str, Any] = {
        "1 pixel left": Translate(dx=-1, n_bins=sets.n_bins),
        "2 pixels left": Translate(dx=-2, n_bins=sets.n_bins),
        "noise, \N{GREEK SMALL LETTER EPSILON} = 0.001": AddNoise(scale=0.001, n_bins=sets.n_bins, random_state=0),
        "first latent level zeroed": ZeroLatents(FrozenEstimator(density), n_factors=1),
    }
    before = density.bits_per_dim(X)
    shifts = {}
    for name, transformer in transformers.items():
        images = np.asarray(transformer.fit_transform(X), dtype=np.float64)
        shifts[name] = Shift(images, before, density.bits_per_dim(images))
    return shifts


def settings_in_words(found: Measurements) -> dict[str, str]:
    """Describe what was trained, on what, with which versions and for how long."""
    import platform

    import sklearn

    with whole_imports():
        import torch

    sets, density = found.sets, found.density
    return {
        "trained on": f"{len(sets.train)} images of {sets.name}, {'x'.join(map(str, sets.train.shape[1:]))}, "
        f"{sets.n_bins} values a pixel",
        "thresholds from": f"{len(sets.calibration)} images not trained on",
        "tested on": f"{len(sets.test)} images of the test split; "
        + ", ".join(f"{len(images)} {name}" for name, images in sets.outside.items()),
        "density": f"GlowDensity, {len(density.latent_slices_)} levels",
        "settings": ", ".join(f"{key} {value}" for key, value in asdict(found.settings).items()),
        "epochs trained": str(density.n_iter_),
        "device": f"{density.device_}, {torch.get_num_threads()} threads",
        "time": f"{found.fit_seconds:.0f} s to fit, {found.seconds:.0f} s in all",
        "versions": f"flowdetect {version('flowdetect-ood')}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, NumPy {np.__version__}",
    }

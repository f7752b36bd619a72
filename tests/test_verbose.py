"""verbose=1 into a file, as a job in the background writes it: lines that can be read, and few of them."""

import logging

import numpy as np
import pytest

from flowdetect import (
    EnsembleDensity,
    FlowOD,
    GlowDensity,
    LikelihoodDetector,
    LikelihoodRatioDetector,
    MAFDensity,
    OODDetector,
    PixelCNNDensity,
    RealNVPDensity,
    VAEDensity,
    WAICDetector,
    load_images,
)

X = np.random.default_rng(0).normal(size=(100, 3))
IMAGES = load_images("digits")[0][:60]
EPOCHS = 6
TINY = {"max_epochs": EPOCHS, "batch_size": 16, "early_stopping": False, "verbose": 1}


def maf():
    return MAFDensity(n_transforms=1, hidden_features=(4,), **TINY)


# name: what to fit, to what, and how many trainings of EPOCHS it makes
TALKING = {
    "Glow": (GlowDensity(n_steps=1, hidden_channels=4, **TINY), X, 1),
    "RealNVP, two stages": (
        RealNVPDensity(
            n_bins=17, n_levels=2, factorization="likelihood", n_steps=1, n_blocks=1, hidden_channels=4, **TINY
        ),
        IMAGES,
        1,  # the two share the epochs
    ),
    "MAF": (maf(), X, 1),
    "PixelCNN": (PixelCNNDensity(n_filters=4, n_blocks=1, **TINY), X, 1),
    "VAE": (VAEDensity(latent_dim=2, hidden_channels=4, **TINY), X, 1),
    "ensemble": (EnsembleDensity(maf(), n_members=2), X, 2),
    "detector": (LikelihoodDetector(maf()), X, 1),
    "ratio": (LikelihoodRatioDetector(maf()), X, 2),
    "WAIC": (WAICDetector(maf(), n_members=2), X, 2),
    "cross-conformal": (LikelihoodDetector(maf(), cv=2), X, 2),
    "recommended, around a density": (OODDetector(maf(), verbose=1), X, 1),
    "for pyod": (FlowOD(density=maf(), verbose=1), X, 1),
}


@pytest.mark.parametrize("name", TALKING)
def test_a_line_an_epoch(name, capfd):
    estimator, rows, n_trainings = TALKING[name]
    estimator.fit(rows)
    written = capfd.readouterr().err
    assert "\r" not in written
    lines = written.splitlines()
    assert sum("bits/dim" in line for line in lines) == n_trainings * EPOCHS
    assert len(lines) <= n_trainings * (EPOCHS + 5)
    assert max(map(len, lines)) <= 200


def test_the_recommended_detector_of_a_table_says_its_stages(capfd):
    OODDetector(verbose=1).fit(X)
    written = capfd.readouterr().err
    assert "\r" not in written
    assert 1 <= len(written.splitlines()) <= 5


def test_a_silent_fit_keeps_fabrics_hints_from_standard_error(monkeypatch):
    """Fabric has a hint on every CUDA device that it sets up."""
    from lightning_fabric.accelerators import CPUAccelerator
    from lightning_fabric.utilities.rank_zero import rank_zero_info, rank_zero_module

    heard = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append(record.msg)
    rank_zero_module.log.addHandler(listener)
    monkeypatch.setattr(CPUAccelerator, "setup_device", lambda self, device: rank_zero_info("a hint"))
    try:
        rank_zero_info("before")
        GlowDensity(n_steps=1, hidden_channels=4, max_epochs=1, device="cpu").fit(X)
        rank_zero_info("after")
    finally:
        rank_zero_module.log.removeHandler(listener)
    assert heard == ["before", "after"]

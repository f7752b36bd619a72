"""The smallest density of each paper, fitted in moments: for tests that ask all of them, but not how good they are."""

from functools import partial

import pytest
from detector_table import Asked

from flowdetect import (
    FlowPPDensity,
    GlowDensity,
    IAFDensity,
    MADEDensity,
    MAFDensity,
    NADEDensity,
    PixelCNNDensity,
    PixelRNNDensity,
    PixelVAEDensity,
    PlanarDensity,
    RadialDensity,
    RealNVPDensity,
    TarFlowDensity,
    VAEDensity,
)

SMALL = {"max_epochs": 1, "random_state": 0}
SMALLEST = {
    "GlowDensity": partial(GlowDensity, n_steps=1, hidden_channels=4, **SMALL),
    "FlowPPDensity": partial(
        FlowPPDensity, n_couplings=(1, 1, 1), hidden_channels=4, n_blocks=1, n_heads=1, n_mixtures=2, **SMALL
    ),
    "RealNVPDensity": partial(RealNVPDensity, n_steps=1, n_blocks=1, hidden_channels=4, **SMALL),
    "PixelCNNDensity": partial(PixelCNNDensity, n_filters=4, n_blocks=1, n_mixtures=2, **SMALL),
    "PixelRNNDensity": partial(PixelRNNDensity, n_filters=4, n_blocks=1, n_mixtures=2, **SMALL),
    "PixelVAEDensity": partial(PixelVAEDensity, latent_dim=2, hidden_channels=4, n_filters=4, n_mixtures=2, **SMALL),
    "PlanarDensity": partial(PlanarDensity, n_steps=2, **SMALL),
    "RadialDensity": partial(RadialDensity, n_steps=2, **SMALL),
    "MAFDensity": partial(MAFDensity, n_transforms=1, hidden_features=(4,), **SMALL),
    "TarFlowDensity": partial(TarFlowDensity, n_flows=1, n_layers=1, hidden_channels=4, n_heads=1, **SMALL),
    "IAFDensity": partial(IAFDensity, n_transforms=1, hidden_features=(4,), **SMALL),
    "MADEDensity": partial(MADEDensity, hidden_features=(4,), n_mixtures=2, **SMALL),
    "NADEDensity": partial(NADEDensity, n_hidden=4, n_mixtures=2, **SMALL),
    "VAEDensity": partial(VAEDensity, latent_dim=2, hidden_channels=4, **SMALL),
}
REACHED = "training was reached"


class Untrained(Asked):
    """A density that must not be trained."""

    def fit(self, X, y=None):
        pytest.fail(REACHED)

"""Warnings point at the line of the user, however many calls of ours and of scikit-learn's lie between."""

import warnings

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowdetect import LikelihoodDetector, OODDetector, RealNVPDensity

TIED = np.random.default_rng(0).integers(0, 3, (200, 3)).astype(float)
NORMAL = np.random.default_rng(0).normal(size=(500, 3))


def test_warnings_point_here():
    groups, fitted = NORMAL.copy(), GaussianMixture().fit(NORMAL)
    groups[:20] = 50 + 0.01 * groups[:20]
    density = RealNVPDensity(max_epochs=1)
    detector = LikelihoodDetector(fitted, prefit=True).fit(NORMAL)
    for act in (
        lambda: density.fit(TIED),
        lambda: make_pipeline(StandardScaler(), density).fit(TIED),
        lambda: LikelihoodDetector(fitted).fit(NORMAL),
        lambda: OODDetector().fit(groups),
        lambda: detector.score_samples(1e4 * NORMAL),
        lambda: detector.select(NORMAL, fdr=0.01),
    ):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            act()
        assert [warning.filename for warning in heard] == [__file__] * max(1, len(heard))

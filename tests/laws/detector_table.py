"""The detectors that the laws are checked on: name -> constructor taking a density of (n, 4) rows.

A new detector is one line; a class that is in no line fails the completeness test.
"""

from functools import partial

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.utils import Bunch

from flowdetect.detectors import (
    ComplexityDetector,
    DoSEDetector,
    FisherDetector,
    GradientNormDetector,
    LikelihoodDetector,
    LikelihoodRatioDetector,
    LikelihoodRegretDetector,
    LPathDetector,
    OODDetector,
    ScaleDetector,
    TransformDetector,
    TypicalityDetector,
    WAICDetector,
)

DETECTORS = {
    "LikelihoodDetector": LikelihoodDetector,
    "ComplexityDetector, tables": ComplexityDetector,
    "ComplexityDetector, mixture": partial(ComplexityDetector, kind="mixture"),
    "ComplexityDetector, images": partial(ComplexityDetector, image_shape=(2, 2)),
    "DoSEDetector": DoSEDetector,
    "DoSEDetector, svm": partial(DoSEDetector, kind="svm"),
    "FisherDetector": FisherDetector,
    "LikelihoodRatioDetector": LikelihoodRatioDetector,
    "OODDetector, tables": OODDetector,
    "OODDetector, images": partial(OODDetector, image_shape=(2, 2)),
    "TransformDetector, images": partial(TransformDetector, image_shape=(2, 2)),
    "TransformDetector, tables": partial(TransformDetector, transforms="shaking"),
    "TypicalityDetector": TypicalityDetector,
}

# those that ask the density for more than a likelihood; their laws are looked at beside their own tests
ASK_FOR_MORE = {
    "GradientNormDetector": GradientNormDetector,
    "LPathDetector": LPathDetector,
    "LPathDetector, kde": partial(LPathDetector, kind="kde"),
    "LikelihoodRegretDetector": LikelihoodRegretDetector,
    "ScaleDetector": ScaleDetector,
    "WAICDetector": WAICDetector,
}


class Asked(GaussianMixture):
    """A mixture, of rows (n, 4), that also has what the scores of ASK_FOR_MORE ask for."""

    def likelihood_terms(self, X):
        levels = np.asarray(X, dtype=float)[:, :2]
        return Bunch(log_pz=self.score_samples(X), log_pz_levels=levels, log_det_levels=levels**3)

    def layer_gradient_norms(self, X):
        return np.exp(np.asarray(X, dtype=float))

    def likelihood_regret(self, X, *, n_steps, learning_rate):
        return np.abs(np.asarray(X, dtype=float)).max(axis=1) * learning_rate * n_steps

    def likelihood_path(self, X):
        error, norm, scale = np.asarray(X, dtype=float).T[:3]
        return Bunch(reconstruction_error=error, latent_norm=norm, latent_scale=scale)

"""Detectors: out-of-distribution scores computed from a density, with a threshold and p-values.

Every detector takes a density, fitted or not: one of flowdetect, or any estimator with `score_samples`.
"""

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    from flowdetect.detectors.base import BaseDetector
    from flowdetect.detectors.complexity import ComplexityDetector
    from flowdetect.detectors.fisher import FisherDetector
    from flowdetect.detectors.gradients import GradientNormDetector
    from flowdetect.detectors.likelihood import LikelihoodDetector
    from flowdetect.detectors.lpath import LPathDetector
    from flowdetect.detectors.original_columns import explain
    from flowdetect.detectors.ratio import LikelihoodRatioDetector
    from flowdetect.detectors.recommended import OODDetector
    from flowdetect.detectors.regret import LikelihoodRegretDetector
    from flowdetect.detectors.terms import DoSEDetector, ScaleDetector
    from flowdetect.detectors.transform import TransformDetector
    from flowdetect.detectors.typicality import TypicalityDetector
    from flowdetect.detectors.waic import WAICDetector

__all__ = [
    "BaseDetector",
    "ComplexityDetector",
    "DoSEDetector",
    "FisherDetector",
    "GradientNormDetector",
    "LPathDetector",
    "LikelihoodDetector",
    "LikelihoodRatioDetector",
    "LikelihoodRegretDetector",
    "OODDetector",
    "ScaleDetector",
    "TransformDetector",
    "TypicalityDetector",
    "WAICDetector",
    "explain",
]

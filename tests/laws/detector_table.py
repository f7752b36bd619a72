"""The detectors that the laws are checked on: name -> constructor taking a density of (n, 4) rows.

A new detector is one line; a class that is in no line fails the completeness test.
"""

from functools import partial

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

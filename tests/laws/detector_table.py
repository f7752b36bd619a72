"""The detectors that the laws are checked on: name -> constructor taking a density of (n, 4) rows.

A new detector is one line; a class that is in no line fails the completeness test.
"""

from functools import partial

from flowdetect.detectors import ComplexityDetector, LikelihoodDetector

DETECTORS = {
    "LikelihoodDetector": LikelihoodDetector,
    "ComplexityDetector, tables": ComplexityDetector,
    "ComplexityDetector, images": partial(ComplexityDetector, image_shape=(2, 2)),
}

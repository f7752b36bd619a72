"""flowdetect: likelihood models as scikit-learn estimators, and out-of-distribution detectors built on them.

A density gives scores in nats; a detector turns what the density says into a verdict; a semantic-invariant
transformation shows whether that verdict follows meaning or pixels.

The public names below are loaded on first use, so that importing the package stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdetect.datasets import load_images
    from flowdetect.density import GlowDensity, PixelCNNDensity, RealNVPDensity, load
    from flowdetect.detectors import ComplexityDetector, LikelihoodDetector
    from flowdetect.evaluation import ood_report
    from flowdetect.sit import AddNoise, Translate, ZeroLatents

__version__ = "0.1.0"

__all__ = [
    "AddNoise",
    "ComplexityDetector",
    "GlowDensity",
    "LikelihoodDetector",
    "PixelCNNDensity",
    "RealNVPDensity",
    "Translate",
    "ZeroLatents",
    "__version__",
    "load",
    "load_images",
    "ood_report",
]

_HOMES = {
    "AddNoise": "sit",
    "ComplexityDetector": "detectors",
    "GlowDensity": "density",
    "LikelihoodDetector": "detectors",
    "PixelCNNDensity": "density",
    "RealNVPDensity": "density",
    "Translate": "sit",
    "ZeroLatents": "sit",
    "load": "density",
    "load_images": "datasets",
    "ood_report": "evaluation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)

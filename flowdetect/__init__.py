"""flowdetect: likelihood models as scikit-learn estimators, and out-of-distribution detectors built on them.

A density computes log-likelihoods in nats. A detector turns them into outlier scores, p-values and labels. A
semantic-invariant transformation (SIT) tests whether a score depends on meaning or on pixels.

The public names below are loaded on first use, so that importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowdetect._ctrl_c import whole_imports
from flowdetect._homes import HOMES

if TYPE_CHECKING:
    from flowdetect.datasets import constant_images, load_folder, load_images, load_parquet, random_images
    from flowdetect.density import (
        EnsembleDensity,
        FlowPPDensity,
        GlowDensity,
        IAFDensity,
        MADEDensity,
        MAFDensity,
        NADEDensity,
        NeighborsDensity,
        PixelCNNDensity,
        PixelRNNDensity,
        PixelVAEDensity,
        PlanarDensity,
        RadialDensity,
        RealNVPDensity,
        TarFlowDensity,
        VAEDensity,
        load,
    )
    from flowdetect.density.callbacks import BitsPerDimMonitor
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
        explain,
    )
    from flowdetect.detectors.pyod import FlowOD, PyODDetector, to_pyod
    from flowdetect.evaluation import combine, ood_report, second_order_gap, sit_report
    from flowdetect.scorer import Scorer
    from flowdetect.sit import AddNoise, Contrast, Flip, Gray, Rotate90, Translate, ZeroLatents

__version__ = "0.2.0"

__all__ = [
    "AddNoise",
    "BitsPerDimMonitor",
    "ComplexityDetector",
    "Contrast",
    "DoSEDetector",
    "EnsembleDensity",
    "FisherDetector",
    "Flip",
    "FlowOD",
    "FlowPPDensity",
    "GlowDensity",
    "GradientNormDetector",
    "Gray",
    "IAFDensity",
    "LPathDetector",
    "LikelihoodDetector",
    "LikelihoodRatioDetector",
    "LikelihoodRegretDetector",
    "MADEDensity",
    "MAFDensity",
    "NADEDensity",
    "NeighborsDensity",
    "OODDetector",
    "PixelCNNDensity",
    "PixelRNNDensity",
    "PixelVAEDensity",
    "PlanarDensity",
    "PyODDetector",
    "RadialDensity",
    "RealNVPDensity",
    "Rotate90",
    "ScaleDetector",
    "Scorer",
    "TarFlowDensity",
    "TransformDetector",
    "Translate",
    "TypicalityDetector",
    "VAEDensity",
    "WAICDetector",
    "ZeroLatents",
    "__version__",
    "combine",
    "constant_images",
    "explain",
    "load",
    "load_folder",
    "load_images",
    "load_parquet",
    "ood_report",
    "random_images",
    "second_order_gap",
    "sit_report",
    "to_pyod",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with whole_imports():
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)

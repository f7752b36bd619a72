"""Where each public name lives: the one table behind `flowdetect.<name>` and behind the classes that files may name."""

HOMES = {
    "AddNoise": "sit",
    "ComplexityDetector": "detectors",
    "Contrast": "sit",
    "DoSEDetector": "detectors",
    "EnsembleDensity": "density",
    "FisherDetector": "detectors",
    "Flip": "sit",
    "FlowOD": "detectors.pyod",
    "GlowDensity": "density",
    "GradientNormDetector": "detectors",
    "Gray": "sit",
    "IAFDensity": "density",
    "LPathDetector": "detectors",
    "LikelihoodDetector": "detectors",
    "LikelihoodRatioDetector": "detectors",
    "LikelihoodRegretDetector": "detectors",
    "MADEDensity": "density",
    "MAFDensity": "density",
    "NADEDensity": "density",
    "NeighborsDensity": "density",
    "OODDetector": "detectors",
    "PixelCNNDensity": "density",
    "PyODDetector": "detectors.pyod",
    "RealNVPDensity": "density",
    "Rotate90": "sit",
    "ScaleDetector": "detectors",
    "TransformDetector": "detectors",
    "Translate": "sit",
    "TypicalityDetector": "detectors",
    "VAEDensity": "density",
    "WAICDetector": "detectors",
    "ZeroLatents": "sit",
    "combine": "evaluation",
    "constant_images": "datasets",
    "load": "density",
    "load_images": "datasets",
    "ood_report": "evaluation",
    "random_images": "datasets",
    "second_order_gap": "evaluation",
    "sit_report": "evaluation",
    "to_pyod": "detectors.pyod",
}

# classes that files do not keep: what they wrap runs code of its own
NOT_IN_FILES = {"FlowOD", "PyODDetector"}

# class -> module: whatever may stand in a file by name
IN_FILES = {
    "ImageStatistics": "flowdetect.detectors.image_statistics",
    "Members": "flowdetect._members",
    "PrincipalNeighbors": "flowdetect.detectors.image_statistics",
    **{name: f"flowdetect.{home}" for name, home in HOMES.items() if name[0].isupper() and name not in NOT_IN_FILES},
}

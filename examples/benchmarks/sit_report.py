"""What `sit_report` costs beside the bare scoring calls that it needs: 6 SITs, 3 scorers.

    FLOWDETECT_DATA=folder python examples/benchmarks/sit_report.py [--quick] [--images 10000]

Glow with affine and with additive couplings, of the default size, and a detector on the first; the test images of
Fashion-MNIST with their labels, those of MNIST as the outside set. The models are trained for a few steps only: speed
does not depend on their weights. The report transforms the images, scores them, and draws 1,000 bootstrap resamples for
every scorer, SIT and class; the bare calls score images transformed beforehand. One after the other, each once.
"""

from __future__ import annotations

import argparse
import time

from sklearn.frozen import FrozenEstimator

from flowdetect import AddNoise, Flip, GlowDensity, Gray, LikelihoodDetector, Translate, load_images, sit_report


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 images, tiny networks")
    parser.add_argument("--images", type=int, default=10_000)
    args = parser.parse_args()
    n, size = (500, {"n_steps": 1, "hidden_channels": 8}) if args.quick else (args.images, {})
    X_train = load_images("fashion_mnist")[0][:640]
    (X, y), X_out = load_images("fashion_mnist", "test"), load_images("mnist", "test")[0][:n]
    X, y = X[:n], y[:n]
    glows = [GlowDensity(coupling=kind, max_epochs=1, random_state=0, **size) for kind in ("affine", "additive")]
    scorers = {glow.coupling: glow.fit(X_train) for glow in glows}
    scorers["detector"] = LikelihoodDetector(FrozenEstimator(glows[0])).fit(X_train)
    sits = {
        "1 pixel left": Translate(dx=-1),
        "2 pixels left": Translate(dx=-2),
        "noise": AddNoise(random_state=0),
        "noise, background": AddNoise(background_below=0.3, random_state=0),
        "grey": Gray(),
        "mirrored": Flip(),
    }
    sets = [X, *(sit.fit_transform(X) for sit in sits.values()), X_out]
    started = time.perf_counter()
    for scorer in scorers.values():
        for images in sets:
            scorer.score_samples(images)
    bare = time.perf_counter() - started
    started = time.perf_counter()
    report = sit_report(scorers, X, sits, y, X_out)
    whole = time.perf_counter() - started
    print(f"bare calls {bare:.1f} s, report of {len(report.to_frame())} rows {whole:.1f} s, ratio {whole / bare:.3f}")


if __name__ == "__main__":
    main()

"""Does the package work with the libraries that are installed? Each density is fitted for an epoch, and some detectors.

    python tests/smoke.py

`make test-oldest` runs it with the least versions that pyproject.toml allows. It needs nothing but what the package
needs to run, so no test runner.
"""

import os
import sys
import tempfile
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

import flowdetect
from flowdetect.demo import Settings, load_sets, measure, write_report

X = np.random.default_rng(0).normal(size=(60, 3))
IMAGES = flowdetect.load_images("digits")[0][:60]
LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "lightning-fabric", "pandas", "pyod", "skops", "safetensors")
OF_ANOTHER = {"EnsembleDensity": lambda: flowdetect.EnsembleDensity(flowdetect.MAFDensity(max_epochs=1), n_members=2)}


def life(estimator, rows):
    """Fit, score, save and load."""
    scores = estimator.fit(rows).score_samples(rows)
    assert np.isfinite(scores).all()
    path = os.path.join(tempfile.mkdtemp(), "saved")
    estimator.save(path)
    np.testing.assert_array_equal(flowdetect.load(path).score_samples(rows), scores)


def density(name):
    """Fit one to a table, and to images where it takes them."""
    if name in OF_ANOTHER:
        return life(OF_ANOTHER[name](), X)
    make = getattr(flowdetect, name)
    if name == "NeighborsDensity":
        return life(make(), X)
    life(make(max_epochs=1, verbose=1), X)
    return life(make(max_epochs=1, n_bins=17), IMAGES)


def outliers():
    """Fit the recommended detector to a table, and one that asks codecs to images."""
    life(flowdetect.OODDetector(), X)
    life(flowdetect.ComplexityDetector(flowdetect.RealNVPDensity(n_bins=17, max_epochs=1)), IMAGES)
    labels = flowdetect.OODDetector(random_state=0).fit(X).predict([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    assert labels.tolist() == [1, -1]


def pyod():
    """Go both ways between our detectors and pyod's."""
    from pyod.models.iforest import IForest

    flowdetect.PyODDetector(IForest()).fit(X).predict(X)
    flowdetect.FlowOD().fit(X).predict(X)


def tables():
    """Find outliers in a frame with categories, dates and gaps, by the extra `tables`."""
    import pandas as pd
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from skrub import TableVectorizer

    frame = pd.DataFrame(X, columns=["a", "b", "c"]).mask(X > 2)
    frame["city"] = np.array(["Lima", "Oslo"])[np.arange(60) % 2]
    frame["since"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(60), unit="D")
    pipeline = make_pipeline(TableVectorizer(), SimpleImputer(), flowdetect.OODDetector()).fit(frame)
    assert flowdetect.explain(pipeline, frame[:2], frame).columns == list(frame.columns)


def polars():
    """Take a frame of polars, and give one."""
    import polars

    frame = polars.DataFrame(X, schema=["a", "b", "c"])
    flow = flowdetect.MAFDensity(max_epochs=1).set_output(transform="polars").fit(frame)
    assert isinstance(flow.transform(frame), polars.DataFrame)
    flowdetect.OODDetector().fit(frame).explain(frame[:2])


def arrow():
    """Take columns of pyarrow's dtypes."""
    import pandas as pd

    frame = pd.DataFrame(X, columns=["a", "b", "c"]).astype("float64[pyarrow]")
    flowdetect.OODDetector().fit(frame).predict(frame)


def callbacks():
    """Record a training by scikit-learn's callbacks."""
    monitor = flowdetect.BitsPerDimMonitor()
    flowdetect.MAFDensity(max_epochs=2).set_callbacks(monitor).fit(X)
    assert len(monitor.get_logs().data) == 2


def demonstration():
    """Measure and write a report: pictures and tables."""
    found = measure(load_sets("digits", ["halved"], 100), Settings(epochs=1, steps=1, hidden=8))
    write_report(found, Path(tempfile.mkdtemp()), "smoke")


def main():
    """Run all; say what failed."""
    warnings.simplefilter("ignore")
    print(f"Python {sys.version.split()[0]};", ", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    jobs = {name: lambda name=name: density(name) for name in flowdetect.__all__ if name.endswith("Density")}
    jobs |= {"detectors": outliers, "pyod": pyod, "demonstration": demonstration, "callbacks": callbacks}
    jobs |= {"tables": tables, "polars": polars, "arrow": arrow}
    failed = []
    for name, job in jobs.items():
        try:
            job()
            print(name)
        except Exception:
            failed.append(name)
            print(name, "FAILED", traceback.format_exc(), sep="\n")
    print(f"{len(jobs) - len(failed)} passed, {len(failed)} failed")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())

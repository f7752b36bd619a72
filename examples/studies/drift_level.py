"""How often `test_batch` calls a batch drifted that is not, and how often p-values of such rows are at most 5 %.

Training rows and batches are drawn from one normal distribution. Each training set is asked about five batches of 200
rows. The standard error is over training sets.

    OMP_NUM_THREADS=1 python examples/studies/drift_level.py
"""

import argparse

import numpy as np
from sklearn.mixture import GaussianMixture

from flowdetect import LikelihoodDetector, OODDetector

LEVEL, BATCH, N_BATCHES = 0.05, 200, 5


def detectors():
    """Give the detectors by name."""
    return {
        "OODDetector": OODDetector(random_state=0),
        "held out": LikelihoodDetector(GaussianMixture(random_state=0), calibration_fraction=0.5, random_state=0),
        "cv=5": LikelihoodDetector(GaussianMixture(random_state=0), cv=5, random_state=0),
    }


def rates(detector, n_rows, n_columns, random):
    """Shares of drifted batches and of rows with small p-values, of one training set."""
    detector.fit(random.normal(size=(n_rows, n_columns)))
    batches = [random.normal(size=(BATCH, n_columns)) for _ in range(N_BATCHES)]
    drifted = [detector.test_batch(each, alpha=LEVEL, n_bootstrap=199, random_state=0).drifted for each in batches]
    small = detector.p_values(np.concatenate(batches)) <= LEVEL
    return np.mean(drifted), small.mean()


def main():
    """Print the rates of each detector and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200, help="training sets of each size")
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 500, 2000])
    parser.add_argument("--columns", type=int, nargs="+", default=[2, 10])
    arguments = parser.parse_args()
    print(f"level {LEVEL}, batches of {BATCH} rows, {arguments.sets} training sets; +- one standard error")
    for n_columns in arguments.columns:
        for n_rows in arguments.rows:
            for name, detector in detectors().items():
                random = np.random.default_rng(0)
                found = np.array([rates(detector, n_rows, n_columns, random) for _ in range(arguments.sets)])
                error = found.std(axis=0) / np.sqrt(len(found))
                print(
                    f"{n_columns:3} columns {n_rows:5} rows  {name:12}  "
                    f"drifted {found[:, 0].mean():.3f} +- {error[0]:.3f}  "
                    f"p <= {LEVEL}: {found[:, 1].mean():.4f} +- {error[1]:.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

"""Ensembles and searches on joblib's backends; a worker that is killed loses nothing, and the result is the same."""

import os
from pathlib import Path

import joblib
import numpy as np
import pytest
from dying import DyingDensity
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.model_selection import GridSearchCV

from flowdetect import EnsembleDensity, LikelihoodDetector

SMALL = {"hidden_channels": 8, "n_steps": 2, "max_epochs": 5, "random_state": 0}


def on_dask(request):
    request.getfixturevalue("dask_client")
    return "dask", {}


def on_ray(request):
    request.getfixturevalue("ray_cluster")
    from ray.util.joblib import register_ray

    register_ray()
    # without these, an actor that was killed takes the whole call with it
    return "ray", {"n_jobs": 2, "ray_remote_args": {"max_restarts": -1, "max_task_retries": -1}}


def on_spark(request):
    request.getfixturevalue("spark")
    register_spark = pytest.importorskip("joblibspark").register_spark
    register_spark()
    return "spark", {"n_jobs": 2}


def on_loky(request):
    return "loky", {"n_jobs": 2}


@pytest.fixture(scope="module", params=[on_dask, on_ray, on_spark, on_loky], ids=lambda engine: engine.__name__)
def engine(request):
    return request.param(request)


def fit(estimator, X, engine):
    """Fit with workers, one of which is killed."""
    backend, options = engine
    if backend == "dask":  # to all workers: data that one of them alone has would be lost with it
        options = {"scatter": [X]}
    with joblib.parallel_config(backend, **options):
        if backend == "loky":  # it starts no other worker; what was trained is in the folder
            with pytest.raises(TerminatedWorkerError):
                estimator.fit(X)
        estimator.fit(X)
    return estimator


def folder(path, *, died):
    path.mkdir()
    if died:
        (path / "died").touch()
    return f"{path}{os.sep}"


def ensemble(path):
    return EnsembleDensity(DyingDensity(checkpoint=path, **SMALL), 3, random_state=0)


def search(path):
    return GridSearchCV(DyingDensity(checkpoint=path, **SMALL), {"learning_rate": [1e-3, 3e-3]}, cv=2)


def search_of_detectors(path):
    detector = LikelihoodDetector(DyingDensity(checkpoint=path, **SMALL), random_state=0)
    return GridSearchCV(detector, {"density__hidden_channels": [4, 8]}, cv=2)


@pytest.mark.parametrize("make", [ensemble, search, search_of_detectors], ids=lambda make: make.__name__)
def test_a_killed_worker_loses_nothing(make, engine, table, tmp_path):
    X = table[["a", "b", "c"]].to_numpy()[:200]
    serial = make(folder(tmp_path / "serial", died=True)).fit(X)
    spread = fit(make(folder(tmp_path / "spread", died=False)), X, engine)
    assert Path(tmp_path / "spread" / "died").exists()
    np.testing.assert_array_equal(spread.score_samples(X), serial.score_samples(X))
    for name in ("mean_test_score", "std_test_score"):
        if hasattr(spread, "cv_results_"):
            np.testing.assert_array_equal(spread.cv_results_[name], serial.cv_results_[name])
    if make is ensemble:
        np.testing.assert_array_equal(spread.member_scores(X), serial.member_scores(X))

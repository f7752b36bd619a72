"""A table, a model of it and its scores in one process; engines' workers find our modules by PYTHONPATH."""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flowdetect import OODDetector

ROOT = Path(__file__).parents[2]
N_ROWS = 1000
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of float32 gradients, which depend on it
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"


def pytest_itemcollected(item):
    item.add_marker(pytest.mark.filterwarnings("default"))  # engines warn of much that is theirs


@pytest.fixture(scope="session")
def table():
    X = np.random.default_rng(0).normal(size=(N_ROWS, 3))
    X[::50] *= 20
    return pd.DataFrame(X, columns=["a", "b", "c"]).assign(key=np.arange(N_ROWS))


@pytest.fixture(scope="session")
def path(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "detector.safetensors"
    OODDetector(random_state=0).fit(table[["a", "b", "c"]][:300]).save(path)
    return path


@pytest.fixture(scope="session")
def compare(table, path):
    """Hold answers, in any order of the rows, against those of one process."""
    from flowdetect import load

    verdicts = load(path).verdicts(table[["a", "b", "c"]])

    def compare(answers, marker):
        assert marker.exists()  # a worker was killed
        answers = pd.DataFrame(answers).sort_values("key")
        np.testing.assert_array_equal(answers["key"], table["key"])
        for name, values in verdicts.items():
            np.testing.assert_array_equal(answers[name].to_numpy(values.dtype), values)

    return compare


# ---- local clusters of two workers


@pytest.fixture(scope="session")
def ray_cluster():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def spark():
    sql = pytest.importorskip("pyspark.sql")
    settings = {"spark.ui.enabled": "false", "spark.sql.execution.arrow.maxRecordsPerBatch": "100"}
    # of a master such as local[2], a task that fails once fails for good; of local[2, 4], after four times
    session = sql.SparkSession.builder.master("local[2, 4]").config(map=settings).getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def dask_client():
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        yield client

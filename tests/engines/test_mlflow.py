"""The recipe of docs/how_to/mlflow.rst against stores on disk: no pickle is written, and bad rows are refused."""

import os
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from flowdetect import OODDetector

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "mlflow.rst"


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """The uri of a logged model, the detector, its rows and the folder of the store."""
    folder, environment = tmp_path_factory.mktemp("mlflow"), dict(os.environ)
    code = re.search(r"<<'END'\n(.*?)\n   END", PAGE.read_text(), re.DOTALL)[1]
    (folder / "flowdetect_model.py").write_text(re.sub(r"^   ", "", code, flags=re.MULTILINE))
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), columns=["height", "weight"])
    detector = OODDetector(random_state=0).fit(X)
    detector.save(folder / "model.fd")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("detectors", artifact_location=str(folder / "kept")))
    info = mlflow.pyfunc.log_model(
        name="detector",
        python_model=str(folder / "flowdetect_model.py"),
        artifacts={"model": str(folder / "model.fd")},
        pip_requirements=["flowdetect-ood"],
    )
    yield info.model_uri, detector, X, folder
    os.environ.clear()  # MLflow leaves its experiment there, which the how-to's page would look for
    os.environ.update(environment)


def test_a_loaded_model_gives_our_verdicts(logged):
    uri, detector, X, _ = logged
    found = mlflow.pyfunc.load_model(uri).predict(X[["weight", "height"]])
    assert found["score"].tolist() == detector.score_samples(X).tolist()
    assert found["p_value"].tolist() == detector.p_values(X).tolist()
    assert found["label"].tolist() == detector.predict(X).tolist()


def test_no_pickle_is_kept(logged):
    files = [path for path in (logged[3] / "kept").rglob("*") if path.is_file()]
    assert {"model.fd", "flowdetect_model.py"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".joblib")]
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80"]  # how pickles of today begin


def test_what_the_model_refuses_is_refused(logged):
    model = mlflow.pyfunc.load_model(logged[0])
    with pytest.raises(Exception, match="NaN"):
        model.predict(logged[2].mask(logged[2] > 0))
    with pytest.raises(Exception, match="lacks 'weight'"):
        model.predict(logged[2][["height"]])

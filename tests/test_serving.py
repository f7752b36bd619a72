"""The service of examples/serving: right answers, and for bad input a status that says so with our message."""

import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.mixture import GaussianMixture

from flowdetect import LikelihoodDetector, NeighborsDensity

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")  # of which fastapi makes its client
from fastapi.testclient import TestClient  # noqa: E402

APP = Path(__file__).parents[1] / "examples" / "serving" / "app.py"
X = np.random.default_rng(0).normal(size=(100, 2))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The module, and a client by the kind of its model."""
    folder, module = tmp_path_factory.mktemp("models"), runpy.run_path(str(APP))
    models = {
        "rows": LikelihoodDetector(GaussianMixture(random_state=0), random_state=0).fit(X),
        "names": LikelihoodDetector(GaussianMixture(random_state=0), random_state=0).fit(
            pd.DataFrame(X, columns=["a", "b"])
        ),
        "density": NeighborsDensity().fit(X),
    }
    clients = {}
    for name, model in models.items():
        model.save(folder / name)
        clients[name] = TestClient(module["make_app"](folder / name))
    return module, clients, models


def test_a_row_gets_the_answers_of_the_model(served):
    _, clients, models = served
    found = clients["rows"].post("/score", json={"rows": X[:5].tolist()}).json()
    assert found["score"] == models["rows"].score_samples(X[:5]).tolist()
    assert found["p_value"] == models["rows"].p_values(X[:5]).tolist()
    assert found["label"] == models["rows"].predict(X[:5]).tolist()
    by_name = clients["names"].post("/score", json={"columns": {"b": X[:5, 1].tolist(), "a": X[:5, 0].tolist()}}).json()
    np.testing.assert_allclose(by_name["score"], found["score"], rtol=1e-12)
    assert by_name["label"] == found["label"]
    assert clients["density"].post("/score", json={"rows": X[:2].tolist()}).json().keys() == {"score"}


def test_health_says_what_is_answered(served):
    _, clients, _ = served
    assert clients["rows"].get("/health").json() == {"outputs": ["score", "p_value", "label"]}
    assert clients["density"].get("/health").json() == {"outputs": ["score"]}


BAD = {
    "NaN": ('{"rows": [[1.0, NaN]]}', "NaN"),
    "a missing value": ('{"rows": [[1.0, null]]}', "NaN"),
    "infinity": ('{"rows": [[1.0, 1e999]]}', "infinity"),
    "too wide": ('{"rows": [[1.0, 2.0, 3.0]]}', "features"),
    "text": ('{"rows": [[1.0, "tall"]]}', "tall"),
    "ragged": ('{"rows": [[1.0, 2.0], [1.0]]}', "as many in each row"),
    "one row, not a list of rows": ('{"rows": [1.0, 2.0]}', "shape (2,)"),
    "no row": ('{"rows": []}', "1 to 10,000 rows"),
    "nothing": ("", "must be JSON"),
    "no JSON": ("rows", "must be JSON"),
    "a list": ("[[1.0, 2.0]]", "must be JSON"),
    "another key": ('{"X": [[1.0, 2.0]]}', "must be JSON"),
    "too many rows": (json.dumps({"rows": [[0, 0]] * 10_001}), "1 to 10,000 rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_422_and_says_why(served, name):
    body, told = BAD[name]
    answer = served[1]["rows"].post("/score", content=body)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


def test_a_column_that_is_missing_is_named(served):
    answer = served[1]["names"].post("/score", json={"columns": {"a": [1.0], "c": [1.0]}})
    assert answer.status_code == 422
    assert "lacks 'b'" in answer.json()["detail"]


def test_a_body_that_is_too_large_is_not_read(served):
    answer = served[1]["rows"].post("/score", content=b" " * (served[0]["MOST_BYTES"] + 1))
    assert answer.status_code == 413
    assert "fewer rows" in answer.json()["detail"]


def test_after_bad_input_the_service_answers_on(served):
    client = served[1]["rows"]
    client.post("/score", content="rows")
    assert client.post("/score", json={"rows": [[0.0, 0.0]]}).status_code == 200

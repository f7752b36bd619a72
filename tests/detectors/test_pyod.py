"""Both directions between pyod and us; the first part asserts what pyod's own tests assert of each of its detectors."""

import json
import pickle
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal, assert_array_less
from pyod.models.base import BaseDetector as PyODBase
from pyod.models.hbos import HBOS
from pyod.models.knn import KNN
from pyod.utils.ad_engine import ADEngine
from pyod.utils.data import generate_data
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowdetect import (
    FlowOD,
    LikelihoodDetector,
    OODDetector,
    PyODDetector,
    RealNVPDensity,
    TypicalityDetector,
    load,
    to_pyod,
)
from flowdetect.detectors.pyod import PyODAdapter, write_knowledge
from flowdetect.testing import check_detector

pytestmark = [
    pytest.mark.filterwarnings("ignore:Function fit_predict:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The cost of rejection must be positive:UserWarning"),
]
X_TRAIN, X_TEST, Y_TRAIN, Y_TEST = generate_data(
    n_train=200, n_test=100, contamination=0.1, behaviour="new", random_state=42
)


class QuickFlowOD(FlowOD):
    """FlowOD with a density that is trained quickly."""

    def _made(self):
        density = RealNVPDensity(n_blocks=1, hidden_channels=8, max_epochs=10)
        return super()._made().set_params(density=density)


MODELS = {
    "FlowOD": QuickFlowOD(random_state=0),
    "likelihood": to_pyod(LikelihoodDetector(GaussianMixture(), random_state=0)),
    "typicality": to_pyod(TypicalityDetector(GaussianMixture(), contamination=0.2, random_state=0)),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return clone(MODELS[request.param]).fit(X_TRAIN)


def test_fitted_attributes(model):
    for name in ("decision_scores_", "labels_", "threshold_", "_mu", "_sigma"):
        assert getattr(model, name) is not None
    assert_allclose(model.decision_function(X_TRAIN), model.decision_scores_)
    assert len(model.decision_scores_) == len(X_TRAIN)
    assert model.decision_function(X_TEST).shape == (len(X_TEST),)


@pytest.mark.parametrize("model", [FlowOD(random_state=0), MODELS["likelihood"]], ids=["FlowOD", "likelihood"])
def test_it_finds_outliers(model):
    model = clone(model).fit(X_TRAIN)
    assert roc_auc_score(Y_TEST, model.decision_function(X_TEST)) >= 0.8


def test_labels_and_probabilities(model):
    labels = model.predict(X_TEST)
    assert labels.shape == Y_TEST.shape
    assert set(labels) <= {0, 1}
    for options in ({}, {"method": "linear"}, {"method": "unify"}):
        p = model.predict_proba(X_TEST, **options)
        assert p.min() >= 0
        assert p.max() <= 1
        p, confidence = model.predict_proba(X_TEST, return_confidence=True, **options)
        assert confidence.shape == (len(X_TEST),)
        assert confidence.min() >= 0
        assert confidence.max() <= 1
    with pytest.raises(ValueError, match="conversion"):
        model.predict_proba(X_TEST, method="something")


def test_confidence_and_rejection(model):
    labels, confidence = model.predict(X_TEST, return_confidence=True)
    assert labels.shape == confidence.shape == Y_TEST.shape
    assert confidence.min() >= 0
    assert confidence.max() <= 1
    labels = model.predict_with_rejection(X_TEST, return_stats=False)
    assert labels.shape == Y_TEST.shape
    assert set(labels) <= {-2, 0, 1}
    _, (rate, upper_rate, upper_cost) = model.predict_with_rejection(X_TEST, return_stats=True)
    for share in (rate, upper_rate):
        assert 0 <= share <= 1
    assert upper_cost >= 0


def test_fit_predict(model):
    again = clone(model)
    assert_array_equal(again.fit_predict(X_TRAIN), model.labels_)
    for scoring in ("roc_auc_score", "prc_n_score"):
        assert 0 <= again.fit_predict_score(X_TEST, Y_TEST, scoring=scoring) <= 1
    with pytest.raises(NotImplementedError):
        again.fit_predict_score(X_TEST, Y_TEST, scoring="something")


def test_ranks(model):
    scores, ranks = model.decision_function(X_TEST), model._predict_rank(X_TEST)
    assert_allclose(rankdata(ranks), rankdata(scores), atol=3)
    assert_array_less(ranks, X_TRAIN.shape[0] + 1)
    assert_array_less(-0.1, ranks)
    ranks = model._predict_rank(X_TEST, normalized=True)
    assert_allclose(rankdata(ranks), rankdata(scores), atol=3)
    assert_array_less(ranks, 1.01)
    assert_array_less(-0.1, ranks)


def test_clones_and_pickles(model):
    assert type(clone(model)) is type(model)
    assert not hasattr(clone(model), "labels_")
    scores = model.decision_function(X_TEST)
    assert_allclose(clone(model).fit(X_TRAIN).decision_function(X_TEST), scores, rtol=1e-9)
    assert_array_equal(pickle.loads(pickle.dumps(model)).decision_function(X_TEST), scores)


def test_both_libraries_flag_the_same_rows(model):
    assert_array_equal(model.predict(X_TEST) == 1, model.detector_.predict(X_TEST) == -1)
    assert_array_equal(model.labels_ == 1, model.detector_.predict(X_TRAIN) == -1)


def test_adapters_are_pyod_models():
    adapter = MODELS["typicality"]
    assert isinstance(adapter, PyODBase)
    assert adapter.contamination == 0.2
    assert PyODAdapter(LikelihoodDetector(GaussianMixture()), 0.3)._made().contamination == 0.3
    with pytest.raises(NotFittedError):
        clone(adapter).decision_function(X_TEST)
    with pytest.raises(TypeError, match="to_pyod needs a detector of flowdetect, got GaussianMixture"):
        to_pyod(GaussianMixture())


def test_pyods_engine_plans_and_fits_ours(tmp_path):
    engine = ADEngine(knowledge_dir=write_knowledge(tmp_path / "knowledge"), random_state=0)
    assert "FlowOD" in {entry["name"] for entry in engine.list_detectors(data_type="tabular")}
    assert "ECOD" in {entry["name"] for entry in engine.list_detectors(data_type="tabular")}
    detector = engine.build_detector({"detector_name": "FlowOD", "params": {}, "preset": None})
    assert isinstance(detector, FlowOD)
    assert detector.random_state == 0
    result = engine.run_detection(X_TRAIN, {"detector_name": "FlowOD", "params": {}, "preset": None})
    assert roc_auc_score(Y_TRAIN, result["scores_train"]) >= 0.8


def test_our_knowledge_has_the_keys_of_theirs(tmp_path):
    known = json.loads((tmp_path / write_knowledge(tmp_path) / "algorithms.json").read_text())
    assert set(known["FlowOD"]) == set(known["ECOD"])


# pyod's models among ours


def test_laws_of_a_pyod_model():
    rng = np.random.default_rng(0)
    check_detector(PyODDetector(HBOS(), contamination=0.2), rng.normal(size=(120, 4)), rng.normal(size=(30, 4)) + 6)


def test_signs_are_scikit_learns():
    detector = PyODDetector(KNN(), random_state=0).fit(X_TRAIN)
    assert_array_equal(detector.score_samples(X_TEST), -detector.density_.model_.decision_function(X_TEST))
    assert roc_auc_score(Y_TEST, -detector.score_samples(X_TEST)) > 0.9
    assert len(detector.calibration_scores_) == 20


def test_a_fitted_model_is_used_as_it_is():
    knn = KNN().fit(X_TRAIN)
    detector = PyODDetector(FrozenEstimator(knn)).fit(X_TEST)
    assert_array_equal(detector.score_samples(X_TEST), -knn.decision_function(X_TEST))
    assert len(detector.calibration_scores_) == len(X_TEST)


def test_a_pipeline_of_latents():
    flow = StandardScaler().fit(X_TRAIN)
    pipeline = make_pipeline(FrozenEstimator(flow), PyODDetector(KNN(), random_state=0)).fit(X_TRAIN)
    direct = PyODDetector(KNN(), random_state=0).fit(flow.transform(X_TRAIN))
    assert_allclose(pipeline.score_samples(X_TEST), direct.score_samples(flow.transform(X_TEST)), rtol=1e-9)


def test_files_ask_for_trust(tmp_path):
    detector = PyODDetector(HBOS(), random_state=0).fit(X_TRAIN)
    detector.save(tmp_path / "detector")
    with pytest.raises(ValueError, match="types that are not trusted: .*HBOS") as refusal:
        load(tmp_path / "detector")
    again = load(tmp_path / "detector", trusted=re.findall(r"'([\w.]+)'", str(refusal.value).split("If you")[0]))
    assert_array_equal(again.score_samples(X_TEST), detector.score_samples(X_TEST))


def test_what_is_no_pyod_model():
    with pytest.raises(TypeError, match="needs a model of pyod, such as KNN"):
        PyODDetector(GaussianMixture()).fit(X_TRAIN)


def test_the_detector_to_start_with_speaks_pyod():
    """pyod knows no contamination "auto": it is 0.1, and says how many of the rows are outliers."""
    adapter = to_pyod(OODDetector(random_state=0)).fit(X_TRAIN)
    assert adapter.contamination == 0.1
    same = FlowOD(random_state=0).fit(X_TRAIN)
    np.testing.assert_array_equal(adapter.decision_scores_, same.decision_scores_)
    with pytest.raises(TypeError, match=r"The first argument of FlowOD is contamination.*FlowOD\(density=...\)"):
        FlowOD(RealNVPDensity())

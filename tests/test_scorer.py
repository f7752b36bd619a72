"""Scorer: every kind of batch, bit for bit the scores of one process; what it refuses, and how that is told."""

import inspect
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.mixture import GaussianMixture

import flowdetect.scorer
from flowdetect import GlowDensity, LikelihoodDetector, OODDetector, RealNVPDensity, Scorer, load_images

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(RNG.normal(size=(300, 3)), columns=["a", "b", "c"])
NEW = TABLE.sample(100, random_state=0)[["c", "a", "b"]].assign(key=np.arange(100), name="x")
NEW.loc[NEW.index[:3], "a"] = 50.0
SPLITS = [0, 1, 8, 8, 71, 100]
IMAGES = load_images("digits")[0]
OUTPUTS = ["score", "p_value", "label"]


def saved(model, folder, name):
    model.save(folder / name)
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def detector():
    return OODDetector(random_state=0).fit(TABLE)


@pytest.fixture(scope="module")
def path(detector, folder):
    return saved(detector, folder, "detector")


@pytest.fixture(scope="module")
def expected(detector):
    X = NEW[["a", "b", "c"]]
    return np.stack([detector.score_samples(X), detector.p_values(X), detector.predict(X)])


# ---- batches


def as_dict(frame):
    return {name: frame[name].to_numpy() for name in frame}


def as_polars(frame):
    return pytest.importorskip("polars").DataFrame(as_dict(frame))


def as_table(frame):
    return pytest.importorskip("pyarrow").Table.from_pandas(frame, preserve_index=False)


def as_record_batch(frame):
    return pytest.importorskip("pyarrow").RecordBatch.from_pandas(frame, preserve_index=False)


@pytest.mark.parametrize("kind", [pd.DataFrame, as_dict, as_polars, as_table, as_record_batch])
def test_a_frame_of_the_batchs_kind_with_the_scores_of_one_process(kind, path, expected):
    scorer = Scorer(path, keep=["key", "name"])
    parts = []
    for start, stop in zip(SPLITS, SPLITS[1:], strict=False):
        batch = kind(NEW[start:stop])
        answer = scorer(batch)
        assert type(answer) is type(batch)
        frame = pd.DataFrame({name: np.asarray(answer[name]) for name in ["key", "name", *OUTPUTS]})
        assert [str(frame[name].dtype) for name in OUTPUTS] == ["float64", "float64", "int64"]
        parts.append(frame)
    whole = pd.concat(parts)
    np.testing.assert_array_equal(whole[OUTPUTS].to_numpy(), expected.T)
    np.testing.assert_array_equal(whole["key"], NEW["key"])
    assert set(whole["name"]) == {"x"}


def test_the_index_of_a_frame_and_the_dtypes_of_an_empty_one(path):
    scorer = Scorer(path, keep="key")
    assert list(scorer(NEW).index) == list(NEW.index)
    pd.testing.assert_frame_equal(scorer(NEW[:0]), scorer(NEW)[:0])
    pd.testing.assert_frame_equal(scorer.meta.reset_index(drop=True), scorer(NEW)[:0][OUTPUTS].reset_index(drop=True))
    assert {name: len(values) for name, values in scorer({}).items()} == dict.fromkeys(OUTPUTS, 0)


def test_a_detector_fitted_to_an_array_takes_all_other_columns_or_those_named(folder):
    X = TABLE.to_numpy()
    detector = LikelihoodDetector(GaussianMixture(), cv=3, random_state=0).fit(X)
    path = saved(detector, folder, "folds")
    verdicts = detector.verdicts(X)
    np.testing.assert_array_equal(verdicts.score, detector.score_samples(X))
    np.testing.assert_array_equal(verdicts.p_value, detector.p_values(X))
    np.testing.assert_array_equal(verdicts.label, detector.predict(X))
    with_key = TABLE.assign(key=1)
    columns = {"data": list(X), "key": np.ones(len(X))}
    answers = [
        Scorer(path)(X),
        Scorer(path, keep="key")(with_key)[OUTPUTS],
        Scorer(path, columns=["a", "b", "c"])(with_key[["key", "c", "b", "a"]]),
        Scorer(path, columns="data")(pd.DataFrame(columns)),  # cells are rows, as of Spark's arrays
        pd.DataFrame(Scorer(path, columns="data")({**columns, "data": X})),
    ]
    for answer in answers:
        np.testing.assert_array_equal(answer.to_numpy(), np.column_stack(list(verdicts.values())))
    with pytest.raises(ValueError, match="3 columns without names, got a batch with 4 .*pass columns="):
        Scorer(path)(with_key)


@pytest.fixture(scope="module")
def glow(folder):
    X = IMAGES[:60]
    density = GlowDensity(n_bins=17, n_steps=1, hidden_channels=4, max_epochs=1, random_state=0).fit(X)
    return saved(density, folder, "glow"), density.score_samples(X)


def arrow_tensors(X):
    pa = pytest.importorskip("pyarrow")
    return pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(X)})


def arrow_lists(X):
    return pytest.importorskip("pyarrow").table({"image": X.astype(int).tolist()})


def polars_arrays(X):
    pl = pytest.importorskip("polars")
    return pl.DataFrame({"image": X}, schema={"image": pl.Array(pl.UInt8, X.shape[1:])})


@pytest.mark.parametrize(
    "kind",
    [
        np.asarray,
        lambda X: torch.from_numpy(X)[:, None],
        lambda X: {"image": X, "path": np.arange(len(X))},
        lambda X: pd.DataFrame({"image": list(X)}),
        lambda X: arrow_lists(X).to_pandas(),  # arrays of arrays
        arrow_tensors,
        arrow_lists,
        polars_arrays,
    ],
)
def test_images(kind, glow):
    path, scores = glow
    batch = kind(IMAGES[:60])
    answer = Scorer(path, columns=None if hasattr(batch, "dtype") else "image")(batch)
    np.testing.assert_array_equal(np.asarray(answer["score"]), scores)
    assert Scorer(path).schema == "score double"  # a density has no p-values


def test_images_of_several_sizes_are_refused(glow):
    with pytest.raises(ValueError, match=r"must have one shape, got \[\(8, 8\), \(9, 9\)\]; resize"):
        Scorer(glow[0], columns="image")(pd.DataFrame({"image": [np.zeros((8, 8)), np.zeros((9, 9))]}))


def test_flows_score_alike_in_any_batch_and_thread(folder):
    flow = RealNVPDensity(max_epochs=1, hidden_channels=8, n_steps=2, random_state=0)
    detector = LikelihoodDetector(flow, random_state=0).fit(TABLE)
    scorer = Scorer(saved(detector, folder, "flow"))
    whole = scorer(NEW)
    np.testing.assert_array_equal(whole["score"], detector.score_samples(NEW[["a", "b", "c"]]))
    flowdetect.scorer._loaded.cache_clear()
    with ThreadPoolExecutor(4) as pool:  # which meet where the model is loaded, and in scoring
        parts = list(pool.map(scorer, [NEW[i : i + 7] for i in range(0, 100, 7)]))
    assert flowdetect.scorer._loaded.cache_info().misses == 1
    pd.testing.assert_frame_equal(pd.concat(parts), whole)


# ---- processes


def test_a_pickle_is_small_and_another_process_loads_the_file_once(path, expected, tmp_path):
    scorer = Scorer(path, n_threads=2)
    assert len(pickle.dumps(scorer)) < 2000
    (tmp_path / "task").write_bytes(pickle.dumps((scorer, NEW)))
    script = (
        "import pickle, sys, flowdetect.scorer as s\n"
        "scorer, X = pickle.load(open(sys.argv[1], 'rb'))\n"
        "parts = list(scorer.map_frames([X[:40], X[40:]]))\n"
        "assert s._loaded.cache_info().misses == 1\n"
        "pickle.dump(parts, open(sys.argv[1] + '.out', 'wb'))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "task")], check=True)
    parts = pickle.loads((tmp_path / "task.out").read_bytes())
    np.testing.assert_array_equal(pd.concat(parts).to_numpy(), expected.T)


def test_one_job_never_mixes_two_models(path, glow, tmp_path):
    shutil.copy(path, tmp_path / "model")
    scorer = Scorer(tmp_path / "model")
    before = scorer(NEW)
    shutil.copy(glow[0], tmp_path / "model")
    pd.testing.assert_frame_equal(scorer(NEW), before)  # this process has the model
    flowdetect.scorer._loaded.cache_clear()
    with pytest.raises(ValueError, match="must be the file that the Scorer was made with.*make a new Scorer"):
        scorer(NEW)
    assert Scorer(tmp_path / "model").outputs == ("score",)
    (tmp_path / "model").unlink()
    flowdetect.scorer._loaded.cache_clear()
    with pytest.raises(FileNotFoundError, match="must be a saved model, got no such file on .*every worker can read"):
        scorer(NEW)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"outputs": ["score", "odds"]},
            r"outputs must be of \['score', .*got \['score', 'odds'\]",
        ),
        ({"outputs": []}, "outputs must be of"),
        (
            {"columns": ["a", "b"]},
            "columns must name the 3 features .* got 2 names; .* own are .*'a', 'b', 'c'",
        ),
        ({"columns": ["a", "a", "b"]}, "columns must be names of columns, each once"),
        ({"keep": ["label"]}, r"keep must not name columns like the outputs .*got \['label'\]; rename"),
        ({"n_threads": 0}, "n_threads must be a whole number >= 1, got 0"),
    ],
)
def test_parameters_that_do_not_suit_the_model_are_refused_when_it_is_made(options, message, path):
    with pytest.raises(ValueError, match=message):
        Scorer(path, **options)


def test_p_values_of_a_density_are_refused(glow):
    with pytest.raises(ValueError, match="p-values and labels come from a detector"):
        Scorer(glow[0], outputs=["p_value"])


def test_an_unfitted_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold a fitted model, got an unfitted GlowDensity; fit it"):
        Scorer(saved(GlowDensity(), tmp_path, "unfitted"))


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (NEW.drop(columns="b"), ValueError, "lacks 'b'; it has 'c', 'a', 'key', 'name'. Rename them, or pass columns="),
        (NEW.drop(columns="key"), ValueError, "the columns that keep names, and lacks 'key'"),
        (NEW.assign(b=np.nan), ValueError, "NaN"),
        (NEW.assign(b="text"), ValueError, "got a frame with column.* 'b'"),
        (NEW.to_numpy(), ValueError, "keep=.* names columns, got a batch that is a plain ndarray"),
        ({"a": [1.0], "b": [1.0, 2.0]}, ValueError, "must be arrays of the same length, got"),
        ({"a": 1.0}, ValueError, "must be arrays of the same length, got.*no length"),
        ([[1.0, 2.0, 3.0]], TypeError, "A batch must be a numpy array or torch tensor .* got a list"),
        ("text", TypeError, "got a str"),
    ],
)
def test_batches_that_cannot_be_scored_are_refused_and_the_error_can_be_pickled(batch, error, message, path):
    with pytest.raises(error, match=message) as caught:
        Scorer(path, keep="key")(batch)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_density_names_the_row_also_where_the_error_comes_from_another_process(glow):
    with pytest.raises(ValueError, match="row 1") as caught:
        Scorer(glow[0])(np.stack([IMAGES[0], IMAGES[1] + 900.0]))
    assert "row 1" in str(pickle.loads(pickle.dumps(caught.value)))


def test_the_types_for_spark_are_those_of_the_answer(path):
    assert Scorer(path, outputs=["label", "score"]).schema == "label bigint, score double"
    assert repr(str(path)) in repr(Scorer(path))
    assert inspect.isgenerator(Scorer(path).map_frames([]))

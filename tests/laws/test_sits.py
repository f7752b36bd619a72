"""Laws that every semantic-invariant transformation obeys."""

import copy
import inspect
import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from sit_data import few, images_8_bit, seeds, shapes, table
from sit_table import SITS, WhiteningFlow
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import flowdetect.sit
from flowdetect.sit import AddNoise


@pytest.fixture(params=SITS, ids=list(SITS))
def sit(request):
    return SITS[request.param]()


# What holds for all


@pytest.mark.filterwarnings("error::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([make() for make in SITS.values()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_enough_of_the_checks_run(sit):
    statuses = Counter(result["status"] for result in check_estimator(sit, on_skip=None))
    assert statuses["passed"] >= 40
    assert set(statuses) <= {"passed", "skipped"}


def test_every_public_class_is_in_the_table():
    public = {cls for cls in vars(flowdetect.sit).values() if inspect.isclass(cls)}
    assert public == {type(make()) for make in SITS.values()}
    assert sorted(cls.__name__ for cls in public) == flowdetect.sit.__all__


def test_batch_invariance(sit):
    X = table()
    together = sit.fit(X).transform(X)
    alone = np.concatenate([sit.transform(X[i : i + 1]) for i in range(len(X))])
    order = np.random.default_rng(1).permutation(len(X))
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(sit.transform(X[order]), together[order])


def test_clones_and_pickles_do_the_same(sit):
    X = table()
    expected = sit.fit(X).transform(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(sit)).transform(X), expected)
    np.testing.assert_array_equal(clone(sit).fit_transform(X), expected)


OTHERS = {
    "background_below": {None: 0.5, 0.3: None},
    "direction": {"horizontal": "vertical", "vertical": "horizontal"},
    "dx": {1: 2, -1: 2},
    "dy": {0: 1},
    "factor": {0.5: 0.1, 0.8: 0.1},
    "fill": {"constant": "edge", "edge": "wrap", "wrap": "constant"},
    "image_shape": {None: (4, 1)},
    "k": {1: 2},
    "kind": {"gaussian": "negative", "shifted": "gaussian", "negative": "shifted"},
    "n_bins": {"auto": 7},
    "n_factors": {1: 2, 0: 1},
    "random_state": {0: 1},
    "requantize": {False: True},
    "scale": {0.1: 0.7},
}


def test_set_params_after_fit_changes_nothing_but_the_next_fit(sit):
    X = table()
    expected = sit.fit(X).transform(X)
    for name, value in sit.get_params(deep=False).items():
        sit.set_params(**{name: WhiteningFlow() if name == "flow" else OTHERS[name][value]})
        np.testing.assert_array_equal(sit.transform(X), expected, err_msg=name)
    for copied in (pickle.loads(pickle.dumps(sit)), copy.deepcopy(sit)):
        np.testing.assert_array_equal(copied.transform(X), expected)


def test_states_of_version_0_1_0_do_the_same(sit):
    """They hold no kept parameters; the present ones are those of the fit."""
    X = table()
    expected = sit.fit(X).transform(X)
    old = type(sit).__new__(type(sit))
    old.__setstate__({name: value for name, value in sit.__getstate__().items() if name != "_kept"})
    np.testing.assert_array_equal(old.transform(X), expected)


def test_a_refit_that_fails_leaves_the_old_fit(sit):
    X = table()
    expected = sit.fit(X).transform(X)
    name = next(name for name in ("requantize", "k", "n_factors", "direction", "dx") if name in sit.get_params())
    sit.set_params(**{name: {"requantize": True, "dx": 99}.get(name, -1.5)})
    with pytest.raises(ValueError, match=r"must be|moves images|needs data in bins"):
        sit.fit(np.ones((5, 7)) / 3)
    np.testing.assert_array_equal(sit.transform(X), expected)


def test_frames_keep_their_names(sit):
    frame = pd.DataFrame(table(), columns=["a", "b", "c", "d"], index=np.arange(40)[::-1])
    result = sit.set_output(transform="pandas").fit(frame).transform(frame)
    assert list(result.columns) == list(sit.get_feature_names_out()) == ["a", "b", "c", "d"]
    assert result.index.equals(frame.index)


def test_input_and_global_random_state_stay_as_they_are(sit):
    X = table()
    X.flags.writeable = False
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the legacy state is what must not move
    sit.fit(X).transform(X)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_numpys_global_generator_rests_without_a_random_state():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    AddNoise().fit_transform(table())
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_pipelines(sit):
    X = table()
    pipeline = make_pipeline(sit, StandardScaler()).fit(X)
    assert pipeline.transform(X).shape == X.shape


def test_unfitted(sit):
    with pytest.raises(NotFittedError):
        sit.transform(table())


# Layouts

on_pixels = pytest.mark.parametrize(
    "sit", [make() for name, make in SITS.items() if not name.startswith("zero-latents")], ids=repr
)


@on_pixels
@given(shape=shapes, seed=seeds)
@few
def test_all_layouts_give_the_same(sit, shape, seed):
    torch = pytest.importorskip("torch")
    images = images_8_bit(3, shape, seed)
    expected = clone(sit).fit_transform(images)
    assert expected.size == images.size
    rows = images.reshape(3, -1)
    np.testing.assert_array_equal(
        clone(sit).set_params(image_shape=shape).fit_transform(rows).ravel(), expected.ravel()
    )
    np.testing.assert_array_equal(clone(sit).fit(images).transform(rows), expected.reshape(3, -1))
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(clone(sit).fit_transform(tensor), expected)
    if shape[2] == 1:
        grey = images[..., 0]
        np.testing.assert_array_equal(clone(sit).fit_transform(grey), expected[..., 0])


@on_pixels
def test_images_to_a_transformer_fitted_on_vectors(sit):
    with pytest.raises(ValueError, match=r"fitted on vectors .* image_shape=\(2, 2, 1\)"):
        clone(sit).fit(table()).transform(np.zeros((1, 2, 2)))

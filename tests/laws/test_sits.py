"""Laws that every semantic-invariant transformation obeys, and those of each one."""

import inspect
import pickle
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from sit_table import SITS, WhiteningFlow
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import flowdetect.sit
from flowdetect.sit import AddNoise, Translate, ZeroLatents

few = settings(deadline=None, max_examples=25)
shapes = st.tuples(st.integers(2, 6), st.integers(2, 6), st.sampled_from([1, 3]))
seeds = st.integers(0, 2**16)


def images_8_bit(n, shape, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)


def table(n=40, n_features=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_features))


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


def test_company_does_not_matter(sit):
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


@pytest.mark.parametrize("make", [Translate, AddNoise], ids=lambda cls: cls.__name__)
@given(shape=shapes, seed=seeds)
@few
def test_all_layouts_give_the_same(make, shape, seed):
    torch = pytest.importorskip("torch")
    images = images_8_bit(3, shape, seed)
    sit = make(dx=1) if make is Translate else make(random_state=0)
    expected = clone(sit).fit_transform(images)
    assert expected.shape == images.shape
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


@pytest.mark.parametrize("make", [Translate, AddNoise], ids=lambda cls: cls.__name__)
def test_images_to_a_transformer_fitted_on_vectors(make):
    with pytest.raises(ValueError, match=r"fitted on vectors .* image_shape=\(2, 2, 1\)"):
        make().fit(table()).transform(np.zeros((1, 2, 2)))


# Translate


@given(shape=shapes, seed=seeds, data=st.data(), fill=st.sampled_from(["constant", "edge", "wrap"]))
@few
def test_there_and_back_restores_the_interior(shape, seed, data, fill):
    height, width, _ = shape
    dx = data.draw(st.integers(1 - width, width - 1))
    dy = data.draw(st.integers(1 - height, height - 1))
    images = images_8_bit(2, shape, seed)
    there = Translate(dx, dy, fill).fit_transform(images)
    back = Translate(-dx, -dy, fill).fit_transform(there)
    kept_rows = slice(max(0, -dy), height - max(0, dy))
    kept_columns = slice(max(0, -dx), width - max(0, dx))
    np.testing.assert_array_equal(back[:, kept_rows, kept_columns], images[:, kept_rows, kept_columns])
    assert back.dtype == there.dtype == np.uint8
    if fill == "wrap":
        np.testing.assert_array_equal(back, images)


def test_signs_and_fills():
    image = np.arange(1, 10).reshape(1, 3, 3)
    right, down = Translate(dx=1).fit_transform(image)[0], Translate(dy=1).fit_transform(image)[0]
    assert right.tolist() == [[0, 1, 2], [0, 4, 5], [0, 7, 8]]
    assert down.tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert Translate(dx=-1, fill="edge").fit_transform(image)[0].tolist() == [[2, 3, 3], [5, 6, 6], [8, 9, 9]]
    assert Translate(dx=1, fill="wrap").fit_transform(image)[0].tolist() == [[3, 1, 2], [6, 4, 5], [9, 7, 8]]


def test_real_values_are_filled_with_the_training_minimum():
    X = table()
    sit = Translate(dx=2).fit(X)
    assert sit.n_bins_ is None
    moved = sit.transform(X[:5])
    np.testing.assert_array_equal(moved[:, :2], X.min())
    np.testing.assert_array_equal(moved[:, 2:], X[:5, :2])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, bool])
def test_translate_keeps_the_dtype(dtype):
    images = np.ones((2, 3, 3), dtype=dtype)
    assert Translate(dx=1).fit_transform(images).dtype == dtype


def test_a_fill_value_that_the_dtype_cannot_hold_promotes():
    sit = Translate(dx=1).fit(np.array([[-0.5, 2.0], [1.0, 2.0]]))
    assert sit.transform(np.array([[1, 2]], dtype=np.uint8)).tolist() == [[-0.5, 1.0]]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dx": 1.5}, "dx must be a whole number, got 1.5"),
        ({"dy": True}, "dy must be a whole number"),
        ({"fill": "zero"}, "fill must be"),
        ({"n_bins": 1}, "n_bins must be"),
        ({"image_shape": (2,)}, "image_shape must be"),
        ({"dy": 1}, "give image_shape"),
        ({"dx": 2, "image_shape": (2, 2)}, "move by less"),
    ],
)
def test_translate_refuses(parameters, message):
    with pytest.raises(ValueError, match=message):
        Translate(**parameters).fit(table())


# AddNoise

kinds = st.sampled_from(["gaussian", "shifted", "negative"])


@given(shape=shapes, seed=seeds, kind=kinds)
@few
def test_zero_scale_is_the_identity(shape, seed, kind):
    images = images_8_bit(3, shape, seed)
    same = AddNoise(scale=0, kind=kind).fit_transform(images)
    np.testing.assert_array_equal(same, images)
    assert same.dtype == np.float64


@given(shape=shapes, seed=seeds, kind=kinds, scale=st.floats(0, 2))
@few
def test_requantised_output_is_on_the_grid(shape, seed, kind, scale):
    noisy = AddNoise(scale, kind, requantize=True, random_state=seed).fit_transform(images_8_bit(3, shape, seed))
    np.testing.assert_array_equal(noisy, np.rint(noisy))
    assert noisy.min() >= 0
    assert noisy.max() <= 255


@given(seed=seeds, kind=kinds, below=st.floats(-0.5, 1.5), in_bins=st.booleans())
@few
def test_the_foreground_is_untouched_bit_for_bit(seed, kind, below, in_bins):
    X = images_8_bit(3, (4, 4), seed) if in_bins else table(3, 8, seed) * 1e-3
    X = X.astype(np.float64)
    if not in_bins:
        X[:, 0] = -0.0
    sit = AddNoise(0.5, kind, background_below=below, random_state=seed).fit(X)
    noisy = sit.transform(X)
    background = (X - sit.value_min_) / sit.value_range_ < below
    near_the_edge = np.isclose((X - sit.value_min_) / sit.value_range_, below)
    assert (noisy.view(np.int64) == X.view(np.int64))[~background & ~near_the_edge].all()
    assert (noisy != X)[background & ~near_the_edge].all()


def test_amounts_are_in_units_of_the_value_range():
    images = images_8_bit(200, (8, 8), 0)
    in_bins = AddNoise(0.01, random_state=0).fit(images)
    assert (in_bins.transform(images) - images).std() == pytest.approx(2.56, rel=0.02)
    X = images / 255.0 * 10 - 3
    real = AddNoise(0.01, random_state=0).fit(X)
    assert (real.transform(X) - X).std() == pytest.approx(0.1, rel=0.02)


def test_means_of_the_kinds():
    images = images_8_bit(500, (8, 8), 0)
    unscaled = {
        kind: (AddNoise(1, kind, random_state=0).fit_transform(images) - images) / 256
        for kind in ("gaussian", "shifted", "negative")
    }
    np.testing.assert_allclose(unscaled["shifted"] - unscaled["gaussian"], 1 / 256, atol=1e-12)
    assert unscaled["negative"].min() >= -1 / 256
    assert unscaled["negative"].max() <= 0
    assert unscaled["negative"].mean() == pytest.approx(-0.5 / 256, rel=0.02)


def test_the_seed_decides():
    X = table()
    first, again, other = (AddNoise(random_state=seed).fit_transform(X) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    assert (AddNoise().fit_transform(X) != AddNoise().fit_transform(X)).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scale": -1}, "scale must be a finite number >= 0, in units of the value range, got -1"),
        ({"scale": np.nan}, "scale must be"),
        ({"kind": "uniform"}, "kind must be"),
        ({"background_below": "dark"}, "background_below must be"),
        ({"requantize": True}, "say n_bins"),
    ],
)
def test_add_noise_refuses(parameters, message):
    with pytest.raises(ValueError, match=message):
        AddNoise(**parameters).fit(table())


# ZeroLatents


@given(seed=seeds, n_features=st.integers(2, 9))
@few
def test_zeroing_nothing_is_the_identity_within_inversion_error(seed, n_features):
    X = table(30, n_features, seed)
    np.testing.assert_allclose(ZeroLatents(WhiteningFlow(), 0).fit_transform(X), X, atol=1e-10)


@pytest.mark.parametrize("n_factors", [1, 2])
def test_the_first_levels_are_zero_and_the_others_stay(n_factors):
    X = table(n_features=6)
    flow = WhiteningFlow().fit(X)
    latents = flow.transform(ZeroLatents(FrozenEstimator(flow), n_factors).fit(X).transform(X))
    kept = 3 * n_factors
    np.testing.assert_allclose(latents[:, :kept], 0, atol=1e-10)
    np.testing.assert_allclose(latents[:, kept:], flow.transform(X)[:, kept:], atol=1e-10)


def test_a_frozen_flow_is_used_and_another_is_cloned():
    X = table()
    flow = WhiteningFlow().fit(X)
    frozen = FrozenEstimator(flow)
    np.testing.assert_array_equal(ZeroLatents(frozen).fit(X[:5]).flow_.mean_, flow.mean_)
    unfitted = WhiteningFlow()
    ZeroLatents(unfitted).fit(X)
    assert not hasattr(unfitted, "mean_")


class ImageFlow(WhiteningFlow):
    """Takes images and gives them back, as some flows may."""

    def fit(self, X, y=None):
        self.shape_ = X.shape[1:]
        return super().fit(X.reshape(len(X), -1))

    def transform(self, X):
        return super().transform(X.reshape(len(X), -1))

    def inverse_transform(self, Z):
        return super().inverse_transform(Z).reshape(-1, *self.shape_)


def test_images_stay_images():
    images = images_8_bit(20, (2, 3, 3), 0)
    zeroed = ZeroLatents(ImageFlow(), 0).fit_transform(images)
    assert zeroed.shape == images.shape
    np.testing.assert_allclose(zeroed, images, atol=1e-8)


@pytest.mark.parametrize("n_factors", [-1, 1.0, "all", True])
def test_n_factors_is_a_whole_number(n_factors):
    with pytest.raises(ValueError, match="n_factors must be a whole number >= 0"):
        ZeroLatents(WhiteningFlow(), n_factors).fit(table())


def test_there_are_only_so_many_levels():
    with pytest.raises(ValueError, match="n_factors must be at most 2, .* got 3"):
        ZeroLatents(WhiteningFlow(), 3).fit(table())


def test_a_flow_that_is_none():
    with pytest.raises(TypeError, match="latent_slices_, which StandardScaler lacks"):
        ZeroLatents(StandardScaler()).fit(table())
    with pytest.raises(TypeError, match="transform, inverse_transform, which GaussianMixture lacks"):
        ZeroLatents(GaussianMixture()).fit(table())


class ConditionalFlow(WhiteningFlow):
    def fit(self, X, y=None):
        self.classes_ = np.arange(2)
        return super().fit(X)


def test_a_conditional_flow():
    X = table()
    for flow in (ConditionalFlow(), FrozenEstimator(ConditionalFlow().fit(X))):
        with pytest.raises(ValueError, match="conditional=False"):
            ZeroLatents(flow).fit(X)

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sit_data import few, images_8_bit, seeds, shapes, table

from flowdetect.sit import AddNoise

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
        ({"requantize": True}, "set n_bins"),
    ],
)
def test_add_noise_refuses(parameters, message):
    with pytest.raises(ValueError, match=message):
        AddNoise(**parameters).fit(table())

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sit_data import few, images_8_bit, seeds, shapes, table

from flowdetect.sit import Contrast, Gray

kinds = pytest.mark.parametrize("kind", [Gray, Contrast], ids=lambda kind: kind.__name__)
factors = st.floats(0, 3)


@kinds
@given(shape=shapes, seed=seeds, in_bins=st.booleans())
@few
def test_factor_one_is_the_identity(kind, shape, seed, in_bins):
    images = images_8_bit(3, shape, seed)
    X = images if in_bins else np.random.default_rng(seed).normal(size=images.shape)
    np.testing.assert_array_equal(kind(factor=1).fit_transform(X), X)


@kinds
@given(shape=shapes, seed=seeds, factor=factors)
@few
def test_requantised_output_is_on_the_grid_and_all_output_in_range(kind, shape, seed, factor):
    images = images_8_bit(3, shape, seed)
    rounded = kind(factor, requantize=True).fit_transform(images)
    np.testing.assert_array_equal(rounded, np.rint(rounded))
    for changed in (rounded, kind(factor).fit_transform(images)):
        assert changed.min() >= 0
        assert changed.max() <= 255


@given(seed=seeds, factor=factors)
@few
def test_gray_scales_distances_to_the_middle(seed, factor):
    X = table(seed=seed)
    sit = Gray(factor).fit(X)
    assert sit.middle_ == pytest.approx((X.min() + X.max()) / 2)
    np.testing.assert_allclose(sit.transform(X) - sit.middle_, factor * (X - sit.middle_), atol=1e-12)


@given(seed=seeds, factor=factors)
@few
def test_contrast_keeps_each_mean(seed, factor):
    X = table(seed=seed)
    changed = Contrast(factor).fit(X[:5]).transform(X)
    means = X.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(changed - means, factor * (X - means), atol=1e-12)


def test_gray_of_nothing_is_the_middle():
    images = images_8_bit(2, (3, 3, 3), 0)
    np.testing.assert_array_equal(Gray(0).fit_transform(images), 127.5)


@kinds
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"factor": -0.1}, "factor must be a finite number >= 0, got -0.1; 1 changes nothing"),
        ({"factor": np.inf}, "factor must be a finite number"),
        ({"factor": True}, "factor must be a finite number"),
        ({"requantize": True}, "requantize=True needs data in bins"),
    ],
)
def test_intensities_refuse(kind, parameters, message):
    with pytest.raises(ValueError, match=message):
        kind(**parameters).fit(table())

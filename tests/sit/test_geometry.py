import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sit_data import few, images_8_bit, seeds, shapes, table

from flowdetect.sit import Flip, Rotate90, Translate


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


# Flip and Rotate90


@given(shape=shapes, seed=seeds, direction=st.sampled_from(["horizontal", "vertical"]))
@few
def test_two_flips_are_none(shape, seed, direction):
    images = images_8_bit(2, shape, seed)
    flipped = Flip(direction).fit_transform(images)
    assert flipped.dtype == np.uint8
    np.testing.assert_array_equal(Flip(direction).fit_transform(flipped), images)
    axis = 2 if direction == "horizontal" else 1
    np.testing.assert_array_equal(flipped, np.flip(images, axis))


@given(shape=shapes, seed=seeds, k=st.integers(-5, 5))
@few
def test_turns_add_up(shape, seed, k):
    images = images_8_bit(2, shape, seed)
    turned = Rotate90(k).fit_transform(images)
    np.testing.assert_array_equal(turned, np.rot90(images, k, axes=(1, 2)))
    np.testing.assert_array_equal(Rotate90(-k).fit_transform(turned), images)


def test_which_way():
    image = np.array([[[1, 2], [3, 4]]])
    assert Flip("vertical").fit_transform(image).tolist() == [[[3, 4], [1, 2]]]
    assert Rotate90(k=-1).fit_transform(image).tolist() == [[[3, 1], [4, 2]]]


@pytest.mark.parametrize(
    ("sit", "message"),
    [
        (Flip("left"), 'direction must be "horizontal" or "vertical", got \'left\''),
        (Rotate90(0.5), "k must be a whole number, got 0.5"),
    ],
)
def test_flips_and_turns_refuse(sit, message):
    with pytest.raises(ValueError, match=message):
        sit.fit(table())

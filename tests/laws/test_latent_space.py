"""Ways between rows and along attributes, of every density whose rows have latents."""

import numpy as np
import pytest
import torch
from density_table import DENSITIES, DIGITS, LABELS, glow, vae

from flowdetect.density import GlowDensity, RealNVPDensity
from flowdetect.density.latent_space import LatentSpaceDensity, spherical

RNG = np.random.default_rng(0)


def form(case):
    """What the answers of a density depend on beside its latents, whose laws are `check_density`'s."""
    density = case.make()
    return type(density), type(case.X), case.X.ndim, str(case.X.dtype), density.n_bins, case.y is None


WITH_LATENTS = {form(case): name for name, case in DENSITIES.items() if hasattr(case.make(), "inverse_transform")}
WITH_LATENTS = {name: DENSITIES[name] for name in WITH_LATENTS.values()}  # one of each form


def near(found, expected, in_bins):
    found, expected = np.asarray(found), np.asarray(expected)
    if in_bins:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", WITH_LATENTS.values(), ids=WITH_LATENTS)
def test_laws(case):
    density = case.make(random_state=0, max_epochs=1).fit(case.X, case.y)
    assert isinstance(density, LatentSpaceDensity)
    a, b, y = case.X[:3], case.X[3:6], None if case.y is None else case.y[:3]
    steps = density.interpolate(a, b, 5, y=y)
    assert isinstance(steps, type(case.X))
    assert tuple(steps.shape) == (3, 5, *case.X.shape[1:])
    attribute = np.arange(len(case.X)) % 2
    direction = density.attribute_direction(case.X, attribute, y=case.y)
    z = density.transform(case.X, case.y)
    np.testing.assert_allclose(direction, z[1::2].mean(0) - z[::2].mean(0), atol=1e-12)
    moved = density.move_along(a, direction, [0, 0.5], y=y)
    assert tuple(moved.shape) == (3, 2, *case.X.shape[1:])
    for way in (steps, moved):
        assert way.dtype == case.X.dtype
        if density.n_bins_ is not None:
            assert 0 <= int(way.min()) <= int(way.max()) < density.n_bins_
    if hasattr(density, "latent_slices_"):
        for found, end in ((steps[:, 0], a), (steps[:, -1], b), (moved[:, 0], a)):
            near(found, end, density.n_bins_ is not None)
    else:
        back = density.inverse_transform(z[:3], y)
        found = np.asarray(density.interpolate(a, a, 2, y=y)[:, 0]).reshape(3, -1)
        if density.n_bins_ is None:
            np.testing.assert_allclose(density.spec_.arranged(back).reshape(3, -1), found, rtol=1e-5, atol=1e-6)


# ---- the circle


def test_points_lie_on_the_circle_at_even_angles():
    a, b = RNG.normal(size=(2, 4, 1, 7))
    points = spherical(a, b, np.linspace(0, 1, 6)[:, None])
    assert points.shape == (4, 6, 7)
    lengths = np.linalg.norm(points, axis=2)
    np.testing.assert_allclose(lengths, np.linspace(lengths[:, 0], lengths[:, -1], 6).T, rtol=1e-12)
    units = points / lengths[..., None]
    cosines = (units[:, 1:] * units[:, :-1]).sum(2)
    np.testing.assert_allclose(cosines, cosines[:, :1].repeat(5, 1), atol=1e-12)
    np.testing.assert_allclose(points[:, [0, -1]], np.concatenate([a, b], 1), rtol=1e-12)
    plane = np.linalg.svd(np.concatenate([points, a, b], 1), compute_uv=False)
    assert (plane[:, 2:] < 1e-12).all()


@pytest.mark.parametrize(
    ("a", "b"),
    [([1.0, 2], [2.0, 4]), ([1.0, 2], [-1.0, -2]), ([0.0, 0], [1.0, 2]), ([1.0, 2], [0.0, 0]), ([0.0, 0], [0.0, 0])],
)
def test_where_there_is_no_one_circle_points_lie_on_the_line(a, b):
    t = np.linspace(0, 1, 5)[:, None]
    with np.errstate(all="raise", under="ignore"):
        points = spherical(np.array(a)[None], np.array(b)[None], t)
    np.testing.assert_allclose(points, (1 - t) * np.array(a) + t * np.array(b), atol=1e-15)


def test_the_fall_back_joins_the_circle_smoothly():
    t, a = np.linspace(0, 1, 5)[:, None], np.array([[1.0, 0.0]])
    for angle in (0.5e-6, 2e-6):
        points = spherical(a, np.array([[np.cos(angle), np.sin(angle)]]), t)
        np.testing.assert_allclose(points, np.c_[np.cos(t * angle), np.sin(t * angle)], atol=1e-12)


@pytest.fixture(scope="module")
def digits():
    return glow(n_bins=17, n_steps=2, random_state=0).fit(DIGITS[:200])


def test_each_level_of_a_flow_has_its_circle(digits):
    # in real values, so that nothing is rounded on the way back
    density = glow(random_state=0).fit(DIGITS[:80] + RNG.normal(0, 0.1, (80, 8, 8)))
    a, b = (DIGITS[k : k + 4] + 0.25 for k in (0, 4))
    ends = density.transform(a), density.transform(b)
    halfway = density.transform(density.interpolate(a, b, 3)[:, 1])
    for level in density.latent_slices_:
        lengths = [np.linalg.norm(z[:, level], axis=1) for z in (*ends, halfway)]
        np.testing.assert_allclose(lengths[2], (lengths[0] + lengths[1]) / 2, rtol=1e-6)


def test_a_way_is_that_of_its_pair_alone(digits):
    steps = digits.interpolate(DIGITS[:5], DIGITS[5:10], 4)
    alone = digits.interpolate(DIGITS[2:3], DIGITS[7:8], 4)
    np.testing.assert_array_equal(steps[2:3], alone)
    np.testing.assert_array_equal(digits.interpolate(DIGITS[5:10], DIGITS[:5], 4)[:, ::-1], steps)


def test_rows_and_images_go_the_same_way(digits):
    rows = DIGITS[:4].reshape(4, 64)
    np.testing.assert_array_equal(digits.interpolate(rows[:2], rows[2:]), digits.interpolate(DIGITS[:2], DIGITS[2:4]))
    assert digits.interpolate(rows[:2], rows[2:]).shape == (2, 8, 8, 8)


def test_each_level_has_its_temperature():
    density = glow(random_state=0).fit(DIGITS[:80] + RNG.normal(0, 0.1, (80, 8, 8)))
    factors = [0.0, 0.5, 1.0]
    z = density.transform(density.sample(200, temperature=factors, random_state=0))
    for level, factor in zip(density.latent_slices_, factors, strict=True):
        assert z[:, level].std() == pytest.approx(factor, rel=0.05, abs=1e-3)
    drawn = [density.sample(5, temperature=one, random_state=0) for one in (0.5, [0.5] * 3, np.full(3, 0.5))]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    with pytest.raises(ValueError, match=r"one number for each of the flow's 3 level\(s\), .* got 2"):
        density.sample(temperature=[1, 1])
    with pytest.raises(ValueError, match=r"finite number >= 0 .*, got -1"):
        density.sample(temperature=[1, -1, 1])


# ---- directions


def test_the_direction_of_two_normal_classes_is_known():
    """On standardised columns Glow with one column is a Gaussian: z = (x - mean) / std, so means differ by 2 / std."""
    X = np.concatenate([RNG.normal(-1, 0.1, (300, 1)), RNG.normal(1, 0.1, (300, 1))])
    has = np.repeat([False, True], 300)
    density = GlowDensity(max_epochs=5, random_state=0).fit(X)
    scale = 1 / np.diff(density.transform([[0.0], [1.0]]), axis=0).item()
    direction = density.attribute_direction(X, has)
    expected = (X[has].mean() - X[~has].mean()) / scale
    assert direction == pytest.approx([expected])
    assert scale == pytest.approx(1, abs=0.1)  # the standard deviation of both together
    moved = density.move_along(X[:5], direction, [-1, 0, 1])
    np.testing.assert_allclose(moved[:, 2] - moved[:, 1], np.full((5, 1), X[has].mean() - X[~has].mean()), rtol=1e-6)


def test_the_greater_label_has_the_attribute(digits):
    chosen = np.isin(LABELS, (1, 7))
    X, y = DIGITS[chosen][:80], LABELS[chosen][:80]
    direction = digits.attribute_direction(X, y)
    np.testing.assert_array_equal(digits.attribute_direction(X, y == 7), direction)
    np.testing.assert_array_equal(digits.attribute_direction(X, np.where(y == 7, "b", "a")), direction)
    np.testing.assert_allclose(digits.attribute_direction(X, y == 1), -direction, atol=1e-12)


def test_moving_along_an_attribute_makes_a_row_likelier_to_have_it():
    """Two classes of images, bright left and bright right halves: moved by 1, a left one is brighter on the right."""
    X = RNG.integers(0, 6, (200, 4, 4)).astype(np.uint8)
    is_right = np.arange(200) % 2 == 1
    X[is_right, :, 2:] += 8
    X[~is_right, :, :2] += 8
    density = RealNVPDensity(n_bins=17, n_steps=1, n_blocks=1, hidden_channels=8, max_epochs=10, random_state=0).fit(X)
    direction = density.attribute_direction(X, is_right)
    moved = density.move_along(X[~is_right][:20], direction, [0, 1]).astype(float)
    excess = (moved[..., 2:] - moved[..., :2]).mean((0, 2, 3))
    assert excess[0] < -6
    assert excess[1] > 0


# ---- labels


def test_conditional_densities_go_under_the_pairs_label():
    density = vae(n_bins=17, conditional=True, random_state=0).fit(DIGITS[:80], LABELS[:80])
    threes, eights = (density.interpolate(DIGITS[:2], DIGITS[2:4], 3, y=[k, k]) for k in (3, 8))
    assert (threes != eights).any()
    z = [density.transform(X, [3, 3]) for X in (DIGITS[:2], DIGITS[2:4])]
    middle = density.inverse_transform(spherical(*z, np.full((2, 1), 0.5)), [3, 3])
    np.testing.assert_array_equal(threes[:, 1].reshape(2, 64), np.clip(np.rint(middle), 0, 16))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda d: d.interpolate(DIGITS[:2], DIGITS[:3]), "row i of each forms a pair, got 2 and 3 rows; repeat"),
        (lambda d: d.interpolate(DIGITS[0], DIGITS[1]), r"pass X\[None\]"),
        (lambda d: d.interpolate(DIGITS[:2], DIGITS[:2], 1), "n must be a whole number >= 2, got 1"),
        (lambda d: d.interpolate(DIGITS[:2], DIGITS[:2], 2.5), "n must be a whole number >= 2, got 2.5"),
        (lambda d: d.interpolate(DIGITS[:2], DIGITS[:2] * 9.0), "values can be scored from -17 to 33"),
        (lambda d: d.attribute_direction(DIGITS[:9], LABELS[:9]), r"two values, .* got 9: .*; pass e.g. labels == 0"),
        (lambda d: d.attribute_direction(DIGITS[:9], np.ones(9)), "two values, .* got 1"),
        (lambda d: d.attribute_direction(DIGITS[:9], np.arange(8) % 2), "one label per row, 9 in all, got 8"),
        (lambda d: d.attribute_direction(DIGITS[:9], None), "a label for each row, got None; pass"),
        (
            lambda d: d.move_along(DIGITS[:2], np.zeros(63)),
            r"direction must .* \(64,\), as attribute_dir.* \(63,",
        ),
        (lambda d: d.move_along(DIGITS[:2], np.full(64, np.nan)), "direction must hold finite .* got NaN or infinity"),
        (lambda d: d.move_along(DIGITS[:2], "up"), "direction must hold numbers, as attribute_direction"),
        (
            lambda d: d.move_along(DIGITS[:2], np.zeros(64), 0.5),
            r"amounts .* such as \[-1, 0, 1\], got shape \(\)",
        ),
        (lambda d: d.move_along(DIGITS[:2], np.zeros(64), []), "amounts must hold finite numbers"),
    ],
)
def test_what_cannot_be_is_refused(digits, ask, words):
    with pytest.raises(ValueError, match=words):
        ask(digits)


def test_conditional_densities_ask_for_labels():
    density = glow(n_bins=17, conditional=True, max_epochs=1, random_state=0).fit(DIGITS[:80], LABELS[:80])
    with pytest.raises(ValueError, match=r"GlowDensity\(conditional=True\): interpolate needs y"):
        density.interpolate(DIGITS[:2], DIGITS[2:4])
    with pytest.raises(ValueError, match="move_along needs y"):
        density.move_along(DIGITS[:2], np.zeros(64))
    with pytest.raises(ValueError, match="one label per row, 2 in all, got 3"):
        density.interpolate(DIGITS[:2], DIGITS[2:4], y=[1, 2, 3])
    direction = density.attribute_direction(DIGITS[:80], LABELS[:80] == 3)  # under each row's likeliest class
    assert direction.shape == (64,)


def test_a_row_moved_out_of_reach_is_named(digits):
    with torch.no_grad(), pytest.raises(ValueError, match="row 1 has no finite values .* pass smaller amounts"):
        digits._decoded(np.stack([np.zeros((1, 64)), np.full((1, 64), np.inf)]), None)

"""The laws of densities, on trained weights."""

import copy
import math
import warnings
from unittest import SkipTest

import numpy as np
import pytest
import torch
from density_table import COLOUR, DENSITIES, DIGITS, LABELS, TABLE, glow
from scipy.special import logsumexp
from sklearn.datasets import make_moons
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from flowdetect import density as density_room
from flowdetect._images import keyed_uniform
from flowdetect.density import (
    BaseDensity,
    FlowDensity,
    FlowPPDensity,
    GlowDensity,
    IAFDensity,
    MADEDensity,
    MAFDensity,
    NADEDensity,
    PixelCNNDensity,
    PixelRNNDensity,
    PixelVAEDensity,
    PlanarDensity,
    RadialDensity,
    RealNVPDensity,
    TarFlowDensity,
    VAEDensity,
)
from flowdetect.testing import check_density

FEWEST_CHECKS = 40
N_SAMPLES = 2000
KS_LIMIT = 1.95 / math.sqrt(N_SAMPLES)  # exceeded by chance once in a thousand

for_all_densities = pytest.mark.parametrize("case", DENSITIES.values(), ids=DENSITIES)


def checked_by_scikit_learn():
    return [
        FlowPPDensity(n_couplings=(2, 0, 0), hidden_channels=8, n_blocks=1, n_mixtures=2, max_epochs=2),
        GlowDensity(n_steps=1, hidden_channels=8, max_epochs=2),
        IAFDensity(n_transforms=1, hidden_features=(8,), max_epochs=2),
        MADEDensity(hidden_features=(8,), n_orders=2, n_mixtures=2, max_epochs=2),
        MAFDensity(n_transforms=2, hidden_features=(8,), max_epochs=2),
        NADEDensity(n_hidden=8, n_orders=2, n_mixtures=2, max_epochs=2),
        PixelCNNDensity(n_filters=8, n_blocks=1, max_epochs=2),
        PixelRNNDensity(n_filters=8, n_blocks=1, max_epochs=2),
        PixelVAEDensity(latent_dim=2, hidden_channels=8, n_filters=8, max_epochs=2),
        PlanarDensity(n_steps=2, max_epochs=2),
        RadialDensity(n_steps=2, max_epochs=2),
        RealNVPDensity(n_steps=1, n_blocks=1, hidden_channels=8, max_epochs=2),
        TarFlowDensity(n_flows=1, n_layers=1, hidden_channels=8, n_heads=2, max_epochs=2),
        VAEDensity(latent_dim=2, hidden_channels=8, max_epochs=2),
    ]


def test_every_public_density_is_in_the_table():
    public = {getattr(density_room, name) for name in density_room.__all__}
    densities = {value for value in public if isinstance(value, type) and issubclass(value, BaseDensity)}
    assert densities - {BaseDensity, FlowDensity} == {type(case.make()) for case in DENSITIES.values()}


@for_all_densities
def test_laws(case):
    check_density(case.make(), case.X, case.y)


@parametrize_with_checks(checked_by_scikit_learn(), xfail_strict=True)
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("error", SkipTestWarning)
        try:
            check(estimator)
        except SkipTest as skipped:
            pytest.fail(f"skipped: {skipped}")


@pytest.mark.parametrize("density", checked_by_scikit_learn(), ids=lambda density: type(density).__name__)
def test_scikit_learn_has_enough_checks(density):
    assert len(list(estimator_checks_generator(density))) >= FEWEST_CHECKS


def test_torch_images_score_as_numpy_images():
    density = glow(random_state=0).fit(COLOUR)
    tensor = torch.from_numpy(COLOUR).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(density.score_samples(tensor), density.score_samples(COLOUR))


# ---- what a score is


@pytest.fixture(scope="module")
def moons():
    X, y = make_moons(500, noise=0.1, random_state=0)
    return glow(n_steps=3, hidden_channels=16, max_epochs=15, random_state=0).fit(X, y)


@pytest.fixture(scope="module")
def moons_by_class():
    X, y = make_moons(300, noise=0.1, random_state=0)
    return glow(n_steps=2, max_epochs=5, conditional=True, random_state=0).fit(X, y)


@pytest.fixture(scope="module")
def grid():
    side = np.linspace(-6, 6, 401)
    return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2), (side[1] - side[0]) ** 2


def test_integrates_to_one_in_one_dimension():
    X = np.random.default_rng(0).gamma(3.0, size=(300, 1))
    side = np.linspace(-40, 40, 4001)
    density = glow(max_epochs=5).fit(X)
    assert np.trapezoid(np.exp(density.score_samples(side[:, None])), side) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("scale", ["sigmoid", "exp"])
@pytest.mark.parametrize("coupling", ["affine", "additive"])
def test_integrates_to_one_in_two_dimensions(grid, coupling, scale):
    points, area = grid
    X, _ = make_moons(300, noise=0.1, random_state=0)
    density = glow(n_steps=2, max_epochs=5, coupling=coupling, scale=scale, random_state=0).fit(X)
    assert np.exp(density.score_samples(points)).sum() * area == pytest.approx(1, abs=0.01)


def test_each_class_integrates_to_one(grid, moons_by_class):
    points, area = grid
    for label in (0, 1):
        scores = moons_by_class.score_samples(points, np.full(len(points), label))
        assert np.exp(scores).sum() * area == pytest.approx(1, abs=0.01)


def test_in_bins_scores_are_masses():
    rng = np.random.default_rng(0)
    X = np.clip(rng.poisson(2, size=(400, 2)), 0, 7)
    density = glow(n_bins=8, n_steps=2, max_epochs=20, n_draws=64, random_state=0).fit(X)
    every_pair = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2)
    assert 0.7 < np.exp(density.score_samples(every_pair)).sum() <= 1.01


def ks_distance(samples, values, weights):
    """Largest distance of two distribution functions: that of samples, and that of weighted values."""
    order = np.argsort(values)
    expected = np.cumsum(weights[order]) / weights.sum()
    return np.abs(np.searchsorted(np.sort(samples), values[order], side="right") / len(samples) - expected).max()


def test_samples_are_distributed_as_the_density_says(grid, moons):
    points, _ = grid
    scores = moons.score_samples(points)
    samples = moons.sample(N_SAMPLES, random_state=0)
    tolerance = KS_LIMIT + 0.01  # of the grid's step
    assert ks_distance(moons.score_samples(samples), scores, np.exp(scores)) < tolerance
    for direction in ([1, 0], [0, 1], [1, 1], [1, -1]):
        assert ks_distance(samples @ direction, points @ direction, np.exp(scores)) < tolerance


def test_latents_of_samples_are_normal_at_the_temperature(moons):
    for temperature in (1.0, 0.5):
        latents = moons.transform(moons.sample(N_SAMPLES, temperature=temperature, random_state=1))
        assert latents.std(0) == pytest.approx([temperature] * 2, rel=0.06)
        assert latents.mean(0) == pytest.approx([0.0] * 2, abs=0.06)


def test_temperature_zero_is_one_point(moons):
    samples = moons.sample(3, temperature=0, random_state=0)
    np.testing.assert_allclose(samples, np.repeat(samples[:1], 3, axis=0), atol=1e-6)
    np.testing.assert_allclose(moons.transform(samples), 0, atol=1e-4)


# ---- bins and what lies off them


@pytest.fixture(scope="module")
def digits():
    return glow(n_bins=17, n_steps=2, random_state=0).fit(DIGITS[:200])


@pytest.fixture(params=["on the grid", "off the grid", "outside"])
def probes(request):
    rows = DIGITS[:20].reshape(20, 64).astype(float)
    outside = 16.0 * np.where(np.arange(64) % 2, -1, 1)
    return rows + {"on the grid": 0, "off the grid": 0.3, "outside": outside}[request.param]


class TestBins:
    @pytest.mark.parametrize("n_draws", [1, 3])
    def test_a_score_is_the_mean_density_at_x_plus_u(self, digits, probes, n_draws):
        fitted = {1: digits, 3: glow(n_bins=17, n_steps=2, n_draws=3, random_state=0).fit(DIGITS[:200])}[n_draws]
        noises = keyed_uniform(probes, fitted.noise_seed_, n_draws)
        assert 0 <= noises.min() <= noises.max() < 1
        draws = np.stack([fitted.score_samples(probes + u - 0.5, dequantize=False) for u in noises])
        expected = logsumexp(draws, axis=0) - np.log(n_draws)
        np.testing.assert_allclose(fitted.score_samples(probes), expected, rtol=1e-5)

    def test_the_terms_of_several_draws_sum_to_the_score(self, probes):
        fitted = glow(n_bins=17, n_draws=5, random_state=0).fit(DIGITS[:80])
        terms = fitted.likelihood_terms(probes)
        np.testing.assert_allclose(terms.log_pz + terms.log_det, fitted.score_samples(probes), rtol=1e-6)

    def test_more_draws_give_a_tighter_bound(self, digits):
        one, many = (glow(n_bins=17, n_steps=2, n_draws=n, random_state=0).fit(DIGITS[:200]) for n in (1, 30))
        assert many.score(DIGITS[:50]) > one.score(DIGITS[:50])

    def test_latents_are_those_of_the_bins_centres(self, digits, probes):
        tensor = torch.from_numpy(probes).reshape(-1, 1, 8, 8)
        with torch.no_grad():
            model = copy.deepcopy(digits.model_).double()
            z, _ = model.flow(model.preprocess(tensor + 0.5)[0])
            np.testing.assert_allclose(digits.transform(probes), model.top(z)[0], atol=1e-9)

    def test_the_inverse_neither_rounds_nor_clips(self, digits, probes):
        np.testing.assert_allclose(digits.inverse_transform(digits.transform(probes)), probes, atol=1e-6)

    def test_values_are_scored_as_they_are(self, digits, probes):
        for moved in (probes + 0.01, np.clip(probes, 0, 16) if probes.min() < 0 else probes - 0.01):
            assert np.all(digits.score_samples(moved) != digits.score_samples(probes))

    def test_samples_are_on_the_grid(self, digits):
        samples = digits.sample(50, temperature=2.0, random_state=0)
        assert samples.dtype == np.uint8
        assert samples.max() <= 16


# ---- terms and classes


def test_levels_of_the_terms(digits):
    terms = digits.likelihood_terms(DIGITS[:10])
    n_levels = len(digits.latent_slices_)
    for name in ("log_pz_levels", "log_det_levels", "log_det_split_levels"):
        assert terms[name].shape == (10, n_levels)
    assert n_levels == 3
    assert [s.stop - s.start for s in digits.latent_slices_] == [32, 16, 16]
    assert np.ptp(terms.log_det_split_levels[:, :2], axis=0).min() > 0  # networks of what stays
    assert np.ptp(terms.log_det_split_levels[:, 2]) == 0  # the top has nothing to look at


def test_constant_volume(digits):
    flow = glow(n_bins=17, n_steps=2, coupling="additive", split_prior="standard", random_state=0).fit(DIGITS[:200])
    X = np.concatenate([DIGITS[:50], 16 - DIGITS[:50]])
    assert np.ptp(flow.likelihood_terms(X).log_det) == 0
    assert np.all(flow.likelihood_terms(X).log_det_split_levels[:, :2] == 0)
    assert np.ptp(digits.likelihood_terms(X).log_det) > 0.1


def test_the_map_of_grey_levels_varies_the_volume_of_level_1_alone():
    flow = glow(n_bins=17, n_levels=2, coupling="additive", random_state=0).fit(DIGITS[:200])
    terms = flow.likelihood_terms(DIGITS[:50])
    own = np.ptp(terms.log_det_levels - terms.log_det_split_levels, axis=0)
    assert own[0] > 1
    assert own[1] < 1e-6


class TestClasses:
    def test_bayes(self, moons_by_class, grid):
        density, points = moons_by_class, grid[0][::500]
        joint = [density.score_samples(points, np.full(len(points), k)) for k in density.classes_]
        total = logsumexp(np.stack(joint, 1) + density.class_log_prior_, axis=1)
        np.testing.assert_allclose(density.score_samples(points), total, rtol=1e-6)
        assert np.exp(density.class_log_prior_).sum() == pytest.approx(1)

    def test_terms_without_y_are_those_of_the_likeliest_class(self, moons_by_class, grid):
        density, points = moons_by_class, grid[0][::500]
        joint = [density.score_samples(points, np.full(len(points), k)) for k in density.classes_]
        likeliest = density.classes_[np.argmax(np.stack(joint, 1) + density.class_log_prior_, axis=1)]
        terms, of_class = density.likelihood_terms(points), density.likelihood_terms(points, likeliest)
        np.testing.assert_array_equal(terms.log_pz, of_class.log_pz)
        np.testing.assert_array_equal(terms.log_det, of_class.log_det)
        total = terms.log_pz + terms.log_det + terms.log_class
        np.testing.assert_allclose(total, density.score_samples(points), rtol=1e-6)
        np.testing.assert_array_equal(density.transform(points), density.transform(points, likeliest))

    def test_one_noise_for_all_classes(self):
        X, y = DIGITS[:60], LABELS[:60] % 2
        density = glow(n_bins=17, conditional=True, random_state=0).fit(X, y)
        joint = np.stack([density.score_samples(X, np.full(60, k)) for k in (0, 1)], 1) + density.class_log_prior_
        np.testing.assert_allclose(density.score_samples(X), logsumexp(joint, axis=1), rtol=1e-6)

    def test_samples_of_a_class_are_likelier_under_it(self, moons_by_class):
        for own, other in ((0, 1), (1, 0)):
            samples = moons_by_class.sample(500, y=np.full(500, own), random_state=0)
            own_scores, other_scores = (moons_by_class.score_samples(samples, np.full(500, k)) for k in (own, other))
            assert (own_scores - other_scores).mean() > 0.1  # estimates KL(p_own || p_other)

    def test_labels_are_drawn_from_the_prior(self):
        y = np.repeat(["few", "many"], [30, 90])
        X = np.random.default_rng(0).normal((y == "many") * 3.0)[:, None]
        density = glow(conditional=True, max_epochs=20, random_state=0).fit(X, y)
        samples = density.sample(N_SAMPLES, random_state=0)
        joint = density.score_samples(samples, np.full(N_SAMPLES, "many")) + density.class_log_prior_[1]
        posterior = np.exp(joint - density.score_samples(samples))  # its mean under the density is the prior
        assert posterior.std() > 0.2
        assert posterior.mean() == pytest.approx(0.75, abs=0.03)


# ---- check_density must see through densities that break a law


def broken(**methods):
    return type("Broken", (GlowDensity,), methods)(n_steps=1, hidden_channels=8, max_epochs=1)


@pytest.mark.parametrize(
    ("law", "methods"),
    [
        ("fit must return", {"fit": lambda self, X, y=None: GlowDensity.fit(self, X) and None}),
        ("float64 array", {"score_samples": lambda self, X, y=None: GlowDensity.score_samples(self, X)[:, None]}),
        ("mean", {"score": lambda self, X, y=None: float(GlowDensity.score_samples(self, X).sum())}),
        ("bits_per_dim", {"bits_per_dim": lambda self, X, y=None: -GlowDensity.score_samples(self, X)}),
        ("alone", {"score_samples": lambda self, X, y=None: GlowDensity.score_samples(self, X) + 1e-12 * len(X)}),
        ("layout", {"sample": lambda self, n, **options: (GlowDensity.sample(self, n, **options), None)}),
        ("same random_state", {"sample": lambda self, n, **options: GlowDensity.sample(self, n)}),
        ("another random_state", {"sample": lambda self, n, **options: GlowDensity.sample(self, n, random_state=0)}),
    ],
)
def test_broken_densities(law, methods):
    with pytest.raises(AssertionError, match=law):
        check_density(broken(**methods), TABLE)

"""RealNVP: what leaves where, what each dimension contributes, NICE, and densities of tables."""

import copy
import os
import pickle
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.datasets import make_moons
from sklearn.mixture import GaussianMixture

from flowdetect import GlowDensity, RealNVPDensity, load_images
from flowdetect._sources import ArraySource
from flowdetect.bijections import Coupling, Permute, Squeeze
from flowdetect.density import _training, factorization
from flowdetect.density.preprocessing import quantile_knots

RNG = np.random.default_rng(0)
SHAPE = (8, 8, 2)
CONTRIBUTIONS = RNG.normal(size=(3, *SHAPE)).round(1)  # with ties
SMALL = {"n_steps": 1, "n_blocks": 1, "hidden_channels": 8, "batch_size": 32, "random_state": 0}


def blocks(values):
    """(h, w, c) -> (blocks, 4), channel by channel, each in raster order."""
    return factorization.squeeze(np.asarray(values)).reshape(-1, 4)


class TestFactorization:
    def test_squeeze_is_that_of_the_bijection(self):
        values = RNG.normal(size=SHAPE)
        squeezed = Squeeze()(torch.from_numpy(values).permute(2, 0, 1)[None])[0]
        np.testing.assert_array_equal(squeezed[0].permute(1, 2, 0), factorization.squeeze(values))

    @pytest.mark.parametrize(
        "choice",
        [
            factorization.checkerboard,
            factorization.random_half(np.random.default_rng(0)),
            factorization.largest_contributions(CONTRIBUTIONS),
        ],
        ids=["checkerboard", "random", "likelihood"],
    )
    def test_half_of_what_arrives_leaves_at_each_level(self, choice):
        factored = factorization.factor(SHAPE, 3, choice)
        assert np.bincount(factored.ravel()).tolist() == [0, 64, 32, 32]

    def test_two_of_each_block_with_the_largest_contributions_go_on_ties_in_raster_order(self):
        factored = factorization.factor(SHAPE, 2, factorization.largest_contributions(CONTRIBUTIONS))
        for values, levels in zip(blocks(CONTRIBUTIONS[0]), blocks(factored), strict=True):
            best = sorted(range(4), key=lambda i: (-values[i], i))[:2]
            assert {i for i in range(4) if levels[i] == 2} == set(best)

    def test_reversed_is_the_complement(self):
        kept, reverse = (
            factorization.factor(SHAPE, 2, factorization.largest_contributions(CONTRIBUTIONS, reverse))
            for reverse in (False, True)
        )
        np.testing.assert_array_equal(kept == 1, reverse == 2)

    def test_second_level_ranks_what_arrives_there(self):
        contributions = np.zeros((2, 4, 4, 1))
        contributions[0, :, :2] = 1  # ties: the left columns of the outer blocks go on
        contributions[1, :, 0] = [[1], [2], [3], [4]]
        factored = factorization.factor((4, 4, 1), 3, factorization.largest_contributions(contributions))
        goes_on = [[r, c] for r in range(4) for c in range(4) if factored[r, c, 0] > 1]
        assert goes_on == [[0, 0], [0, 1], [0, 2], [0, 3], [2, 0], [2, 1], [2, 2], [2, 3]]

    @pytest.mark.parametrize("n_levels", [2, 3])
    def test_order_puts_what_leaves_first(self, n_levels):
        factored = factorization.factor(SHAPE, n_levels, factorization.random_half(np.random.default_rng(1)))
        arriving = np.arange(factored.size).reshape(SHAPE)
        for level, order in enumerate(factorization.orders(factored), start=1):
            squeezed = factorization.squeeze(arriving)
            ordered = squeezed.ravel()[order].reshape(squeezed.shape)
            leaves, arriving = np.split(ordered, 2, axis=2)
            assert (factored.ravel()[leaves] == level).all()
            assert (factored.ravel()[arriving] > level).all()


def by_autograd(levels, y):
    """Contributions, from the diagonals of the couplings' Jacobians: (L, D) of one image."""
    place = torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape)  # which input dimension stands where
    total, found = torch.zeros(y.numel(), dtype=y.dtype), []
    for level in levels:
        for bijection in level:
            if isinstance(bijection, Coupling):
                jacobian = torch.autograd.functional.jacobian(lambda v, b=bijection: b(v)[0], y)
                diagonal = jacobian.reshape(y.numel(), y.numel()).diagonal()
                total[place.flatten().long()] += diagonal.abs().log()
            if isinstance(bijection, (Squeeze, Permute)):
                place = bijection(place)[0]
            y = bijection(y)[0].detach()
        found.append(total.clone())
    return torch.stack(found)


@pytest.fixture(scope="module")
def unfactored():
    """A trained flow that factors nothing out, of images of two channels."""
    X = RNG.integers(0, 17, size=(64, 8, 8, 2))
    captured = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            RealNVPDensity,
            "_contributions",
            lambda self, spec, model, data: captured.append((self, spec, model, data)) or np.zeros((3, 8, 8, 2)),
        )
        RealNVPDensity(n_bins=17, factorization="likelihood", max_epochs=8, learning_rate=5e-3, **SMALL).fit(X)
    return captured[0]


class TestContributions:
    def test_they_equal_autograds(self, unfactored):
        _, spec, model, data = unfactored
        model = copy.deepcopy(model).double()
        levels = [list(level.bijections) for level in model.flow.levels[0].bijections]
        y = model.preprocessed(spec.to_tensor(data.training.rows(np.arange(3)), "cpu", torch.float64))[0]
        with torch.no_grad():
            ours = factorization.layer_contributions(levels, y)
        for i in range(3):
            expected = by_autograd(levels, y[i : i + 1])
            torch.testing.assert_close(ours[i].flatten(1), expected, atol=1e-10, rtol=1e-10)
        assert ours.abs().amax() > 0.01

    def test_they_are_the_mean_over_the_training_rows(self, unfactored):
        density, spec, model, data = unfactored
        n_rows = len(data.training)
        assert n_rows == 61  # of 64: none that are held out
        noiseless = copy.deepcopy(model)
        noiseless.n_noise = 0
        rows = data.training.rows(np.arange(n_rows))
        singly = [
            density._contributions(spec, noiseless, replace(data, training=ArraySource(row[None]))) for row in rows
        ]
        together = density._contributions(spec, noiseless, data)
        np.testing.assert_allclose(together, np.mean(singly, axis=0), atol=1e-6)

    def test_every_dimension_is_mapped_equally_often(self, unfactored):
        _, _, model, _ = unfactored
        steps = [step for level in model.flow.levels[0].bijections for step in level.bijections]
        count = torch.zeros(1, *model.event_shape)
        with torch.no_grad():
            for step in steps:
                if isinstance(step, Coupling):
                    count += torch.tensor([0.0, 1.0]).repeat_interleave(count.shape[1] // 2)[:, None, None]
                elif isinstance(step, (Squeeze, Permute)):
                    count = step(count)[0]
        assert (count == len([step for step in steps if isinstance(step, Coupling)]) / 2).all()


def noisy_images(n_rows):
    """Faint waves, with noise in every other column, which is no half of any checkerboard."""
    rng = np.random.default_rng(0)
    grid = np.add.outer(np.arange(8), np.arange(8))
    waves = 8 + 1.5 * np.sin(grid * rng.uniform(0.2, 0.4, (n_rows, 1, 1)) + rng.uniform(0, 6, (n_rows, 1, 1)))
    is_noisy = np.broadcast_to(np.arange(8) % 2 == 0, (8, 8))
    return np.where(is_noisy, rng.integers(0, 17, (n_rows, 8, 8)), waves.round()).astype(np.uint8), is_noisy


def small_glow(**settings):
    del settings["n_blocks"]
    return GlowDensity(permutation="reverse", **{**settings, "n_steps": 2})


@pytest.mark.parametrize(
    ("make", "kind", "level_of_noise"),
    [(RealNVPDensity, "likelihood", 1), (RealNVPDensity, "likelihood_reversed", 2), (small_glow, "likelihood", 1)],
)
def test_pixels_known_to_be_noise_leave_first(make, kind, level_of_noise):
    X, is_noisy = noisy_images(600)
    settings = {**SMALL, "hidden_channels": 16, "pretraining": 0.75}
    density = make(n_bins=17, n_levels=2, factorization=kind, max_epochs=16, learning_rate=5e-3, **settings)
    density.fit(X)
    assert ((density.factored_dims_[:, :, 0] == level_of_noise) == is_noisy).mean() > 0.95


class TestSettings:
    def test_the_standard_factorisation_is_a_checkerboard(self):
        X, _ = load_images("digits")
        density = RealNVPDensity(n_bins=17, n_levels=2, max_epochs=1, **SMALL).fit(X[:100])
        board = np.add.outer(np.arange(8), np.arange(8)) % 2 + 1
        np.testing.assert_array_equal(density.factored_dims_[:, :, 0], board)

    def test_nice_has_constant_volume(self):
        X, _ = load_images("digits")
        density = RealNVPDensity(
            n_bins=17, coupling="additive", normalization="none", n_levels=1, max_epochs=2, **SMALL
        ).fit(X[:100])
        assert np.ptp(density.likelihood_terms(X[:50]).log_det) < 1e-3

    def test_the_choice_is_saved_and_kept_by_warm_starts(self, tmp_path):
        from flowdetect import load

        X, _ = load_images("digits")
        density = RealNVPDensity(n_bins=17, n_levels=2, factorization="random", max_epochs=1, warm_start=True, **SMALL)
        factored = density.fit(X[:100]).factored_dims_
        density.save(tmp_path / "density")
        np.testing.assert_array_equal(load(tmp_path / "density").factored_dims_, factored)
        np.testing.assert_array_equal(density.fit(X[:100]).factored_dims_, factored)

    def test_ctrl_c_within_the_pretraining_leaves_the_flow_that_factors_nothing_out(self, monkeypatch):
        X, _ = load_images("digits")
        density = RealNVPDensity(n_bins=17, n_levels=2, factorization="likelihood", max_epochs=24, **SMALL)
        step = _training.Training._step

        def interrupted(self, *args):
            if self.step == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return step(self, *args)

        monkeypatch.setattr(_training.Training, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            density.fit(X[:100])
        assert (density.factored_dims_ == 2).all()
        scores = density.score_samples(X[:10])
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(density)).score_samples(X[:10]), scores)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"factorization": "likelihood", "n_levels": 1}, 'there is only one level; pass "standard"'),
            (
                {"factorization": "likelihood", "coupling": "additive"},
                'additive couplings have no scales; pass coupling="affine"',
            ),
            ({"n_levels": 4}, r"allow 3 level\(s\), got n_levels=4"),
        ],
    )
    def test_what_cannot_be_is_refused(self, settings, words):
        X, _ = load_images("digits")
        with pytest.raises(ValueError, match=words):
            RealNVPDensity(n_bins=17, max_epochs=1, **{**SMALL, **settings}).fit(X[:100])

    def test_a_table_has_one_level(self):
        X = RNG.normal(size=(50, 4))
        with pytest.raises(ValueError, match="RealNVPDensity has one level on a table, got n_levels=2"):
            RealNVPDensity(n_levels=2, max_epochs=1, **SMALL).fit(X)
        with pytest.raises(ValueError, match="there is only one level"):
            RealNVPDensity(factorization="random", max_epochs=1, **SMALL).fit(X)


class TestKnots:
    def test_a_normal_column_is_left_about_as_it_is(self):
        x, z = quantile_knots(np.random.default_rng(0).normal(size=(20_000, 1)))
        inner = np.abs(x[0]) < 1.3  # farther out the uniform share tells
        np.testing.assert_allclose(z[0, inner], x[0, inner], atol=0.2)

    @given(st.integers(0, 2**31), st.sampled_from([2, 30, 200]), st.booleans())
    def test_they_increase_whatever_the_ties(self, seed, n_rows, tied):
        rng = np.random.default_rng(seed)
        rows = rng.standard_cauchy((n_rows, 3)) if not tied else rng.integers(0, 3, (n_rows, 3)).astype(float)
        rows[:2] = [[0, 0, 0], [1, 1, 1]]
        knots = quantile_knots(rows)
        assert (np.diff(knots, axis=2) > 0).all()
        assert (knots[0, :, 0] < rows.min(0)).all()
        assert (knots[0, :, -1] > rows.max(0)).all()


class TestTables:
    @pytest.mark.parametrize("smallest", [1.0, 1e-3])
    def test_correlated_normal_columns(self, smallest):
        rng = np.random.default_rng(0)
        mix = np.linalg.qr(rng.normal(size=(4, 4)))[0] * [1, 2, 3, smallest]
        X, X_test = (rng.normal(size=(2000, 4)) @ mix.T for _ in range(2))
        truth = multivariate_normal(np.zeros(4), mix @ mix.T).logpdf(X_test).mean()
        density = RealNVPDensity(max_epochs=10, **SMALL).fit(X)
        assert density.score(X_test) == pytest.approx(truth, abs=0.1)

    def test_few_rows_of_many_columns_are_no_worse_than_a_gaussian(self):
        X, X_test = (RNG.normal(size=(n, 20)) for n in (60, 1000))
        gaussian = GaussianMixture(1, reg_covar=1e-3).fit(X).score(X_test)
        assert RealNVPDensity(**{**SMALL, "batch_size": 64}).fit(X).score(X_test) > gaussian

    @pytest.mark.parametrize("coupling", ["spline", "affine", "additive"])
    def test_they_integrate_to_one(self, coupling):
        X, _ = make_moons(500, noise=0.1, random_state=0)
        density = RealNVPDensity(coupling=coupling, max_epochs=20, learning_rate=5e-3, **SMALL).fit(X)
        side = np.linspace(-4, 5, 901)
        points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
        p = np.exp(density.score_samples(points))
        assert p.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.01)
        # as many samples where the density is above its median as it says
        high = p > np.median(p[p > 1e-3])
        share = p[high].sum() / p.sum()
        index = np.searchsorted(side, density.sample(4000, random_state=0)).clip(0, 900)
        assert high.reshape(901, 901)[index[:, 1], index[:, 0]].mean() == pytest.approx(share, abs=0.03)

    def test_one_column_of_two_heaps(self):
        X = np.concatenate([RNG.normal(-3, 0.2, (300, 1)), RNG.normal(2, 0.5, (300, 1))])
        density = RealNVPDensity(max_epochs=30, learning_rate=1e-2, **SMALL).fit(X)
        side = np.linspace(-15, 15, 30_001)  # fine, as the density jumps at knots
        p = np.exp(density.score_samples(side[:, None]))
        assert np.trapezoid(p, side) == pytest.approx(1, abs=1e-3)
        assert density.score(X) > GaussianMixture(1).fit(X).score(X) + 1

    def test_the_flow_starts_at_a_gaussian_copula(self):
        X = RNG.normal(size=(500, 3)) @ [[1, 2, 0], [0, 1, 2], [0, 0, 1]]
        density = RealNVPDensity(max_epochs=1, learning_rate=1e-9, **SMALL).fit(X)
        assert np.corrcoef(density.transform(X).T) == pytest.approx(np.eye(3), abs=0.05)

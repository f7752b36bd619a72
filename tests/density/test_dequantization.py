"""Learned dequantisation noise: a distribution on the bin, a bound below the exact sum, tighter than uniform noise."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from density_table import DIGITS, TABLE, glow, maf, realnvp

import flowdetect

N_BINS, SIDE = 4, 160
RNG = np.random.default_rng(0)
X = np.stack([RNG.binomial(3, 0.05, 300), RNG.binomial(3, 0.9, 300)], 1)
PAIRS = np.array(list(product(range(N_BINS), repeat=2)))
POINTS = (np.arange(SIDE) + 0.5) / SIDE
GRID = torch.from_numpy(np.array(list(product(POINTS, repeat=2))))[:, :, None, None]  # of [0, 1)^2


def fitted(**settings):
    given = {"n_bins": N_BINS, "n_steps": 2, "max_epochs": 30, "batch_size": 30, "learning_rate": 1e-2}
    return glow(**{**given, "random_state": 0, "dequantization": "variational", **settings}).fit(X)


@pytest.fixture(scope="module")
def density():
    return fitted()


@pytest.fixture(scope="module")
def model(density):
    return copy.deepcopy(density.model_).double()


@pytest.fixture(scope="module")
def log_masses(model):
    """log P(x) of each pair: the integral of the flow's density over its bin."""
    found = []
    with torch.no_grad():
        for pair in PAIRS:
            y, log_det = model.preprocess(torch.from_numpy(pair)[:, None, None] + GRID)
            for bijection in (model.flow, model.top):
                y, term = bijection(y, None)
                log_det = log_det + term
            log_p = -0.5 * (y.square().sum(1) + 2 * np.log(2 * np.pi)) + log_det
            found.append(torch.logsumexp(log_p, 0).item() - np.log(len(GRID)))
    return np.array(found)


def log_q(model, x, u):
    """log q(u | x) of one pair and many u, by the flow's inverse."""
    rows = torch.tensor(x, dtype=torch.float64)[None, :, None, None]
    layer, seen = model.dequantize, model.preprocess((rows + 0.5).clamp(0, N_BINS))[0]
    features = layer.net(seen).expand(len(u), -1, -1, -1)
    v = torch.special.ndtri(u)
    e = layer.flow.inverse(v, features)
    log_det = layer.flow(e, features)[1]
    return (0.5 * (v.square() - e.square())).sum((1, 2, 3)) - log_det


class TestAgainstQuadrature:
    def test_the_masses_are_a_distribution(self, log_masses):
        assert 0.9 < np.exp(log_masses).sum() < 1.0

    @pytest.mark.parametrize("x", [(0, 2), (3, 0), (1, 3), (0.4, 1.7)])
    def test_q_integrates_to_one_over_the_bin(self, model, x):
        with torch.no_grad():
            assert log_q(model, x, GRID).exp().mean().item() == pytest.approx(
                1, abs=0.02
            )  # it may rise towards an edge

    def test_q_has_learned(self, model):
        with torch.no_grad():
            assert log_q(model, (0, 2), GRID).exp().std() > 0.1

    def test_the_mean_score_is_below_the_exact_log_mass(self, model, log_masses):
        n, generator = 4000, torch.Generator().manual_seed(0)
        for pair, log_mass in zip(PAIRS, log_masses, strict=True):
            x = torch.from_numpy(pair).double()[None, :, None, None].expand(n, -1, -1, -1)
            with torch.no_grad():
                draws = model.log_prob(x, None, torch.rand(n, 2, generator=generator, dtype=torch.float64))
            error = draws.std().item() / n**0.5
            assert draws.mean().item() < log_mass + 3 * error
            # and the weights are right: the mean probability is the mass itself
            weights = (draws - log_mass).exp()
            assert weights.mean().item() == pytest.approx(1, abs=4 * weights.std().item() / n**0.5 + 1e-3)

    def test_the_centre_has_its_own_weight(self, model):
        pair = torch.tensor([1.0, 2.0], dtype=torch.float64)[None, :, None, None]
        with torch.no_grad():
            v, term = model.dequantize(pair, model.preprocess(pair + 0.5)[0], None)
            assert v.flatten().tolist() == [1.5, 2.5]
            half = torch.full((1, 2, 1, 1), 0.5, dtype=torch.float64)
            assert term.item() == pytest.approx(-log_q(model, (1, 2), half).item(), abs=1e-9)

    def test_the_bound_is_tighter_than_with_uniform_noise(self, density):
        uniform = fitted(dequantization="uniform")
        assert density.score(X) > uniform.score(X) + 0.02


def test_noise_stays_within_the_bin():
    layer = fitted(max_epochs=1, n_bins=256).model_.dequantize
    x = torch.tensor([[0.0, 255.0]]).reshape(1, 2, 1, 1).expand(64, -1, -1, -1)
    with torch.no_grad():
        list(layer.flow.bijections)[-1].net.biases[-1].copy_(torch.tensor([50.0, 50.0, 0, 0]))  # -50 as a shift
        for sign in (1, -1):
            list(layer.flow.bijections)[-1].net.biases[-1][:2] = sign * 50.0
            v, term = layer(x, x / 255, torch.rand(64, 2, generator=torch.Generator().manual_seed(0)))
            assert torch.equal(v.floor(), x)
            assert torch.isfinite(term).all()


def test_a_fresh_q_is_uniform():
    density = glow(n_bins=17, dequantization="variational", max_epochs=1, learning_rate=1e-12, random_state=0)
    terms = density.fit(DIGITS[:80]).likelihood_terms(DIGITS[:5])
    np.testing.assert_allclose(terms.minus_log_q, 0, atol=1e-4)


def test_the_part_of_q_is_named_and_belongs_to_level_1(density):
    terms = density.likelihood_terms(X[:5])
    assert terms.minus_log_q.shape == (5,)
    assert np.abs(terms.minus_log_q).min() > 0
    np.testing.assert_allclose(terms.log_pz + terms.log_det, density.score_samples(X[:5]), rtol=1e-5)
    assert "minus_log_q" not in fitted(dequantization="uniform", max_epochs=1).likelihood_terms(X[:5])


@pytest.mark.parametrize("make", [glow, realnvp, maf])
def test_real_values_need_no_noise(make):
    with pytest.raises(ValueError, match=r'dequantization="variational" is for data in bins.*pass "uniform"'):
        make(dequantization="variational").fit(TABLE)


def test_training_goes_on_from_a_file_without_the_parameter(tmp_path):
    density = fitted(dequantization="uniform", max_epochs=1)
    del density._fitted_params["dequantization"]
    density.save(tmp_path / "older")
    loaded = flowdetect.load(tmp_path / "older")
    loaded.set_params(warm_start=True).fit(X)
    with pytest.raises(ValueError, match="dequantization was 'uniform', is 'variational'"):
        loaded.set_params(dequantization="variational").fit(X)

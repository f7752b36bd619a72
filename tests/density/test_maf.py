"""MAF: masks, inverses in parallel and one feature after the other, and densities of tables and small images."""

import copy
import time

import numpy as np
import pytest
import torch
from bijection_table import randomize
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_moons

from flowdetect import MAFDensity
from flowdetect.bijections import Autoregressive, Chain
from flowdetect.nets.masked import MADE

MOONS, MOON_LABELS = make_moons(500, noise=0.1, random_state=0)
SMALL = {"n_transforms": 2, "hidden_features": (16,), "random_state": 0}


def random_layer(n_features, seed=0, **settings):
    layer = Autoregressive((n_features, 1, 1), **settings)
    return randomize(layer, torch.Generator().manual_seed(seed)).double().eval()


def rows(n, n_features, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n_features, 1, 1, generator=generator, dtype=torch.float64)


def jacobian_of(layer, x):
    found = torch.autograd.functional.jacobian(lambda row: layer(row)[0].flatten(), x)
    return found.reshape(x.numel(), x.numel())


# ---- masks


@given(st.integers(1, 7), st.lists(st.integers(1, 12), max_size=3), st.integers(1, 3), st.integers(0, 2**31))
def test_a_feature_sees_those_before_it_and_no_other(n_features, widths, n_outputs, seed):
    net = randomize(MADE(n_features, widths, n_outputs), torch.Generator().manual_seed(seed)).double()
    generator = torch.Generator().manual_seed(seed)
    seen = torch.zeros(n_features, n_features, dtype=torch.bool)
    for _ in range(8):  # a ReLU may be off at some inputs
        x = torch.randn(1, n_features, generator=generator, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda row: net(row.t())[..., 0], x)[:, :, 0]  # (outputs, D, D)
        seen |= jacobian.abs().sum(0) > 0
    assert not torch.triu(seen).any()


def test_every_feature_is_seen_by_all_later_ones_however_narrow_the_network():
    net = MADE(9, (4, 4), 2)
    paths = torch.eye(9)
    for layer in (*net.hidden, net.out):
        paths = layer.mask @ paths
    reached = paths.reshape(2, 9, 9).sum(0) > 0
    assert torch.equal(reached, torch.tril(torch.ones(9, 9), -1) > 0)


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
@pytest.mark.parametrize("univariate", ["affine", "spline"])
def test_the_jacobian_is_triangular_in_the_layers_order(order, univariate):
    layer = random_layer(5, univariate=univariate, order=order)
    jacobian = jacobian_of(layer, rows(1, 5))[layer.order][:, layer.order]
    assert not torch.triu(jacobian, 1).any()
    assert (jacobian.diagonal() > 0).all()


@pytest.mark.parametrize("univariate", ["affine", "spline"])
@pytest.mark.parametrize("shape", [(6, 1, 1), (2, 2, 3)], ids=["table", "image"])
def test_log_det_is_autograds(univariate, shape):
    layers = [Autoregressive(shape, (16, 16), univariate, order) for order in ("forward", "reverse", "random")]
    chain = randomize(Chain(layers), torch.Generator().manual_seed(3)).double()
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    log_det = chain(x)[1]
    for i in range(len(x)):
        expected = torch.linalg.slogdet(jacobian_of(chain, x[i : i + 1]))[1]
        assert log_det[i].item() == pytest.approx(expected.item(), abs=1e-8)


@pytest.mark.parametrize("univariate", ["affine", "spline"])
@pytest.mark.parametrize("n_features", [1, 5, 10])
@pytest.mark.parametrize("n_rows", [16, 80, 400])  # no multiples of 64, where torch's sums round by place
@torch.no_grad()
def test_a_row_is_mapped_to_the_same_bits_wherever_it_stands(univariate, n_features, n_rows):
    layers = [Autoregressive((n_features, 1, 1), (16,), univariate, order) for order in ("forward", "random")]
    chain = randomize(Chain(layers), torch.Generator().manual_seed(0)).eval()
    x = rows(n_rows, n_features).float()
    shuffled = torch.randperm(n_rows, generator=torch.Generator().manual_seed(2))
    n_threads = torch.get_num_threads()
    z, log_det = chain(x)
    norms = z.flatten(1).square().sum(1)
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            z_found, log_det_found = chain(x[shuffled])
            assert torch.equal(z_found, z[shuffled])
            assert torch.equal(log_det_found, log_det[shuffled])
            assert torch.equal(z_found.flatten(1).square().sum(1), norms[shuffled])
    finally:
        torch.set_num_threads(n_threads)


# ---- inverses


@pytest.mark.parametrize("univariate", ["affine", "spline"])
@pytest.mark.parametrize("n_features", [1, 2, 10, 64])
@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_both_inverses_are_equal(univariate, n_features, spread):
    layer = random_layer(n_features, univariate=univariate, order="random", hidden_features=(64, 64))
    z = spread * rows(20, n_features)
    parallel, sequential = layer.inverse(z), layer.inverse_sequential(z)
    assert ((parallel - sequential).abs() <= 1e-6 * (1 + sequential.abs())).all()
    torch.testing.assert_close(layer(parallel)[0], z, atol=1e-7, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("univariate", ["affine", "spline"])
def test_the_parallel_inverse_is_three_times_as_fast_at_64_features(univariate):
    X = np.random.default_rng(0).normal(size=(400, 64)) @ np.random.default_rng(1).normal(size=(64, 64)) / 8
    density = MAFDensity(n_transforms=1, univariate=univariate, max_epochs=5, random_state=0).fit(X)
    layer = copy.deepcopy(density.model_.flow.levels[0].bijections[0]).double()
    z = rows(64, 64)  # as many as are sampled at once
    best = {}
    for name in ("inverse", "inverse_sequential") * 3:
        started = time.perf_counter()
        getattr(layer, name)(z)
        best[name] = min(time.perf_counter() - started, best.get(name, np.inf))
    assert best["inverse_sequential"] > 3 * best["inverse"]
    torch.testing.assert_close(layer.inverse(z), layer.inverse_sequential(z), atol=1e-6, rtol=1e-6)


# ---- the density


@pytest.fixture(scope="module")
def grid():
    side = np.linspace(-3, 4, 401)
    return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2), (side[1] - side[0]) ** 2


@pytest.mark.parametrize("order", ["reverse", "random"])
@pytest.mark.parametrize("univariate", ["affine", "spline"])
def test_it_integrates_to_one(grid, univariate, order):
    points, area = grid
    density = MAFDensity(univariate=univariate, order=order, max_epochs=20, learning_rate=5e-3, **SMALL).fit(MOONS)
    assert np.exp(density.score_samples(points)).sum() * area == pytest.approx(1, abs=0.01)
    assert density.score_is_bound_ is False


def test_each_class_integrates_to_one_and_differs(grid):
    points, area = grid
    density = MAFDensity(conditional=True, max_epochs=20, learning_rate=5e-3, **SMALL).fit(MOONS, MOON_LABELS)
    p = [np.exp(density.score_samples(points, np.full(len(points), label))) for label in (0, 1)]
    for of_class in p:
        assert of_class.sum() * area == pytest.approx(1, abs=0.01)
    assert 0.5 * np.abs(p[0] - p[1]).sum() * area > 0.5  # total variation
    own = density.score_samples(MOONS, MOON_LABELS).mean()
    assert own > density.score_samples(MOONS, 1 - MOON_LABELS).mean() + 1


def test_splines_fit_more_than_affine_maps():
    (X, _), (test, _) = (make_moons(2000, noise=0.1, random_state=seed) for seed in (0, 1))
    settings = {"n_transforms": 3, "hidden_features": (32, 32), "max_epochs": 40, "learning_rate": 3e-3}
    scores = {
        kind: MAFDensity(univariate=kind, random_state=0, **settings).fit(X).score(test)
        for kind in ("affine", "spline")
    }
    assert scores["spline"] > scores["affine"] + 0.05


def test_samples_are_distributed_as_the_density_says():
    density = MAFDensity(max_epochs=20, learning_rate=5e-3, **SMALL).fit(MOONS)
    latents = density.transform(density.sample(2000, random_state=0))
    assert latents.mean(0) == pytest.approx([0, 0], abs=0.08)
    assert np.cov(latents.T) == pytest.approx(np.eye(2), abs=0.1)


@pytest.mark.parametrize("widths", [(0,), (8, 2.5), ("8",), (True,)])
def test_widths_that_are_none_are_refused(widths):
    with pytest.raises(ValueError, match=r"hidden_features must hold whole numbers from 1 to 65536, got .*\(64, 64\)"):
        MAFDensity(hidden_features=widths).fit(MOONS)

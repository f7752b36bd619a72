"""The laws of derivatives: gradients by layer, curvature and derivatives along directions, against differences."""

import copy

import numpy as np
import pytest
import torch
from density_table import DENSITIES, TABLE, glow


def test_gradient_norms_are_those_of_finite_differences():
    density = glow(random_state=0).fit(TABLE[:, :2])
    norms, row = (
        density.layer_gradient_norms(TABLE[:2, :2])[0],
        density.spec_.to_tensor(TABLE[:1, :2], "cpu", torch.float64),
    )
    assert norms.shape == (len(density.layer_names_),)
    model = copy.deepcopy(density.model_).double()
    squares = dict.fromkeys(density.layer_names_, 0.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values, step = parameter.reshape(-1), 1e-6
            for i in range(len(values)):
                ends = []
                for sign in (1, -1):
                    values[i] += sign * step
                    ends.append(model.log_prob(row).item())
                    values[i] -= sign * step
                squares[name.rpartition(".")[0]] += ((ends[0] - ends[1]) / (2 * step)) ** 2
    np.testing.assert_allclose(norms, np.sqrt(list(squares.values())), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["Glow, five columns", "Glow, five columns by class", "Glow, digits"])
def test_curvature_is_that_of_finite_differences(name):
    case = DENSITIES[name]
    density = case.make(random_state=0).fit(case.X, case.y)
    y = None if case.y is None else case.y[:1]
    spec, model = density.spec_, copy.deepcopy(density.model_).double()
    labels = None if y is None else density.classes_.searchsorted(y)
    x = np.asarray(case.X[:1], dtype=float).reshape(1, -1)

    def log_p(rows):
        tensor = spec.to_tensor(rows, "cpu", torch.float64)
        context = None if labels is None else spec.to_context(np.repeat(labels, len(rows)), "cpu")
        with torch.no_grad():
            return model.log_prob(tensor, context).numpy()

    scale = np.full(x.size, 17.0) if spec.scale is None else spec.scale
    step = 1e-5 * scale  # short: ReLUs make log p bend at once
    steps = np.diag(step)
    expected = (log_p(x + steps) - 2 * log_p(x) + log_p(x - steps)) / step**2
    np.testing.assert_allclose(density.curvature(case.X[0:1], y) * scale**2, expected * scale**2, rtol=1e-3, atol=1e-2)
    directions = np.random.default_rng(0).normal(size=(20, x.size)) * scale
    t = 1e-5
    ahead, here, behind = log_p(x + t * directions), log_p(x), log_p(x - t * directions)
    first, second = density.directional_derivatives(case.X[0:1], directions, y)
    np.testing.assert_allclose(first, (ahead - behind) / (2 * t), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(second, (ahead - 2 * here + behind) / t**2, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", DENSITIES)
def test_every_density_has_directional_derivatives(name):
    case = DENSITIES[name]
    density = case.make(random_state=0).fit(case.X, case.y)
    directions = np.random.default_rng(0).normal(size=(3, density.n_features_in_))
    found = density.directional_derivatives(case.X[:1], directions)
    assert np.isfinite(found).all()
    back = density.directional_derivatives(case.X[:1], -directions)
    np.testing.assert_allclose(back, np.array([[-1], [1]]) * found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["Glow, five columns by class", "PixelCNN, digits", "RealNVP, five columns"])
def test_second_derivatives_along_an_axis_are_the_curvature(name):
    case = DENSITIES[name]
    density = case.make(random_state=0).fit(case.X, case.y)
    D = density.n_features_in_
    axes = np.eye(D)[:: max(1, D // 8)]
    _, second = density.directional_derivatives(case.X[:1], axes)  # a conditional one summed over its classes
    np.testing.assert_allclose(second, (axes @ density.curvature(case.X[:1])), rtol=1e-6, atol=1e-9)


def test_curvature_of_a_gaussian():
    X = np.random.default_rng(0).normal(3, 2, size=(500, 1))
    density = glow(max_epochs=5, random_state=0).fit(X)
    variance = density.sample(20_000, random_state=0).var()
    assert density.curvature(X[0])[0] == pytest.approx(-1 / variance, rel=0.05)
    assert density.curvature(X[0]) == pytest.approx(density.curvature(X[1]))


def test_curvature_along_a_constant_column_is_none():
    X = np.column_stack([np.ones(60), TABLE[:, :2]])
    with pytest.warns(UserWarning, match="constant"):
        found = glow(random_state=0).fit(X).curvature(X[0])
    np.testing.assert_array_equal(found != 0, [False, True, True])

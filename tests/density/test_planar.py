"""Planar and radial flows: integrals, what more steps fit, classes, and samples that invert the steps."""

import numpy as np
import pytest
from sklearn.datasets import make_moons

from flowdetect import PlanarDensity, RadialDensity

KINDS = pytest.mark.parametrize("kind", [PlanarDensity, RadialDensity])
MOONS = make_moons(600, noise=0.1, random_state=0)
HELD_OUT = make_moons(600, noise=0.1, random_state=1)


@KINDS
def test_a_column_integrates_to_one(kind):
    X = np.random.default_rng(0).gamma(2.0, size=(300, 1))
    density = kind(n_steps=4, max_epochs=20, random_state=0).fit(X)
    side = np.linspace(-30, 60, 5001)
    assert np.trapezoid(np.exp(density.score_samples(side[:, None])), side) == pytest.approx(1, abs=1e-3)


@KINDS
def test_more_steps_fit_more_and_integrate_to_one(kind):
    fits = []
    for n_steps in (1, 8):
        density = kind(n_steps=n_steps, max_epochs=60, random_state=0).fit(MOONS[0])
        fits.append(density.score(HELD_OUT[0]))
    assert fits[1] > fits[0] + 0.1
    side = np.linspace(-6, 6, 201)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    scores = density.score_samples(grid)
    masses = np.exp(scores) * (side[1] - side[0]) ** 2
    assert masses.sum() == pytest.approx(1, abs=2e-3)
    samples, mean = density.sample(2000, random_state=0), masses @ grid
    np.testing.assert_allclose(samples.mean(0), mean, atol=0.1)  # the standard errors are about 0.02
    np.testing.assert_allclose(samples.std(0), np.sqrt(masses @ (grid - mean) ** 2), rtol=0.1)
    assert density.score(samples) == pytest.approx(masses @ scores, abs=0.1)


@KINDS
def test_classes(kind):
    X, y = MOONS
    density = kind(n_steps=8, conditional=True, max_epochs=40, random_state=0).fit(X, y)
    own, other = density.score_samples(X, y), density.score_samples(X, 1 - y)
    assert (own > other).mean() > 0.9
    samples = density.sample(400, y=np.repeat([0, 1], 200), random_state=0)
    assert samples[:200, 1].mean() > samples[200:, 1].mean() + 0.3  # the first moon lies higher
    Z = density.transform(X, y)
    np.testing.assert_allclose(density.inverse_transform(Z, y), X, atol=1e-8)


@KINDS
def test_far_latents_have_finite_rows(kind):
    density = kind(n_steps=8, max_epochs=5, random_state=0).fit(MOONS[0])
    Z = np.array([[1e6, -1e6], [0.0, 300.0]])
    X = density.inverse_transform(Z)
    assert np.isfinite(X).all()
    np.testing.assert_allclose(density.transform(X), Z, rtol=1e-7, atol=1e-9)

"""PixelVAE: the bound against exact values by enumeration and quadrature, what pixels see, samples, latents in use."""

import copy

import numpy as np
import pytest
import torch
from autoregressive_checks import assert_samples_follow, dependence, drawn
from pixelcnn_sizes import DIGITS, every_image
from scipy.special import logsumexp
from scipy.stats import norm
from torch import nn
from torch.distributions import Normal, kl_divergence

from flowdetect.density import PixelVAEDensity
from flowdetect.density.pixelvae import MappedMLP, MappedNet


def small(**settings):
    shared = {"latent_dim": 2, "hidden_channels": 8, "n_filters": 8, "max_epochs": 2, "batch_size": 64}
    return PixelVAEDensity(**{"random_state": 0, **shared, **settings})


# ---- exact values: 2x2 images of 4 values, one latent

IMAGES, DRAWS = every_image(4, 2, 2)
GRID = np.linspace(-8, 8, 801)


@pytest.fixture(scope="module")
def enumerated():
    """A PixelVAE that uses its latent, its model in float64, all images, log p(x | z) and log p(z) on a grid of z."""
    settings = {"n_bins": 4, "latent_dim": 1, "max_epochs": 4, "learning_rate": 1e-2, "free_bits": 0.5}
    density = small(**settings).fit(DRAWS)
    model = copy.deepcopy(density.model_).double()
    x = density.spec_.to_tensor(IMAGES.reshape(256, -1), "cpu", torch.float64)
    with torch.no_grad():
        log_px = [model._log_px(x, torch.full((256, 1), float(z), dtype=torch.float64), None).numpy() for z in GRID]
    return density, model, x, np.stack(log_px, 1), norm.logpdf(GRID)


def integral(log_values):
    return logsumexp(log_values, axis=-1) + np.log(GRID[1] - GRID[0])


@torch.no_grad()
def bound(model, x, n_points=200):
    """E_q of log p(x | z) + log p(z) - log q(z | x), at evenly spaced quantiles of q: (n,)."""
    u = (torch.arange(n_points, dtype=torch.float64) + 0.5) / n_points
    return torch.stack([model.log_prob(x, None, each.expand(len(x), 1)) for each in u]).mean(0).numpy()


def test_the_bound_is_below_the_exact_value_of_every_image(enumerated):
    _, model, x, log_px, log_pz = enumerated
    joint = log_px + log_pz
    exact = integral(joint)
    assert np.exp(exact).sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(np.exp(log_px).sum(0), 1, atol=1e-6)  # of p(x | z), at every z
    assert np.ptp(log_px, axis=1).max() > 1  # p(x | z) heeds z
    found = bound(model, x)
    assert (found < exact).all()
    with torch.no_grad():
        mean, log_s = (each.numpy() for each in model.posterior(x))
    log_q = norm.logpdf(GRID, mean, np.exp(log_s))
    gap = (np.exp(log_q) * (log_q - joint + exact[:, None])).sum(1) * (GRID[1] - GRID[0])  # KL(q || p(z | x))
    np.testing.assert_allclose(exact - found, gap, atol=0.02, rtol=0.02)


def test_importance_weighting_comes_closer(enumerated):
    _, model, x, log_px, log_pz = enumerated
    exact = integral(log_px + log_pz)
    u = torch.rand(256, len(x), 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        draws = model.log_prob_draws(x, None, list(u)).numpy()
    gaps = {}  # in the mean over p(x)
    for k in (1, 8, 64):
        bounds = logsumexp(draws.reshape(-1, k, len(x)), axis=1) - np.log(k)
        gaps[k] = (np.exp(exact) * (exact - bounds.mean(0))).sum()
    assert gaps[64] < gaps[8] < gaps[1]
    assert -0.01 < gaps[64] < 0.5 * gaps[1]


def test_samples_follow_the_exact_masses(enumerated):
    density, _, _, log_px, log_pz = enumerated
    assert_samples_follow(density.sample(4000, random_state=0), IMAGES, integral(log_px + log_pz), 4)


# ---- what depends on what


class AtMap(nn.Module):
    """A network at a fixed map."""

    def __init__(self, net, decoded):
        super().__init__()
        self.net = net
        self.register_buffer("decoded", decoded)

    def forward(self, x):
        return self.net(x, self.decoded)


def decoded_map(*shape):
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("kernel", "n_blocks"), [(3, 1), (3, 2), (5, 1)])
def test_pixels_see_as_far_as_is_said(kernel, n_blocks):
    height, width, reach = 5, 7, kernel // 2 + n_blocks
    net = drawn(MappedNet(1, 8, 4, kernel, n_blocks))
    found = dependence(AtMap(net, decoded_map(4, height, width)), (1, height, width))
    assert not np.triu(found).any()
    i, j = np.divmod(np.arange(height * width), width)
    up, aside = i[:, None] - i, np.abs(j[:, None] - j)
    assert not found[(up > reach) | (aside > reach)].any()
    assert found[(up == reach) & (aside == 0)].all()
    assert found[(up == 0) & (j[:, None] - j == reach)].all()


def test_columns_see_all_columns_before_them():
    net = drawn(MappedMLP(5, 8, 3, 1))
    found = dependence(AtMap(net, decoded_map(3, 5, 1)), (1, 5, 1))
    np.testing.assert_array_equal(found, np.tril(np.ones((5, 5)), -1))


def test_each_pixel_sees_its_own_place_of_the_map():
    net = drawn(MappedNet(1, 8, 4, 3, 1)).double()
    image, decoded = torch.zeros(1, 1, 3, 3, dtype=torch.float64), decoded_map(4, 3, 3).double()
    jacobian = torch.autograd.functional.jacobian(lambda each: net(image, each).sum(1).flatten(), decoded)
    assert (jacobian.abs().sum((1, 2)).flatten(1).diagonal() > 0).all()


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 3), (4,)], ids=["grey", "colour", "table"])
def test_drawing_with_caches_equals_naive_drawing(shape):
    X = np.random.default_rng(0).integers(0, 9, (60, *shape)).astype(np.uint8)
    model = copy.deepcopy(small(n_bins=9, n_causal_blocks=2).fit(X).model_).double()
    h = model.decoder(torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).detach()
    u = torch.rand(4, model.likelihood.n_uniforms, *h.shape[2:], generator=torch.Generator().manual_seed(2)).double()
    net, head = model.likelihood.net, model.likelihood.head
    with torch.no_grad():
        y = h.new_zeros(4, head.channels, *h.shape[2:])
        for i in range(h.shape[2]):
            for j in range(h.shape[3]):
                at = (slice(None), slice(None), slice(i, i + 1), slice(j, j + 1))
                y[at] = head.draw(net(y, h)[at], u[at], 1.0)
        torch.testing.assert_close(model.likelihood.draw(h, u, 1.0), y, atol=0, rtol=0)


# ---- latents in use


def kl(density, X):
    """Mean of the KL divergence of q(z | x) from the prior, in bits of each latent dimension."""
    with torch.no_grad():
        mean, log_s = density.model_.posterior(density.spec_.to_tensor(X.reshape(len(X), -1), "cpu"))
        return kl_divergence(Normal(mean, log_s.exp()), Normal(0.0, 1.0)).mean(0).numpy() / np.log(2)


def test_free_bits_keep_every_latent_in_use():
    X = np.random.default_rng(0).integers(0, 2, (200, 2, 3)).astype(np.uint8)  # nothing for z to tell
    settings = {"n_bins": 2, "max_epochs": 10, "learning_rate": 1e-2, "batch_size": 20}
    assert kl(small(**settings).fit(X), X).max() < 0.3
    assert kl(small(free_bits=1.0, **settings).fit(X), X).min() > 0.4


def test_free_bits_count_in_training_only():
    model, x = small(n_bins=17, free_bits=30.0, kl_warm_up=0.0).fit(DIGITS[:60]).model_, torch.zeros(2, 1, 8, 8)
    with torch.no_grad():
        plain, log_px = model.log_prob(x), model.terms(x)["log_px_given_z"]
        model.train()
        torch.testing.assert_close(model.log_prob(x), log_px - 2 * 30 * np.log(2))  # of two latents
        model.eval()
        assert torch.equal(model.log_prob(x), plain)


def test_reconstructions():
    density = small(n_bins=17, latent_dim=6, free_bits=1.0, max_epochs=15, learning_rate=1e-2).fit(DIGITS[:200])
    X = DIGITS[:100].reshape(100, -1).astype(float)
    Z = density.transform(DIGITS[:100])
    assert list(density.get_feature_names_out()[:2]) == ["pixelvaedensity0", "pixelvaedensity1"]
    back = density.inverse_transform(Z)
    assert ((back >= 0) & (back <= 16)).all()
    own, others = ((back - X) ** 2).mean(), ((back - np.roll(X, 1, 0)) ** 2).mean()
    assert own < 0.8 * others  # z tells of its own image


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="causal_kernel must be odd, got 4; pass 5"):
        small(causal_kernel=4).fit(DIGITS[:20])

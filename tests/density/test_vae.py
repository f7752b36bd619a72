"""VAE: the bound against exact values, its terms, the KL's warm-up, samples and shapes."""

import itertools
import math

import numpy as np
import pytest
import torch
from linear_gaussian import CORRELATION, LINEAR, PRECISION, linear_gaussian
from torch.distributions import Normal, kl_divergence

from flowdetect.datasets import load_images
from flowdetect.density.vae import VAEDensity
from flowdetect.nets.autoencoder import (
    DecodedCategorical,
    DecodedMixture,
    GaussianHead,
    ImageDecoder,
    ImageEncoder,
    image_sides,
    standard_normal_quantile,
)

DIGITS, LABELS = load_images("digits")
SHAPES = [(1, 28, 28), (1, 8, 8), (3, 4, 4), (1, 7, 5), (2, 9, 13), (1, 1, 6), (1, 17, 8)]


def small(**settings):
    shared = {"latent_dim": 3, "hidden_channels": 8, "max_epochs": 2, "batch_size": 32, "random_state": 0}
    return VAEDensity(**{**shared, **settings})


# ---- the bound against exact values


def test_the_bound_of_a_linear_gaussian_model():
    gaps = {}
    for n_draws in (1, 10, 100, 500):
        density, exact = linear_gaussian(n_draws)
        gaps[n_draws] = (exact - density.score_samples(LINEAR)).mean()
    assert gaps[1] > gaps[10] > gaps[100]
    assert gaps[1] == pytest.approx(-0.5 * math.log(1 - CORRELATION**2), abs=0.04)  # KL of q from the posterior
    assert -0.003 < gaps[500] < 0.01  # the mean of 1,000 rows has a standard error of 0.0009


def log_mean_exp_of_draws(density, X, n_draws):
    """The bound of some rows, with the rows' own noise drawn here."""
    x = density.spec_.to_tensor(X.reshape(len(X), -1), "cpu")
    u = torch.rand(n_draws, len(X), density.model_.n_noise, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        draws = density.model_.log_prob_draws(x, None, u)
        assert torch.equal(draws[-1], density.model_.log_prob(x, None, u[-1]))
        return (draws.double().logsumexp(0) - math.log(n_draws)).numpy()


def test_the_bound_rises_with_the_draws_on_trained_weights():
    density = small(n_bins=17, max_epochs=5).fit(DIGITS[:300])
    means = [log_mean_exp_of_draws(density, DIGITS[:200], n_draws).mean() for n_draws in (1, 10, 100)]
    assert means[0] + 0.1 < means[1] < means[2]


@pytest.mark.parametrize(
    ("likelihood", "shape"),
    [
        ("logistic_mixture", (2, 2)),
        ("logistic_mixture", (2, 1, 2)),
        ("categorical", (2, 1, 2)),
        ("logistic_mixture", (4,)),
        ("categorical", (4,)),
    ],
)
def test_masses_sum_to_one(likelihood, shape):
    every = np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, *shape).astype(np.uint8)
    rng = np.random.default_rng(0)
    X = every[rng.choice(len(every), 1000, p=rng.dirichlet(np.full(len(every), 0.1)))]
    density = small(n_bins=3, likelihood=likelihood, max_epochs=12, batch_size=64, latent_dim=2).fit(X)
    masses = np.exp(log_mean_exp_of_draws(density, every, 500))  # of many draws, p(x) without bias
    assert masses.sum() == pytest.approx(1, abs=0.03)
    assert masses.max() > 2 / len(every)
    samples = density.sample(2000, random_state=0).reshape(2000, -1) @ 3 ** np.arange(4)[::-1]
    counts = np.bincount(samples.astype(int), minlength=len(every)) / 2000
    assert np.abs(counts - masses).sum() / 2 < 0.12  # of 2,000 exact draws from 81 values it is about 0.07


def test_a_real_valued_table_integrates_to_one():
    X = np.random.default_rng(0).gamma(3.0, size=(300, 1))
    side = np.linspace(-40, 60, 2001)
    for likelihood in ("gaussian", "logistic_mixture"):
        density = small(latent_dim=1, max_epochs=20, likelihood=likelihood, learning_rate=1e-3).fit(X)
        scores = log_mean_exp_of_draws(density, side[:, None], 100) - np.log(density.spec_.scale[0])
        mass = np.trapezoid(np.exp(scores), side)
        assert mass == pytest.approx(1, abs=0.01)


# ---- terms and training


@pytest.mark.parametrize("n_draws", [1, 4])
def test_terms_sum_to_the_score(n_draws):
    density = small(n_bins=17, n_draws=n_draws).fit(DIGITS[:100])
    terms = density.likelihood_terms(DIGITS[:50])
    assert set(terms) == {"log_px_given_z", "minus_kl"}
    total = terms.log_px_given_z + terms.minus_kl
    np.testing.assert_allclose(total, density.score_samples(DIGITS[:50]), rtol=1e-6)
    assert density.score_is_bound_


def test_the_kl_warms_up_in_training_only():
    density = small(n_bins=17, kl_warm_up=0.2).fit(DIGITS[:100])
    model, x = density.model_, density.spec_.to_tensor(DIGITS[:20].reshape(20, -1), "cpu")
    with torch.no_grad():
        scores, log_px = model.log_prob(x), model.terms(x)["log_px_given_z"]
        mean, log_s = model.posterior(x)
        kl = kl_divergence(Normal(mean, log_s.exp()), Normal(0.0, 1.0)).sum(1)
        model.train()
        for progress, beta in [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (1.0, 1.0)]:
            model.begin_step(0, progress)
            torch.testing.assert_close(model.log_prob(x), log_px - beta * kl, rtol=1e-5, atol=1e-4)
        model.begin_step(0, 0.0)
        model.eval()
        assert torch.equal(model.log_prob(x), scores)


def test_minus_kl_is_in_the_mean_the_divergence():
    density = small(n_bins=17, max_epochs=5).fit(DIGITS[:200])
    model, x = density.model_, density.spec_.to_tensor(DIGITS[:1].reshape(1, -1).repeat(4000, 0), "cpu")
    u = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, log_s = model.posterior(x[:1])
        kl = kl_divergence(Normal(mean, log_s.exp()), Normal(0.0, 1.0)).sum()
        assert -model.terms(x, None, u)["minus_kl"].mean() == pytest.approx(kl.item(), rel=0.1)


def test_without_noise_z_is_the_mean():
    density = small(n_bins=17).fit(DIGITS[:100])
    scores = density.score_samples(DIGITS[:20], dequantize=False)
    Z = density.transform(DIGITS[:20])
    x, z = density.spec_.to_tensor(DIGITS[:20].reshape(20, -1), "cpu"), torch.from_numpy(Z).float()
    with torch.no_grad():
        h = density.model_.decoder(z, None)
        log_px = density.model_.likelihood.log_prob(h, x / 8 - 1).flatten(1).sum(1)
        log_s = density.model_.posterior(x)[1]
    np.testing.assert_allclose(scores, log_px + (log_s - 0.5 * z.square()).sum(1), rtol=1e-5)
    assert not np.allclose(scores, density.score_samples(DIGITS[:20]))


# ---- latents


def test_reconstructions_resemble_the_images():
    density = small(n_bins=17, latent_dim=16, max_epochs=25, batch_size=16).fit(DIGITS[:300])
    X = DIGITS[:100].reshape(100, -1).astype(float)
    Z = density.transform(DIGITS[:100])
    assert Z.shape == (100, 16)
    assert list(density.get_feature_names_out()[:2]) == ["vaedensity0", "vaedensity1"]
    back = density.inverse_transform(Z)
    assert ((back >= 0) & (back <= 16)).all()
    assert ((back - X) ** 2).mean() < 0.5 * X.var(0).mean()
    with pytest.raises(ValueError, match="16 columns"):
        density.inverse_transform(Z[:, :3])


def test_latents_of_little_data_are_not_ignored():
    density = small(n_bins=17, latent_dim=16, max_epochs=60, batch_size=64).fit(DIGITS[:300])
    assert -density.likelihood_terms(DIGITS[300:500]).minus_kl.mean() > 5  # 0 if z does not tell of x


def test_temperature_zero_is_one_image():
    density = small(n_bins=17).fit(DIGITS[:100])
    samples = density.sample(3, temperature=0, random_state=0)
    assert samples.dtype == np.uint8
    np.testing.assert_array_equal(samples, np.repeat(samples[:1], 3, axis=0))
    assert density.sample(50, temperature=3.0, random_state=0).max() <= 16


def test_classes():
    rng = np.random.default_rng(0)
    y = rng.choice(["left", "right"], 400)
    X = rng.normal(size=(400, 2)) + np.where(y == "left", -3, 3)[:, None]
    density = small(conditional=True, max_epochs=40, learning_rate=5e-3).fit(X, y)
    left, right = (density.score_samples(X, np.full(400, label)) for label in ("left", "right"))
    assert (np.where(y == "left", left - right, right - left) > 0).mean() > 0.95
    samples = density.sample(200, y=np.repeat(["left", "right"], 100), random_state=0)
    assert samples[:100].mean() < -2 < 2 < samples[100:].mean()
    assert density.inverse_transform(density.transform(X, y), y).shape == X.shape
    with pytest.raises(ValueError, match="needs y"):
        density.inverse_transform(density.transform(X, y))


# ---- parts


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_context", [0, 3])
def test_networks_take_images_of_any_size(shape, n_context):
    encoder, decoder = ImageEncoder(shape, 4, 1, 10, n_context), ImageDecoder(5, shape, 4, 1, n_context)
    generator = torch.Generator().manual_seed(0)
    for module in [*encoder.modules(), *decoder.modules()]:
        if module not in (encoder, decoder) and hasattr(module, "reset_parameters"):
            module.reset_parameters(generator)
    context = torch.eye(3)[:2] if n_context else None
    x = torch.randn(2, *shape, generator=generator)
    code = encoder(x, context)
    assert code.shape == (2, 10)
    features = decoder(code[:, :5], context)
    assert features.shape == (2, 4, *shape[1:])
    features.square().sum().backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        unused = name.startswith("out") and parameter.ndim  # half of the code is not decoded
        assert parameter.grad is not None or unused, name


def test_sides():
    assert image_sides(28, 28) == [(28, 28), (14, 14), (7, 7)]
    assert image_sides(9, 13) == [(9, 13), (5, 7)]
    assert image_sides(7, 5) == [(7, 5)]


@pytest.mark.parametrize(
    "head",
    [DecodedMixture(6, 3, 4, 17), DecodedMixture(6, 1, 4, None), DecodedCategorical(6, 1, 9), GaussianHead(6, 2)],
    ids=["mixture in bins", "mixture", "categorical", "gaussian"],
)
def test_heads_know_their_mean(head):
    generator = torch.Generator().manual_seed(1)
    for parameter in head.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    h = torch.randn(1, 6, 2, 2, generator=generator)
    u = torch.rand(40_000, head.n_uniforms, 2, 2, generator=generator)
    with torch.no_grad():
        drawn = head.draw(h.expand(len(u), -1, -1, -1), u, 1.0).mean(0)
        torch.testing.assert_close(drawn, head.mean(h)[0], rtol=0.02, atol=0.03)


@pytest.mark.parametrize("image_shape", [None, (28, 28)])
def test_wide_inputs_score_the_same_with_any_number_of_threads(image_shape):
    X = np.random.default_rng(0).integers(0, 256, size=(70, 784)).astype(np.uint8)
    density = small(image_shape=image_shape, n_bins=256, max_epochs=1).fit(X)
    before = torch.get_num_threads()
    scores = []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            scores.append(density.score_samples(X))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(scores[0], other) for other in scores)


def test_normal_quantiles_are_the_same_bits_in_any_batch():
    u = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    whole = standard_normal_quantile(u)
    for length in (1, 3, 7, 17):
        assert torch.equal(torch.cat([standard_normal_quantile(part.clone()) for part in u.split(length)]), whole)
    ends = standard_normal_quantile(torch.tensor([0.0, 1.0]))
    assert torch.isfinite(ends).all()
    assert ends.abs().max() < 5.5


@pytest.mark.parametrize(
    ("likelihood", "n_bins", "match"),
    [("categorical", None, "data in bins"), ("gaussian", 17, "real values")],
)
def test_likelihoods_that_do_not_fit_the_data(likelihood, n_bins, match):
    with pytest.raises(ValueError, match=match):
        small(likelihood=likelihood, n_bins=n_bins).fit(DIGITS[:50].reshape(50, -1)[:, 10:14])


# ---- regret and path


def test_regret_of_a_linear_gaussian_model():
    """A wrong encoder's regret is the divergence that the best q of independent dimensions saves."""
    density, _ = linear_gaussian(1)
    assert abs(density.likelihood_regret(LINEAR[:100]).mean()) < 0.05  # its encoder is the best there is
    with torch.no_grad():
        density.model_.encoder.out.bias[0] += 0.7
    expected = 0.5 * PRECISION[0, 0] * 0.7**2
    regret = density.likelihood_regret(LINEAR[:100], n_steps=100)
    assert regret.mean() == pytest.approx(expected, rel=0.1)


def test_regret_grows_with_the_steps_and_on_strange_images():
    density = small(n_bins=17, max_epochs=10).fit(DIGITS[:300])
    few, many = (density.likelihood_regret(DIGITS[300:340], n_steps=n).mean() for n in (2, 40))
    assert 0 < few < many
    assert (
        density.likelihood_regret(16 - DIGITS[300:340]).mean() > 3 * density.likelihood_regret(DIGITS[300:340]).mean()
    )


@pytest.mark.parametrize("conditional", [False, True])
def test_regret_and_path_are_the_same_in_any_batch(conditional):
    density = small(n_bins=17, conditional=conditional, hidden_channels=16).fit(DIGITS[:100], LABELS[:100])
    X, state = DIGITS[:200], torch.get_rng_state()
    regret, path = density.likelihood_regret(X, n_steps=2), density.likelihood_path(X)
    assert torch.equal(torch.get_rng_state(), state)
    for part in (slice(0, 1), slice(7, 8), slice(100, 165), slice(190, 200)):
        np.testing.assert_array_equal(density.likelihood_regret(X[part], n_steps=2), regret[part])
        for name, values in density.likelihood_path(X[part]).items():
            np.testing.assert_array_equal(values, path[name][part])
    assert all(parameter.grad is None for parameter in density.model_.parameters())


def test_path():
    density = small(n_bins=17).fit(DIGITS[:100])
    X = DIGITS[:20].reshape(20, -1)
    path, Z = density.likelihood_path(X), density.transform(X)
    np.testing.assert_allclose(path.latent_norm, np.linalg.norm(Z, axis=1))
    error = np.linalg.norm(X - density.inverse_transform(Z), axis=1) / 8
    np.testing.assert_allclose(path.reconstruction_error, error, rtol=1e-6)
    with torch.no_grad():
        scale = density.model_.posterior(density.spec_.to_tensor(X, "cpu"))[1].exp()
    np.testing.assert_allclose(path.latent_scale, scale.norm(dim=1), rtol=1e-5)


def test_path_of_a_table_in_standardised_units():
    density = small().fit(LINEAR * [1, 100, 0.01])
    path = density.likelihood_path(LINEAR * [1, 100, 0.01])
    plain = small().fit(LINEAR).likelihood_path(LINEAR)
    np.testing.assert_allclose(path.reconstruction_error, plain.reconstruction_error, rtol=1e-2)


@pytest.mark.parametrize(("n_steps", "learning_rate"), [(0, 0.1), (2.5, 0.1), (5, 0.0), (5, np.nan), (5, "fast")])
def test_settings_of_the_regret_are_checked(n_steps, learning_rate):
    with pytest.raises(ValueError, match="n_steps must be|learning_rate must be"):
        small().fit(LINEAR).likelihood_regret(LINEAR[:2], n_steps=n_steps, learning_rate=learning_rate)

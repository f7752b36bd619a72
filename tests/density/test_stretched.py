"""Mixtures on stretched grey levels: the values an image can have, masses, terms, samples, and what they are worth."""

import copy
import itertools

import numpy as np
import pytest
import torch
from pixelcnn_sizes import DIGITS, every_image, small

from flowdetect import load
from flowdetect.nets.stretched import MOST_GAP, StretchedMixtureHead, stretches


@pytest.mark.parametrize("n_bins", [2, 6, 17, 256])
def test_floor_and_gap_are_those_of_the_values(n_bins):
    floor, gap = stretches(n_bins)
    top = n_bins - 1
    for m, of_floor, of_gap in zip(range(top, 0, -1), floor.flip(0).tolist(), gap.flip(0).tolist(), strict=False):
        values = [k * top // m for k in range(m + 1)]
        assert [v for v in range(n_bins) if of_gap[v]] == values
        assert [of_gap[v] for v in values] == [*np.diff(values), 1]
        assert of_floor == [max(v for v in values if v <= x) for x in range(n_bins)]
    assert len(floor) == top - -(-top // MOST_GAP) + 1


def stretched(rng, n, n_bins, shape, lowest):
    """Images of values floor(k (n_bins - 1) / M), M from `lowest` to n_bins - 1."""
    m = rng.integers(lowest, n_bins, (n, *[1] * len(shape)))
    start = rng.integers(0, 2**30, (n, *shape)) % (m + 1)
    return (start * (n_bins - 1) // m).astype(np.uint8)


def fitted(images, n_bins, **settings):
    return small(likelihood="stretched_mixture", n_bins=n_bins, n_filters=16, learning_rate=3e-3, **settings).fit(
        images
    )


def test_masses_sum_to_one_and_samples_follow_them():
    images, _ = every_image(6, 2, 2)
    density = fitted(stretched(np.random.default_rng(0), 2000, 6, (2, 2), 2), 6, max_epochs=4)
    masses = np.exp(density.score_samples(images))
    assert masses.sum() == pytest.approx(1, abs=1e-5)
    samples = density.sample(4000, random_state=0).reshape(4000, -1)
    observed, expected = np.bincount(samples @ 6 ** np.arange(4)[::-1], minlength=len(masses)), 4000 * masses
    often = expected > 5
    chi_squared = ((observed - expected)[often] ** 2 / expected[often]).sum()
    assert chi_squared < often.sum() + 4 * np.sqrt(2 * often.sum())


def test_terms_are_conditionals():
    images, X = every_image(4, 2, 2)
    density = fitted(X, 4)
    terms = density.likelihood_terms(images).log_px.reshape(4, 4, 4, 4, 4)
    np.testing.assert_allclose(terms.reshape(256, 4).sum(1), density.score_samples(images), atol=1e-5)
    for place in range(4):  # given the pixels before it, a pixel's masses sum to 1, and nothing after it matters
        of_one = terms[(slice(None),) * (place + 1) + (0,) * (3 - place) + (place,)]
        np.testing.assert_allclose(np.exp(of_one).sum(-1), 1, atol=1e-5)
        np.testing.assert_allclose(np.ptp(terms[..., place].reshape(4 ** (place + 1), -1), axis=1), 0, atol=1e-6)


def test_cached_sampling_and_completing_go_on_from_the_state():
    X = stretched(np.random.default_rng(1), 100, 17, (5, 7), 8)
    model = copy.deepcopy(fitted(X, 17, n_blocks=2).model_).double()
    x = torch.tensor(X[:4, None], dtype=torch.float64)
    u = torch.rand(4, 3, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y, state = x / 8 - 1, model.head.first_state(4)
    with torch.no_grad():
        for i, j in itertools.product(range(5), range(7)):
            at = (slice(None), slice(None), slice(i, i + 1), slice(j, j + 1))
            h = model.net(y)[at]
            if i >= 2:
                y[at] = model.head.draw(h, u[at], 1.0, state)
            state = model.head.follow(h, y[at], state)
        completed = model.complete(x, 14, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(completed, (y + 1) * 8, atol=0, rtol=0)


def test_a_hole_is_filled_by_its_conditional():
    images, X = every_image(4, 1, 3)
    density = fitted(X, 4, max_epochs=10)
    given = np.repeat(X[:1], 800, 0)
    drawn = density.complete(given, mask=np.array([[False, True, True]]), n_candidates=24, random_state=0)[:, 0, 0]
    same = [[[v, *given[0, 0, 1:]]] for v in range(4)]
    masses = np.exp(density.score_samples(np.array(same, dtype=np.uint8)))
    observed = np.bincount(drawn, minlength=4) / 800
    np.testing.assert_allclose(observed, masses / masses.sum(), atol=0.06)


def test_images_with_gaps_cost_less_and_those_without_no_more():
    rng = np.random.default_rng(2)
    gaps = stretched(rng, 200, 64, (8, 8), 30)
    for images, least, most in ((gaps, 0.2, 9), (rng.integers(0, 64, gaps.shape).astype(np.uint8), -0.03, 0.03)):
        plain = small(n_bins=64, learning_rate=3e-3, max_epochs=6).fit(images).bits_per_dim(images).mean()
        assert least < plain - fitted(images, 64, max_epochs=6).bits_per_dim(images).mean() < most


@pytest.mark.parametrize(
    "X", [np.zeros((20, 4, 4, 3), dtype=np.uint8), np.random.default_rng(0).normal(size=(20, 4, 4))]
)
def test_colour_and_real_values_are_refused(X):
    with pytest.raises(ValueError, match='one channel in at most 256 bins.*"logistic_mixture"'):
        small(likelihood="stretched_mixture").fit(X)


def test_no_stretch_gives_the_logistic_mixture():
    head = StretchedMixtureHead(4, 3, 17).double()
    for module in (head, head.out):
        module.reset_parameters(torch.Generator().manual_seed(0))
    h, y = torch.randn(2, 4, 3, 5, dtype=torch.float64), torch.randint(0, 17, (2, 1, 3, 5)) / 8 - 1.0
    state = torch.full((2, len(head.gap)), -1e9, dtype=torch.float64)
    state[:, -1] = 0
    plain = super(StretchedMixtureHead, head).log_prob(h, y.double())
    torch.testing.assert_close(head.log_prob(h, y.double(), state), plain)


@torch.no_grad()
def test_scores_of_256_values_have_the_same_bits_with_any_number_of_threads_and_in_any_place():
    head, generator = StretchedMixtureHead(4, 2, 256).eval(), torch.Generator().manual_seed(0)
    for module in (head, head.out):
        module.reset_parameters(generator)
    h = torch.randn(64, 4, 3, 3, generator=generator)
    y = torch.randint(0, 256, (64, 1, 3, 3), generator=generator) / 127.5 - 1
    shuffled, n_threads, found = torch.randperm(64, generator=generator), torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(head.log_prob_of_all(h, y))
            assert torch.equal(head.log_prob_of_all(h[shuffled], y[shuffled]), found[-1][shuffled])
    finally:
        torch.set_num_threads(n_threads)
    assert all(torch.equal(found[0], other) for other in found)


def test_a_small_model_of_256_values_is_restored(tmp_path):
    density = small(likelihood="stretched_mixture", n_filters=2, n_mixtures=1, max_epochs=1, n_bins=256).fit(
        DIGITS[:50]
    )
    density.save(tmp_path / "density")
    np.testing.assert_array_equal(
        load(tmp_path / "density").score_samples(DIGITS[:5]), density.score_samples(DIGITS[:5])
    )

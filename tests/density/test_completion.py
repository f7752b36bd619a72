"""PixelCNN: completion of images from what is known of them."""

import copy

import numpy as np
import pytest
import torch
from pixelcnn_sizes import DIGITS, VARIANTS, every_image, small


@pytest.fixture(scope="module")
def density():
    return small(n_bins=17).fit(DIGITS[:100])


class TestComplete:
    @pytest.mark.parametrize("known", [0, 3, 8, (2, 5)])
    def test_known_pixels_stay_and_unknown_ones_do_not_matter(self, density, known):
        n_known = 8 * known if isinstance(known, int) else 8 * known[0] + known[1]
        X = DIGITS[:5].reshape(5, 64)
        changed = X.copy()
        changed[:, n_known:] = 16
        completed = density.complete(X, known, random_state=0)
        np.testing.assert_array_equal(completed.reshape(5, 64)[:, :n_known], X[:, :n_known])
        np.testing.assert_array_equal(density.complete(changed, known, random_state=0), completed)

    def test_nothing_known_is_a_sample(self, density):
        np.testing.assert_array_equal(
            density.complete(DIGITS[:5], 0, random_state=3), density.sample(5, random_state=3)
        )

    @pytest.mark.parametrize("known", [-1, 9, (2, 8), (8, 1), (2,), 2.5, "all"])
    def test_other_amounts_are_refused(self, density, known):
        with pytest.raises(ValueError, match=r"known must be a number of rows from 0 to 8.*got"):
            density.complete(DIGITS[:2], known)

    @pytest.mark.parametrize("temperature", [-1.0, np.nan, "warm"])
    def test_temperatures_are_checked(self, density, temperature):
        with pytest.raises(ValueError, match="temperature must be a finite number >= 0"):
            density.complete(DIGITS[:2], 4, temperature=temperature)

    def test_known_values_off_the_grid_are_refused_and_unknown_ones_are_not(self, density):
        X = DIGITS[:2] + np.where(np.arange(8)[:, None] < 4, 0, 0.5)
        assert density.complete(X, 4, random_state=0).shape == (2, 8, 8)
        with pytest.raises(ValueError, match="n_bins=17"):
            density.complete(X, 5, random_state=0)

    def test_known_real_values_stay_to_the_last_digit(self):
        X = np.random.default_rng(0).normal(size=(40, 4))
        np.testing.assert_array_equal(small().fit(X).complete(X, 2, random_state=0)[:, :2], X[:, :2])


# ---- scores


class TestCompletingWithoutLabels:
    """Without y, a label is drawn with its probability given what is known, not with its frequency."""

    def test_labels_follow_what_is_known(self):
        rng = np.random.default_rng(0)
        y = np.repeat([0, 1], [300, 100])
        X = np.where(y[:, None, None] == 1, 3, 0) + rng.integers(0, 2, (400, 2, 2))  # a label shows in every pixel
        density = small(n_bins=6, conditional=True, max_epochs=40, learning_rate=1e-2).fit(X, y)
        completed = density.complete(X, 1, random_state=0)
        assert (np.abs(completed[:, 1].mean(1) - X[:, 0].mean(1)) < 1.5).mean() > 0.95

    @pytest.mark.parametrize("is_table", [False, True])
    def test_the_probability_is_that_of_the_scores(self, is_table):
        rng = np.random.default_rng(0)
        y = rng.integers(0, 2, 300)
        X = rng.integers(0, 3, (300, 3)) + y[:, None]
        X = X if is_table else X[:, None, :]  # (n, 1, 3) images
        density = small(n_bins=4, conditional=True, max_epochs=20, learning_rate=1e-2).fit(X, y)
        first = np.array([[1, 0, 0]]) if is_table else np.array([[[1, 0, 0]]])
        rest = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2)
        every = np.concatenate([np.ones((16, 1), int), rest], 1)
        every = every if is_table else every[:, None, :]
        mass = [np.exp(density.score_samples(every, np.full(16, k))).sum() for k in (0, 1)]  # p(first value | k)
        joint = np.array(mass) * np.exp(density.class_log_prior_)
        images = density.spec_.to_tensor(np.repeat(first.reshape(1, 3), 20_000, 0), "cpu")
        with torch.no_grad():
            drawn = density._labels_given(images, 1, seed=0)
        assert drawn.mean() == pytest.approx(joint[1] / joint.sum(), abs=0.015)


class TestCompletingAroundAMask:
    """Known pixels may stand anywhere; a particle filter draws the others."""

    MASK = np.array([[False, True], [False, True]])

    def test_the_draws_follow_the_conditional_distribution(self):
        images, X = every_image(3, 2, 2)
        density = small(n_bins=3, n_filters=16, max_epochs=20, learning_rate=3e-3).fit(X)
        given = np.array([[0, 2], [0, 1]])
        fits = (images[:, self.MASK] == given[self.MASK]).all(1)
        masses = np.where(fits, np.exp(density.score_samples(images)), 0)
        expected = masses / masses.sum()
        distances = []
        for n_candidates in (1, 64):
            completed = density.complete(
                np.repeat(given[None], 2000, 0), mask=self.MASK, n_candidates=n_candidates, random_state=0
            )
            codes = completed.reshape(2000, 4) @ 3 ** np.arange(4)[::-1]
            observed = np.bincount(codes.astype(int), minlength=81) / 2000
            assert not observed[~fits].any()
            distances.append(np.abs(observed - expected).sum() / 2)
        assert distances[1] < 0.05  # of 2,000 exact draws from nine values it is about 0.02
        assert distances[0] > 3 * distances[1]  # one candidate does not heed what comes after

    def test_labels_follow_what_is_known(self):
        rng = np.random.default_rng(0)
        y = np.repeat([0, 1], [300, 100])
        X = np.where(y[:, None, None] == 1, 3, 0) + rng.integers(0, 2, (400, 2, 2))  # a label shows in every pixel
        density = small(n_bins=6, conditional=True, max_epochs=40, learning_rate=1e-2).fit(X, y)
        last = np.array([[False, False], [False, True]])
        completed = density.complete(X[:, ::-1, ::-1].copy(), mask=last, random_state=0)
        assert (np.abs(completed[:, 0].mean(1) - X[:, 0, 0]) < 1.5).mean() > 0.95
        told = density.complete(X, mask=np.zeros((2, 2), bool), n_candidates=2, y=y, random_state=0)
        assert (np.abs(told.mean((1, 2)) - 3 * y) < 1.5).mean() > 0.95

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_caches_follow_the_candidates(self, variant):
        """After rows were resampled, features are those that the whole network has of the rows that were chosen."""
        X = np.random.default_rng(0).integers(0, 9, (60, 5, 7)).astype(np.uint8)
        density = small(variant=variant, n_bins=9, conditional=True, n_blocks=2).fit(X, np.arange(60) % 3)
        net = copy.deepcopy(density.model_).double().net
        generator = torch.Generator().manual_seed(2)
        for parameter in net.parameters():
            parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        y = torch.randn(4, 1, 5, 7, dtype=torch.float64, generator=generator)
        context = density.spec_.to_context(np.array([0, 1, 2, 2]), "cpu")
        with torch.no_grad():
            steps, index = net.in_order(y, context), None
            for step in range(35):
                i, j, h = steps.send(index)
                whole = net(y, context)[:, :, i : i + 1, j : j + 1]
                torch.testing.assert_close(h, whole, atol=1e-9, rtol=0)
                index = torch.randint(4, (4,), generator=generator) if step % 4 == 1 else None
                if index is not None:
                    y.copy_(y[index])
                    y[:, :, i, j + 1 :] = torch.randn(y[:, :, i, j + 1 :].shape, generator=generator).double()
                    context = context[index]

    @pytest.mark.parametrize("shape", [(8, 8), (5, 8, 8)])
    def test_known_pixels_stay_and_unknown_ones_may_be_missing(self, density, shape):
        mask = np.random.default_rng(1).random(shape) < 0.5
        X = DIGITS[:5].astype(float)
        completed = density.complete(X, mask=mask, n_candidates=4, random_state=0)
        known = np.broadcast_to(mask, X.shape)
        np.testing.assert_array_equal(completed[known], X[known])
        assert (completed[~known] != X[~known]).any()
        missing = np.where(known, X, np.nan)
        np.testing.assert_array_equal(density.complete(missing, mask=mask, n_candidates=4, random_state=0), completed)
        np.testing.assert_array_equal(density.complete(X, mask=np.ones((8, 8), bool), n_candidates=2), X)

    def test_colour_and_tables(self):
        X = np.random.default_rng(0).integers(0, 9, (60, 3, 4, 3)).astype(np.uint8)
        mask = np.arange(12).reshape(3, 4) % 3 == 1
        completed = small(n_bins=9).fit(X).complete(X[:5], mask=mask, n_candidates=3, random_state=0)
        np.testing.assert_array_equal(completed[:, mask], X[:5][:, mask])
        table = np.random.default_rng(0).normal(size=(60, 4)) * [1, 10, 1, 1]
        table[:, 2] = 7.0
        with pytest.warns(UserWarning, match="constant"):
            density = small().fit(table)
        completed = density.complete(table[:9], mask=np.array([False, True, False, True]), random_state=0)
        np.testing.assert_array_equal(completed[:, 1:], table[:9, 1:])
        assert (completed[:, 0] != table[:9, 0]).all()

    def test_what_is_refused(self, density):
        for ask in ({}, {"known": 3, "mask": np.ones((8, 8), bool)}):
            with pytest.raises(ValueError, match="exactly one of known.*and mask"):
                density.complete(DIGITS[:2], **ask)
        for mask in (np.ones((8, 8)), np.ones((3, 8, 8), bool), np.ones(64, bool)):
            with pytest.raises(ValueError, match=r"mask must be boolean.*\(8, 8\) or \(2, 8, 8\), got"):
                density.complete(DIGITS[:2], mask=mask)
        for n_candidates in (0, True, 10**9):
            with pytest.raises(ValueError, match="n_candidates must be"):
                density.complete(DIGITS[:2], mask=np.ones((8, 8), bool), n_candidates=n_candidates)
        with pytest.raises(ValueError, match="known must be .*got True"):
            density.complete(DIGITS[:2], known=True)

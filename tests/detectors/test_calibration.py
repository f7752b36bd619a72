"""The functions behind p-values, selections, probabilities and tests of batches, each against its formula."""

from fractions import Fraction
from itertools import combinations
from math import ceil

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import config_context

from flowdetect.detectors import calibration
from flowdetect.detectors.calibration import (
    log_copula_tail,
    log_kernel_density,
    log_p_value,
    outlier_probability,
    select_by_p_values,
    two_sample_p_value,
)

HUNDRED = np.arange(100.0)


def random_rows(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


class TestLogPValue:
    def test_above_the_tail_it_counts(self):
        asked = np.array([5.0, 5.5, 50.0, 98.9, 99.0, 1e9])
        expected = np.log(np.array([7, 7, 52, 100, 101, 101]) / 101)
        np.testing.assert_allclose(log_p_value(asked, HUNDRED), expected)

    def test_below_it_falls_by_the_mean_excess(self):
        """The lowest 5 of 100 lie 3 below the sixth on average, and 6 of 101 is the p-value there."""
        asked = np.array([4.999, 2.0, -1.0, -300.0])
        np.testing.assert_allclose(log_p_value(asked, HUNDRED), np.log(6 / 101) - (5 - asked) / 3)

    def test_few_known_scores_have_a_tail_of_one(self):
        asked = np.array([1.0, 4.0, 9.0])
        expected = [np.log(2 / 4) - (4 - 1) / (4 - 2), np.log(3 / 4), np.log(4 / 4)]
        np.testing.assert_allclose(log_p_value(asked, np.array([2.0, 4.0, 8.0])), expected)

    def test_tied_scores_have_a_rate_of_one(self):
        asked = np.array([-3.0, 0.0])
        np.testing.assert_allclose(log_p_value(asked, np.zeros(3)), [np.log(2 / 4) - 3, 0.0])


class TestSelection:
    def test_the_warning_counts(self):
        """40 rows, 99 known scores, fdr 0.1: 40 / (0.1 * 100) = 4 together, and one alone needs 40 / 0.1 - 1."""
        said = (
            r"compares 40 rows with 99 calibration scores.* fdr=0.1 .* at least 4 rows .* a single one it needs 399\."
        )
        p_values = np.full(40, 0.5)
        p_values[:4] = 1 / 100
        with pytest.warns(UserWarning, match=said):
            assert select_by_p_values(p_values, 0.1, 99).tolist() == [-1] * 4 + [1] * 36
        p_values[3] = 0.5
        with pytest.warns(UserWarning, match="at least 4 rows"):
            assert (select_by_p_values(p_values, 0.1, 99) == 1).all()

    @pytest.mark.parametrize("fdr", [0.05, 0.1, 0.3])
    @pytest.mark.parametrize("n_rows", [3, 7, 10, 21])
    def test_the_number_that_is_asked_for_is_the_least(self, fdr, n_rows, recwarn):
        """9 known scores are enough for 3 rows at 0.3, though 3 * (1 / 10) is above 0.3 in floats."""
        n_needed = ceil(n_rows / Fraction(str(fdr))) - 1
        p_values = np.full(n_rows, 1.0)
        p_values[0] = 1 / (1 + n_needed)
        assert select_by_p_values(p_values, fdr, n_needed)[0] == -1
        assert not recwarn.list
        with pytest.warns(UserWarning, match=rf"at least 2 rows.* a single one it needs {n_needed}\."):
            select_by_p_values(p_values, fdr, n_needed - 1)

    def test_equality_is_enough(self):
        assert select_by_p_values(np.array([0.125, 1.0]), 0.25, 1000).tolist() == [-1, 1]


def test_kernel_densities_are_added_up():
    """Each column is standardised; the kernel's spread is n ** -0.2, as Scott has it for one dimension."""
    known, asked = random_rows(0, 50, 2) * [3, 0.1] + [5, -2], random_rows(1, 7, 2) * [3, 0.1] + [5, -2]
    expected = np.zeros(7)
    for column, each in zip(known.T, asked.T, strict=True):
        spread = column.std() * 50**-0.2
        expected += np.log(norm.pdf(each[:, None], column, spread).mean(axis=1) * column.std())
    np.testing.assert_allclose(log_kernel_density(asked, known), expected)
    with config_context(transform_output="pandas"):
        np.testing.assert_allclose(log_kernel_density(asked, known), expected)


class TestProbability:
    """Known scores 1 to 9: a share k / 10 is at most k, linear between."""

    known = np.arange(1.0, 10.0)

    def test_above_the_threshold_it_is_a_power(self):
        scores = np.array([3.0, 5.0, 7.5, 9.0])
        u, q = np.array([0.3, 0.5, 0.75, 0.9]), 0.3
        expected = 0.5 * ((1 - u) / (1 - q)) ** (2 * (1 - q) / q - 1)
        np.testing.assert_allclose(outlier_probability(scores, self.known, 3.0), expected)

    def test_below_the_threshold_it_is_linear(self):
        scores = np.array([1.0, 2.0, 2.5])
        expected = 1 - np.array([0.1, 0.2, 0.25]) / 0.6
        np.testing.assert_allclose(outlier_probability(scores, self.known, 3.0), expected)

    def test_the_power_is_at_least_one(self):
        scores = np.array([8.0, 9.0])
        np.testing.assert_allclose(outlier_probability(scores, self.known, 8.0), [0.5, 0.5 * 0.1 / 0.2])

    def test_below_all_known_scores_the_share_falls_exponentially(self):
        """The tail is that of all scores but the highest: 8 of them, on average 4.5 below the ninth."""
        scores = np.array([-8.0, 0.0])
        expected = 1 - 0.1 * np.exp((scores - 1) / 4.5) / 0.6
        np.testing.assert_allclose(outlier_probability(scores, self.known, 3.0), expected)

    @pytest.mark.parametrize(("n_known", "n_tail"), [(11, 10), (150, 10), (400, 20)])
    def test_the_tail_has_ten_scores_or_a_twentieth(self, n_known, n_tail):
        known = np.sort(random_rows(0, n_known))
        rate = np.mean(known[n_tail] - known[:n_tail])
        share = np.exp((-9 - known[0]) / rate) / (1 + n_known)
        q = 2 / (1 + n_known)
        found = outlier_probability(np.array([-9.0]), known, known[1])
        assert 1 - found[0] == pytest.approx(share / (2 * q), rel=1e-6)

    def test_a_tail_of_ties_falls_by_one(self):
        known = np.array([0.0] * 11 + [5.0])
        found = outlier_probability(np.array([-2.0]), known, 1.0)
        q = (11 + 1 / 5) / 13
        assert found[0] == pytest.approx(1 - 11 / 13 * np.exp(-2) / (2 * q))

    def test_the_tail_may_hold_ties_beside_the_lowest(self):
        known = np.array([0.0] + [1.0] * 12)
        found = outlier_probability(np.array([-0.2]), known, 0.0)
        assert found[0] == pytest.approx(1 - np.exp(-0.2 / 0.1) / 2)  # ten scores, on average 0.1 below the next

    def test_thresholds_outside_of_all_scores(self):
        low, high = (outlier_probability(self.known, self.known, at) for at in (-1e6, 1e6))
        np.testing.assert_allclose(low, 0, atol=1e-9)
        np.testing.assert_allclose(high, 1 - np.arange(1, 10) / 18)  # 9 of 10 score lower than any threshold above
        assert outlier_probability(np.array([1e5]), self.known, 1e6)[0] == np.nextafter(0.5, 1)
        assert outlier_probability(np.array([-1e5]), self.known, -1e6)[0] == 0.5

    def test_the_threshold_itself_is_normal(self):
        assert outlier_probability(np.array([3.0]), self.known, 3.0)[0] == 0.5


class TestTwoSamples:
    @staticmethod
    def statistic(batch, known):
        """Pettitt's sum over the pooled scores in order, where equal ones count together."""
        pooled, total = np.sort([*batch, *known]), 0.0
        n_rows = len(pooled)
        for value in np.unique(pooled)[:-1]:
            n_up_to, n_equal, up_to = np.sum(pooled <= value), np.sum(pooled == value), np.sum(batch <= value)
            total += n_equal * (n_rows * up_to - len(batch) * n_up_to) ** 2 / (n_up_to * (n_rows - n_up_to))
        return total / (len(batch) * len(known))

    def test_the_statistic_is_pettitts(self):
        for n_batch, n_known in ((1, 5), (4, 9), (9, 4)):
            batch, known = random_rows(2, n_batch) + 0.5, np.sort(random_rows(3, n_known))
            for digits in (9, 0):  # without ties and with many
                each, others = batch.round(digits), known.round(digits)
                found, _ = two_sample_p_value(each, others, 1, np.random.default_rng(0))
                assert found == pytest.approx(self.statistic(each, others))

    def test_the_p_value_is_that_of_all_regroupings(self):
        batch, known = np.array([2.1, 2.6, 0.4]), np.array([-0.7, 0.1, 0.3, 0.9, 1.7])
        pooled = np.concatenate([batch, known])
        found = self.statistic(batch, known)
        as_large = [
            self.statistic(pooled[list(chosen)], np.delete(pooled, chosen)) >= found - 1e-12
            for chosen in combinations(range(8), 3)
        ]
        _, p_value = two_sample_p_value(batch, known, 20_000, np.random.default_rng(0))
        assert p_value == pytest.approx(np.mean(as_large), abs=0.01)

    @pytest.mark.parametrize("n_permutations", [1, 10, 99])
    def test_equal_scores_say_nothing(self, n_permutations, monkeypatch):
        """Each regrouping ties with what was found; they are counted whatever the size of a part."""
        for at_once in (1, 35, 2_000_000):
            monkeypatch.setattr(calibration, "PERMUTED_AT_ONCE", at_once)
            found = two_sample_p_value(np.zeros(3), np.zeros(4), n_permutations, np.random.default_rng(0))
            assert found == (0.0, 1.0)

    def test_the_least_p_value(self, monkeypatch):
        batch, known = np.full(20, 9.0), np.arange(20.0) / 20
        for at_once in (1, 400, 2_000_000):
            monkeypatch.setattr(calibration, "PERMUTED_AT_ONCE", at_once)
            assert two_sample_p_value(batch, known, 99, np.random.default_rng(0))[1] == 0.01


@pytest.mark.parametrize("scale", [1, 2**-20])
def test_copula_tails_are_sums_of_log_p_values(scale):
    known = scale * np.stack([HUNDRED, -(HUNDRED**2), HUNDRED**2], axis=1)  # skewed to no side, the left, the right
    asked = scale * np.array(
        [[50.0, -2500.0, 2500.0], [3.0, -9700.0, 9.0], [99.0, 0.0, 9801.0], [60.0, -9700.0, 9700.0]]
    )
    left = np.stack([log_p_value(asked[:, j], np.sort(known[:, j])) for j in range(3)])
    right = np.stack([log_p_value(-asked[:, j], np.sort(-known[:, j])) for j in range(3)])
    by_skewness = left[0] + left[1] + right[2]
    expected = np.minimum(np.minimum(left.sum(0), right.sum(0)), by_skewness)
    np.testing.assert_allclose(log_copula_tail(asked, known), expected)
    assert len({*np.argmin([left.sum(0), right.sum(0), by_skewness], axis=0)}) == 3  # each of the three is the least

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from flowdetect.evaluation import auroc, auroc_interval

few = settings(deadline=None, max_examples=50)
tied_scores = arrays(np.float64, st.integers(1, 40), elements=st.integers(-4, 4).map(float))


def share_that_hold(truth, intervals):
    return np.mean([low <= truth <= high for low, high in intervals])


@pytest.mark.parametrize(("area", "n"), [(0.9, 200), (0.98, 200), (0.998, 50), (0.998, 2000)])
def test_coverage_of_normal_scores(area, n):
    rng = np.random.default_rng(0)
    apart = np.sqrt(2) * norm.ppf(area)
    drawn = rng.normal(size=(400, 2, n))
    held = share_that_hold(area, (auroc_interval(scores_in + apart, scores_out) for scores_in, scores_out in drawn))
    # 0.93 less three standard errors of 400 draws; at 0.998 one side cannot miss, so that more than 0.95 hold
    assert 0.93 - 0.035 <= held <= (0.985 if area < 0.99 else 1)


def test_coverage_where_few_rows_are_lost():
    """Of the OoD rows 2 % look normal and all others are far off: the hardest case near 1, at an area of 0.99."""
    rng = np.random.default_rng(1)
    held = share_that_hold(
        0.99,
        (
            auroc_interval(rng.normal(size=100), rng.normal(size=100) - 99 * (rng.random(100) > 0.02))
            for _ in range(400)
        ),
    )
    assert 0.895 <= held <= 0.99


@pytest.mark.parametrize(("noise", "shift"), [(0.1, 0.0), (1.0, 0.0), (0.1, 2.93)])
def test_coverage_of_pairs(noise, shift):
    rng = np.random.default_rng(0)
    area = norm.cdf(shift / np.sqrt(2 + noise**2))
    clean = rng.normal(size=(300, 100))
    moved = clean - shift + noise * rng.normal(size=clean.shape)
    pairs = list(zip(clean, moved, strict=True))
    found = [auroc_interval(*pair, paired=True) for pair in pairs]
    assert share_that_hold(area, found) >= 0.92
    apart = [auroc_interval(*pair) for pair in pairs]
    if noise < 1 and shift == 0:  # an image and its hardly changed self differ less than two draws of it would
        assert np.mean(np.diff(found)) < np.mean(np.diff(apart)) / 4


@given(tied_scores, tied_scores)
@few
def test_swapped_sets_mirror_the_interval(scores_in, scores_out):
    low, high = auroc_interval(scores_in, scores_out)
    assert 0 <= low <= auroc(scores_in, scores_out) <= high <= 1
    assert auroc_interval(scores_out, scores_in) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(tied_scores, tied_scores)
@few
def test_only_the_order_counts(scores_in, scores_out):
    found = auroc_interval(scores_in, scores_out)
    assert auroc_interval(np.exp(scores_in), np.exp(scores_out)) == found
    n = min(len(scores_in), len(scores_out))
    pairs = auroc_interval(scores_in[:n], scores_out[:n], paired=True)
    assert auroc_interval(scores_in[:n] ** 3, scores_out[:n] ** 3, paired=True) == pairs
    assert pairs[0] <= auroc(scores_in[:n], scores_out[:n]) <= pairs[1]


@pytest.mark.parametrize("n", [5, 50, 200, 2000])
def test_sets_wholly_apart_leave_room_for_what_was_not_drawn(n):
    low, high = auroc_interval(np.arange(n) + n, np.arange(n))
    assert high == 1
    # a share 1 - area of one set on the wrong side would have been drawn with a chance of 97.5 %
    assert low == pytest.approx(0.025 ** (1 / n))
    assert auroc_interval(np.arange(n), np.arange(n) + n) == pytest.approx((0, 1 - low))


def test_one_row_a_set_says_next_to_nothing():
    low, high = auroc_interval([1.0], [0.0])
    assert low < 0.15
    assert high == 1
    assert auroc_interval([0.0], [0.0]) == pytest.approx((0.03, 0.97), abs=0.01)
    low, high = auroc_interval([1.0], np.arange(-500.0, 500.0))
    assert low < 0.2 < 0.8 < high
    assert auroc_interval([1.0], [0.0], paired=True)[0] < 0.2


def test_ties_and_infinite_scores():
    scores = np.repeat([0.0, 1.0], 50)
    low, high = auroc_interval(scores, scores)
    assert low < 0.5 < high
    assert high - low < 0.2
    assert auroc_interval([np.inf] * 50, [-np.inf] * 50)[0] > 0.9


def test_more_rows_and_less_confidence_are_narrower():
    rng = np.random.default_rng(0)
    scores_in, scores_out = rng.normal(size=400) + 2, rng.normal(size=400)
    low, high = auroc_interval(scores_in, scores_out)
    fewer = auroc_interval(scores_in[:100], scores_out[:100])
    assert high - low < fewer[1] - fewer[0]
    lower, higher = auroc_interval(scores_in, scores_out, confidence=0.99)
    assert lower < low < high < higher


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([1.0], [0.0], {"confidence": 1}), "confidence must lie between 0 and 1, got 1"),
        (([1.0], [0.0], {"confidence": "0.9"}), "confidence must lie between 0 and 1"),
        (([1.0], [np.nan], {}), "scores_out holds NaN at index 0"),
        (([], [1.0], {}), "scores_in must be a one-dimensional array"),
        (([1.0, 2.0], [0.0], {"paired": True}), "as many scores_in as scores_out, got 2 and 1"),
    ],
)
def test_refusals(given, message):
    scores_in, scores_out, parameters = given
    with pytest.raises(ValueError, match=message):
        auroc_interval(scores_in, scores_out, **parameters)

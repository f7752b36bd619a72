import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, roc_auc_score

from flowdetect.evaluation import aupr_in, aupr_out, auroc, bootstrap_interval, fpr_at_95_tpr, metrics
from flowdetect.evaluation.metrics import _COUNT_METRICS, bootstrap_intervals, ranks_of, roc_points

METRICS = {"auroc": auroc, "aupr_out": aupr_out, "aupr_in": aupr_in, "fpr95": fpr_at_95_tpr}

few = settings(deadline=None, max_examples=50)
tied_scores = arrays(np.float64, st.integers(1, 40), elements=st.integers(-4, 4).map(float))


def brute_force_auroc(scores_in, scores_out):
    pairs = [1.0 if out < inside else 0.5 if out == inside else 0.0 for inside in scores_in for out in scores_out]
    return np.mean(pairs)


def brute_force_fpr95(scores_in, scores_out):
    thresholds = sorted(scores_out)
    caught = [t for t in thresholds if np.mean(scores_out <= t) >= 0.95]
    return np.mean(scores_in <= caught[0])


@given(tied_scores, tied_scores)
@few
def test_against_brute_force_with_ties(scores_in, scores_out):
    assert auroc(scores_in, scores_out) == pytest.approx(brute_force_auroc(scores_in, scores_out))
    assert fpr_at_95_tpr(scores_in, scores_out) == pytest.approx(brute_force_fpr95(scores_in, scores_out))


@given(tied_scores, tied_scores)
@few
def test_against_scikit_learn(scores_in, scores_out):
    is_out = np.r_[np.zeros(len(scores_in)), np.ones(len(scores_out))]
    scores = np.r_[scores_in, scores_out]
    assert auroc(scores_in, scores_out) == pytest.approx(roc_auc_score(is_out, -scores))
    assert aupr_out(scores_in, scores_out) == pytest.approx(average_precision_score(is_out, -scores))
    assert aupr_in(scores_in, scores_out) == pytest.approx(average_precision_score(1 - is_out, scores))


@pytest.mark.parametrize("metric", METRICS)
@given(scores_in=tied_scores, scores_out=tied_scores)
@few
def test_counts_give_the_same_as_scores(metric, scores_in, scores_out):
    ranks_in, ranks_out = ranks_of(scores_in, scores_out)
    n_ranks = max(ranks_in.max(), ranks_out.max()) + 1
    counts_in, counts_out = (np.bincount(ranks, minlength=n_ranks)[None] for ranks in (ranks_in, ranks_out))
    assert _COUNT_METRICS[metric](counts_in, counts_out)[0] == pytest.approx(METRICS[metric](scores_in, scores_out))


@pytest.mark.parametrize("metric", METRICS)
def test_only_the_order_counts(metric):
    rng = np.random.default_rng(0)
    scores_in, scores_out = rng.normal(1, 1, 50), rng.normal(0, 1, 30)
    expected = METRICS[metric](scores_in, scores_out)
    assert METRICS[metric](np.exp(scores_in), np.exp(scores_out)) == expected
    interval = bootstrap_interval(scores_in, scores_out, metric, n_bootstrap=50)
    assert bootstrap_interval(np.exp(scores_in), np.exp(scores_out), metric, n_bootstrap=50) == interval


def test_higher_is_more_normal():
    assert auroc([1.0, 2.0], [0.0]) == aupr_out([1.0, 2.0], [0.0]) == aupr_in([1.0, 2.0], [0.0]) == 1.0
    assert fpr_at_95_tpr([1.0, 2.0], [0.0]) == 0.0
    assert auroc([0.0], [1.0]) == 0.0


def test_infinite_scores_are_scores():
    assert auroc([np.inf, 0.0], [-np.inf, 0.0]) == 0.875
    assert bootstrap_interval([np.inf], [-np.inf], n_bootstrap=3) == (1.0, 1.0)


@pytest.mark.parametrize("metric", METRICS)
def test_the_bootstrap_resamples_each_set_within_itself(metric):
    rng = np.random.default_rng(0)
    scores_in, scores_out = rng.normal(1, 1, 60).round(1), rng.normal(0, 1, 40).round(1)
    low, high = bootstrap_interval(scores_in, scores_out, metric, n_bootstrap=1000)
    slow = [METRICS[metric](rng.choice(scores_in, 60), rng.choice(scores_out, 40)) for _ in range(1000)]
    np.testing.assert_allclose([low, high], np.quantile(slow, [0.025, 0.975]), atol=0.025)
    assert low < METRICS[metric](scores_in, scores_out) < high


def test_small_chunks_give_nearly_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    scores_in, scores_out = rng.normal(1, 1, 200), rng.normal(0, 1, 200)
    whole = bootstrap_interval(scores_in, scores_out)
    monkeypatch.setattr("flowdetect.evaluation.metrics.CHUNK_CELLS", 1)
    np.testing.assert_allclose(bootstrap_interval(scores_in, scores_out), whole, atol=0.01)


def test_coverage():
    rng = np.random.default_rng(0)
    truth = 0.760250  # Phi(1 / sqrt(2)): two unit normals, one apart
    covered = [
        low <= truth <= high
        for low, high in (
            bootstrap_interval(rng.normal(1, 1, 100), rng.normal(0, 1, 100), n_bootstrap=200, random_state=i)
            for i in range(300)
        )
    ]
    assert 0.89 < np.mean(covered) < 0.98


def test_seeds():
    rng = np.random.default_rng(0)
    scores = rng.normal(1, 1, 50), rng.normal(0, 1, 50)
    assert bootstrap_interval(*scores) == bootstrap_interval(*scores)
    assert bootstrap_interval(*scores) != bootstrap_interval(*scores, random_state=1)
    assert bootstrap_interval(*scores, random_state=None) != bootstrap_interval(*scores, random_state=None)


def test_wider_confidence_is_a_wider_interval():
    rng = np.random.default_rng(0)
    scores = rng.normal(1, 1, 50), rng.normal(0, 1, 50)
    low, high = bootstrap_interval(*scores)
    lower, higher = bootstrap_interval(*scores, confidence=0.99)
    assert lower < low < high < higher


@pytest.mark.parametrize("metric", METRICS.values())
def test_scores_that_are_none(metric):
    with pytest.raises(ValueError, match="scores_out holds NaN at index 1"):
        metric([1.0], [0.0, np.nan])
    with pytest.raises(ValueError, match="scores_in must be a one-dimensional array"):
        metric([], [0.0])
    with pytest.raises(ValueError, match=r"got shape \(1, 1\)"):
        metric([[1.0]], [0.0])


@pytest.mark.parametrize(
    "parameters",
    [
        {"metric": "f1"},
        {"n_bootstrap": 0},
        {"n_bootstrap": 1.5},
        {"n_bootstrap": 10**6},
        {"confidence": 1},
        {"confidence": 0},
        {"random_state": "zero"},
    ],
)
def test_parameters_of_the_bootstrap(parameters):
    with pytest.raises(ValueError, match=f"{next(iter(parameters))} must"):
        bootstrap_interval([1.0], [0.0], **parameters)


def test_the_curve_has_a_corner_for_each_distinct_score():
    """Four steps straight up: corners in a line are kept, so that the rate at 95 % is read at a score."""
    fpr, tpr = roc_points([5.0, 6.0], [1.0, 2.0, 3.0, 4.0, 4.0])
    np.testing.assert_allclose(fpr, [0, 0, 0, 0, 0, 0.5, 1])
    np.testing.assert_allclose(tpr, [0, 0.2, 0.4, 0.6, 1, 1, 1])


def test_a_thousand_resamples_unless_told():
    rng = np.random.default_rng(0)
    scores = rng.normal(1, 1, 50), rng.normal(0, 1, 50)
    told = bootstrap_interval(*scores, "aupr_in", n_bootstrap=1000, confidence=0.95, random_state=0)
    assert bootstrap_interval(*scores, "aupr_in") == told
    assert bootstrap_intervals(*scores, ["aupr_in"]) == {"aupr_in": told}


@pytest.mark.parametrize(("n_bootstrap", "sizes"), [(1, [1]), (10, [10]), (25, [10, 10, 5])])
def test_as_many_resamples_as_asked_for(n_bootstrap, sizes, monkeypatch):
    """Parts of ten: 40 cells, and four distinct scores."""
    asked = []

    def counted(ranks, n_ranks, n_resamples, generator):
        asked.append(n_resamples)
        return counts(ranks, n_ranks, n_resamples, generator)

    counts = metrics._resampled_counts
    monkeypatch.setattr(metrics, "CHUNK_CELLS", 40)
    monkeypatch.setattr(metrics, "_resampled_counts", counted)
    bootstrap_interval([2.0, 3.0], [0.0, 1.0, 2.0], n_bootstrap=n_bootstrap)
    assert asked == list(np.repeat(sizes, 2))  # of both sets


def test_the_error_lists_the_metrics():
    with pytest.raises(ValueError, match="one of auroc, aupr_out, aupr_in, fpr95, got 'f1'"):
        bootstrap_interval([1.0], [0.0], "f1")


def test_numbers_kept_as_objects_are_numbers():
    assert auroc(np.array([2.0, 3.0], dtype=object), np.array([1.0, 2.0], dtype=object)) == 0.875

import pickle

import numpy as np
import pytest
import sklearn
from scipy.stats import multivariate_normal
from sklearn.neighbors import NearestNeighbors

from flowdetect import NeighborsDensity, OODDetector, load

rng = np.random.default_rng(0)


def test_it_estimates_a_density_in_the_units_of_the_columns():
    """Many rows, many neighbours: close to the normal density that they are drawn from."""
    scales = np.array([3.0, 0.1])
    X = rng.normal(size=(20_000, 2)) * scales
    asked = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 0.1]])
    found = NeighborsDensity((400,)).fit(X).score_samples(asked)
    expected = multivariate_normal(cov=np.diag(scales**2)).logpdf(asked)
    # the mean distance to k rows is 2/3 of the radius around them in two dimensions
    shrink = 2 * np.log(2 / 3)
    np.testing.assert_allclose(found + shrink, expected, atol=0.25)


def test_the_score_is_the_mean_over_scales():
    X = rng.normal(size=(100, 3))
    density = NeighborsDensity((1, 4)).fit(X)
    np.testing.assert_allclose(density.score_samples(X), density.member_scores(X).mean(axis=1))
    single = [NeighborsDensity((k,)).fit(X).score_samples(X + 1) for k in (1, 4)]
    np.testing.assert_allclose(density.member_scores(X + 1), np.stack(single, axis=1))


@pytest.mark.parametrize("contamination", [0.0, 0.1])
def test_training_rows_are_scored_by_the_others(contamination):
    X = rng.normal(size=(60, 3))
    density = NeighborsDensity(contamination=contamination).fit(X)
    for i in (0, 17):
        scaled = (np.delete(X, i, axis=0) - density.shift_) / density.scale_
        own = (X[i] - density.shift_) / density.scale_
        distances = np.sort(np.linalg.norm(scaled - own, axis=1))
        k = density._scales
        expected = [distances[k[0] - 1]] if contamination else [distances[:n].mean() for n in k]
        log_p = density._log_densities(np.array([expected])).mean()
        np.testing.assert_allclose(density.score_samples(X)[i], log_p)


def test_outliers_do_not_vouch_for_each_other():
    X = np.concatenate([rng.normal(size=(900, 4)), np.full((100, 4), 6.0) + rng.normal(0, 0.01, (100, 4))])
    blind = NeighborsDensity().fit(X).score_samples(X)
    warned = NeighborsDensity(contamination=0.1).fit(X).score_samples(X)
    assert blind[900:].min() > np.median(blind[:900])
    assert warned[900:].max() < np.quantile(warned[:900], 0.05)
    np.testing.assert_array_equal(NeighborsDensity().fit(X).tight_group(), np.arange(900, 1000))
    assert len(NeighborsDensity().fit(X[:900]).tight_group()) == 0


def test_more_rows_than_references():
    X = rng.normal(size=(2500, 2))
    density = NeighborsDensity(contamination=0.05, random_state=0).fit(X)
    assert len(density._sample) == 2000
    assert np.isfinite(density.score_samples(X)).all()
    again = NeighborsDensity(contamination=0.05, random_state=0).fit(X)
    np.testing.assert_array_equal(again.score_samples(X[:50]), density.score_samples(X[:50]))


def test_duplicates_and_a_gross_value_stay_finite():
    X = np.repeat(rng.normal(size=(20, 2)), 5, axis=0)
    density = NeighborsDensity().fit(X)
    assert np.isfinite(density.score_samples(X)).all()
    X[0, 0] = 1e9
    with pytest.warns(UserWarning, match="Column 0 has values up to 1e.09"):
        assert NeighborsDensity().fit(X).scale_[0] < 100


def test_samples_lie_where_the_rows_do():
    X = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 20])
    density = NeighborsDensity().fit(X)
    drawn = density.sample(400, random_state=0)
    np.testing.assert_array_equal(drawn, density.sample(400, random_state=0))
    assert NearestNeighbors(n_neighbors=1).fit(X).kneighbors(drawn)[0].max() < 3
    assert 0.3 < (drawn[:, 0] > 10).mean() < 0.7


@pytest.mark.parametrize("contamination", [0.0, 0.1])
def test_files_and_pickles(contamination, tmp_path):
    X = rng.normal(size=(80, 2))
    density = NeighborsDensity(contamination=contamination, random_state=0).fit(X)
    density.save(tmp_path / "density")
    for copy in (load(tmp_path / "density"), pickle.loads(pickle.dumps(density))):
        np.testing.assert_array_equal(copy.score_samples(X), density.score_samples(X))
    with pytest.raises(Exception, match="not fitted"):
        pickle.loads(pickle.dumps(NeighborsDensity())).score_samples(X)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"n_neighbors": ()}, r"sequence of numbers of neighbours >= 1, got \(\)"),
        ({"n_neighbors": 5}, "sequence of numbers of neighbours >= 1, got 5"),
        ({"n_neighbors": (0,)}, "got .0,."),
        ({"contamination": 0.7}, "from 0 to 0.5, got 0.7"),
        ({"contamination": True}, "from 0 to 0.5, got True"),
    ],
)
def test_parameters_out_of_range(parameters, told):
    with pytest.raises(ValueError, match=told):
        NeighborsDensity(**parameters).fit(rng.normal(size=(20, 2)))


@pytest.mark.parametrize("unit", [1e-15, 1e-44, 1e-300, 1e300])
def test_units_do_not_matter(unit):
    rng = np.random.default_rng(0)
    rows, others = rng.normal(size=(200, 3)), rng.normal(size=(50, 3)) + 3
    usual, tiny = (NeighborsDensity().fit(rows * s).score_samples(others * s) for s in (1.0, unit))
    np.testing.assert_allclose(usual - usual.mean(), tiny - tiny.mean(), rtol=1e-6, atol=1e-6)


def test_nan_is_refused_even_where_scikit_learn_assumes_that_there_is_none():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    broken = rows.copy()
    broken[3, 1] = np.nan
    with sklearn.config_context(assume_finite=True):
        for do in (NeighborsDensity().fit, NeighborsDensity().fit(rows).score_samples, OODDetector().fit):
            with pytest.raises(ValueError, match="NaN in row 3, column 1"):
                do(broken)

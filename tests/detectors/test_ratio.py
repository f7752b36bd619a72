import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from flowdetect import EnsembleDensity, GlowDensity, PixelCNNDensity
from flowdetect.detectors import LikelihoodRatioDetector
from flowdetect.detectors.ratio import mutated

rng = np.random.default_rng(0)
SHARED = rng.normal(size=(500, 1)) + 0.1 * rng.normal(size=(500, 4))


def test_the_score_is_the_ratio():
    detector = LikelihoodRatioDetector(GaussianMixture(), random_state=0).fit(SHARED)
    expected = detector.density_.score_samples(SHARED) - detector.background_.score_samples(SHARED)
    np.testing.assert_array_equal(detector.score_samples(SHARED), expected)


def test_a_ready_background_is_used_as_it_is():
    background = FrozenEstimator(GaussianMixture(2, random_state=0).fit(SHARED))
    detector = LikelihoodRatioDetector(GaussianMixture(), background, random_state=0).fit(SHARED)
    assert detector.background_ is background


def test_the_background_has_the_marginals_and_not_the_correlations():
    detector = LikelihoodRatioDetector(GaussianMixture(), mutation_rate=1.0, random_state=0).fit(SHARED)
    covariance = detector.background_.covariances_[0]
    assert np.diag(covariance) == pytest.approx(SHARED.var(axis=0), rel=0.2)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.2


@pytest.mark.parametrize("shape", [(300, 12), (300, 3, 4), (300, 2, 2, 3)])
def test_mutation_redraws_its_share_from_other_rows(shape):
    X = np.arange(np.prod(shape)).reshape(shape)  # every value stands once
    changed = mutated(X, 0.25)
    assert changed.shape == shape
    assert np.mean(changed != X) == pytest.approx(0.25, abs=0.02)
    columns, mutated_columns = X.reshape(300, -1).T, changed.reshape(300, -1).T
    assert all(np.isin(new, old).all() for new, old in zip(mutated_columns, columns, strict=True))
    np.testing.assert_array_equal(mutated(X, 0.0), X)
    again = mutated(X[::-1], 0.25)[::-1]
    assert np.mean((again != X) == (changed != X)) > 0.99  # the same places of a row, but for values drawn anew alike


def test_a_background_of_ours(tmp_path):
    X = np.random.default_rng(0).integers(0, 4, (60, 4, 4))
    flow = GlowDensity(
        n_bins=4,
        n_steps=1,
        hidden_channels=4,
        max_epochs=1,
        conditional=True,
        random_state=3,
        checkpoint=tmp_path / "flow",
    )
    detector = LikelihoodRatioDetector(flow, background_weight_decay=0.5, random_state=0)
    detector.fit(X, np.arange(60) % 2)
    background = detector.background_
    assert (background.weight_decay, background.conditional, background.random_state) == (0.5, False, 3)
    assert (tmp_path / "flow.background").exists()
    assert np.isfinite(detector.score_samples(X)).all()


def test_every_density_gets_its_own_form():
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).integers(0, 4, (60, 4, 4, 1)).astype(np.uint8)
    flow = GlowDensity(n_bins=4, n_steps=1, hidden_channels=4, max_epochs=1, random_state=0)
    foreign = GaussianMixture(reg_covar=0.1, random_state=0)
    by_numpy = LikelihoodRatioDetector(flow, foreign, random_state=0).fit(images).score_samples(images)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    by_torch = LikelihoodRatioDetector(flow, foreign, random_state=0).fit(tensor)
    np.testing.assert_allclose(by_torch.score_samples(tensor), by_numpy, rtol=1e-5)
    rows = LikelihoodRatioDetector(flow.set_params(image_shape=(4, 4)), foreign, random_state=0)
    np.testing.assert_allclose(
        rows.fit(images.reshape(60, 16)).score_samples(images.reshape(60, 16)), by_numpy, rtol=1e-5
    )


def test_a_local_background_sees_the_rows_as_they_are():
    images = np.random.default_rng(0).integers(0, 4, (60, 4, 4)).astype(np.uint8)
    size = {"n_bins": 4, "n_filters": 4, "n_blocks": 1, "max_epochs": 1, "random_state": 0}
    local = PixelCNNDensity(variant="local", **size)
    detector = LikelihoodRatioDetector(PixelCNNDensity(**size), local, mutation_rate=0, calibration_fraction=0)
    difference = PixelCNNDensity(**size).fit(images).score_samples(images) - local.fit(images).score_samples(images)
    np.testing.assert_array_equal(detector.fit(images).score_samples(images), difference)


def test_frames_keep_their_names():
    frame = pd.DataFrame(SHARED, columns=list("abcd"))
    detector = LikelihoodRatioDetector(GaussianMixture(), random_state=0).fit(frame)
    assert detector.background_.feature_names_in_.tolist() == list("abcd")
    assert np.isfinite(detector.score_samples(frame)).all()


def test_nested_densities_get_weight_decay_and_names():
    flow = GlowDensity(n_bins=4, n_steps=1, hidden_channels=4, max_epochs=1, conditional=True)
    X = np.random.default_rng(0).integers(0, 4, (60, 4, 4))
    detector = LikelihoodRatioDetector(EnsembleDensity(flow, 2), random_state=0).fit(X, np.arange(60) % 2)
    assert detector.background_.density.weight_decay == 1.0
    assert not detector.background_.density.conditional


def test_seeds_of_density_and_background_differ():
    mixtures = GaussianMixture(2, init_params="random"), GaussianMixture(3, init_params="random")
    detector = LikelihoodRatioDetector(*mixtures, calibration_fraction=0, random_state=0).fit(SHARED)
    assert detector.density_.random_state != detector.background_.random_state


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"mutation_rate": 1.5}, ValueError, "mutation_rate, a share of the features, from 0 to 1, got 1.5"),
        ({"mutation_rate": True}, ValueError, "mutation_rate"),
        ({"background": object()}, TypeError, "needs a background with fit, such as a density, got object"),
    ],
)
def test_refusals(parameters, error, message):
    with pytest.raises(error, match=message):
        LikelihoodRatioDetector(GaussianMixture(), **parameters).fit(SHARED)

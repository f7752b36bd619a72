import numpy as np
import pytest
from scipy.stats import gaussian_kde
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from flowdetect import GlowDensity, PixelCNNDensity, load
from flowdetect.detectors import DoSEDetector, GradientNormDetector, ScaleDetector
from flowdetect.testing import check_detector

rng = np.random.default_rng(0)
X = np.minimum(rng.poisson(1.5, (200, 4, 4)), 3)
OUTSIDE = 3 - X


@pytest.fixture(scope="module")
def flow():
    return GlowDensity(n_bins=4, n_levels=2, n_steps=1, hidden_channels=8, max_epochs=3, random_state=0).fit(X)


@pytest.mark.parametrize("make", [ScaleDetector, GradientNormDetector, DoSEDetector])
def test_laws(make, flow):
    rows, outside = (images.reshape(len(images), -1).astype(float) for images in (X[:40], OUTSIDE[:10]))
    check_detector(make(FrozenEstimator(flow)), rows, outside)


def test_the_last_scale(flow):
    terms = flow.likelihood_terms(X)
    expected = terms.log_pz_levels[:, 1] + terms.log_det_levels[:, 1]
    np.testing.assert_array_equal(ScaleDetector(FrozenEstimator(flow)).fit(X).score_samples(X), expected)


def test_the_last_scale_of_one_is_refused():
    flow = GlowDensity(n_bins=4, n_levels=1, n_steps=1, hidden_channels=4, max_epochs=1, random_state=0)
    with pytest.raises(ValueError, match="at least two levels"):
        ScaleDetector(flow).fit(X)


def test_gradients_are_compared_with_those_of_calibration_rows(flow):
    detector = GradientNormDetector(FrozenEstimator(flow)).fit(X[:100])
    logs = np.log(flow.layer_gradient_norms(X[:100:2]) ** 2)  # every other row, the rest is for p-values
    np.testing.assert_allclose(detector.mean_, logs.mean(axis=0))
    expected = -(((logs - logs.mean(axis=0)) / logs.std(axis=0)) ** 2).sum(axis=1)
    np.testing.assert_allclose(detector.score_samples(X[:100:2]), expected)


@pytest.mark.parametrize("make", [ScaleDetector, GradientNormDetector])
def test_a_density_that_lacks_the_method(make):
    with pytest.raises(TypeError, match=f"{make.__name__} needs a density with .*; GaussianMixture has none"):
        make(GaussianMixture()).fit(X.reshape(200, -1))


def test_statistics_of_a_flow(flow):
    detector = DoSEDetector(FrozenEstimator(flow)).fit(X)
    levels = ["log_pz_levels 1", "log_pz_levels 2", "log_det_levels 1", "log_det_levels 2"]
    assert set(levels) | {"log_px", "log_pz", "log_det"} <= set(detector.statistic_names_)
    log_px = detector.calibration_statistics_[:, detector.statistic_names_.index("log_px")]
    np.testing.assert_allclose(log_px, flow.score_samples(X[::2]), rtol=1e-5)


def test_statistics_that_are_constant_are_left_out():
    flow = GlowDensity(
        n_bins=4,
        n_steps=1,
        hidden_channels=4,
        max_epochs=1,
        coupling="additive",
        split_prior="standard",
        random_state=0,
    )
    names = DoSEDetector(flow, random_state=0).fit(X).statistic_names_
    assert not [name for name in names if name.startswith("log_det")]


def test_one_statistic_of_a_pixelcnn():
    density = PixelCNNDensity(n_bins=4, n_filters=4, n_blocks=1, n_mixtures=2, max_epochs=1, random_state=0)
    detector = DoSEDetector(density, random_state=0).fit(X)
    assert detector.statistic_names_ == ["log_px"]
    distances = np.abs(detector.calibration_statistics_ - detector.density_.score_samples(X))  # (n_calibration, n)
    assert distances.min(axis=1).max() < 1e-3


def test_kernel_densities_are_those_of_scipy():
    rows = X.reshape(200, -1).astype(float)
    mixture = FrozenEstimator(GaussianMixture(reg_covar=0.1, random_state=0).fit(rows))
    detector = DoSEDetector(mixture).fit(rows)
    log_px = mixture.score_samples(rows[::2])
    standard = (log_px - log_px.mean()) / log_px.std()
    reference = gaussian_kde(standard, bw_method=100 ** (-1 / 5) / standard.std(ddof=1))
    np.testing.assert_allclose(detector.score_samples(rows[::2]), reference.logpdf(standard), rtol=1e-6)


@pytest.mark.parametrize("kind", ["kde", "svm"])
def test_files_keep_what_was_learned(kind, flow, tmp_path):
    detector = DoSEDetector(FrozenEstimator(flow), kind=kind).fit(X)
    detector.save(tmp_path / "detector")
    np.testing.assert_array_equal(load(tmp_path / "detector").score_samples(X), detector.score_samples(X))


def test_an_unknown_kind(flow):
    with pytest.raises(ValueError, match='DoSEDetector needs kind="kde" or "svm", got \'knn\''):
        DoSEDetector(flow, kind="knn").fit(X)

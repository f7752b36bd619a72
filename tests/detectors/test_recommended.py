import numpy as np
import pytest
from scipy.stats import gaussian_kde
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline

from flowdetect import EnsembleDensity, GlowDensity, OODDetector, PixelCNNDensity, RealNVPDensity, load, load_images
from flowdetect.detectors.calibration import log_p_value
from flowdetect.evaluation import auroc

rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def on_digits():
    X, _ = load_images("digits")
    flow = GlowDensity(n_bins=17, n_steps=2, hidden_channels=16, max_epochs=4, random_state=0)
    return OODDetector(flow, random_state=0).fit(X[:600])


def test_tables_are_scored_by_likelihood():
    X = rng.normal(size=(200, 3))
    mixture = FrozenEstimator(GaussianMixture(random_state=0).fit(X))
    detector = OODDetector(mixture).fit(X)
    assert detector.scores_ == ("likelihood",)
    np.testing.assert_array_equal(detector.score_samples(X), mixture.score_samples(X))


def test_the_density_follows_the_data():
    X = rng.normal(size=(120, 2))
    assert isinstance(OODDetector(random_state=0).fit(X).density_, RealNVPDensity)
    images = rng.integers(0, 256, (40, 4, 4)).astype(np.uint8)
    detector = OODDetector(random_state=0)
    detector._check_X(images, reset=True)
    assert isinstance(detector._template(), PixelCNNDensity)
    assert detector._template().image_shape == (4, 4, 1)


class Quick(OODDetector):
    """Its own choice of density, as small as it gets."""

    def _template(self):
        return super()._template().set_params(n_filters=4, max_epochs=1)


def test_images_without_a_density():
    X = load_images("digits")[0][:200]
    detector = Quick(random_state=0).fit(X)
    assert isinstance(detector.density_, PixelCNNDensity)
    assert detector.density_.variant == "pixelcnn++"
    assert (len(detector.calibration_statistics_), len(detector.calibration_scores_)) == (10, 10)
    rows = Quick(image_shape=(8, 8), random_state=0).fit(X.reshape(200, 64))
    np.testing.assert_array_equal(rows.score_samples(X.reshape(200, 64)), detector.score_samples(X))


def test_the_density_hears_of_the_images():
    X = load_images("digits")[0][:60].reshape(60, 64)
    flow = GlowDensity(n_steps=1, hidden_channels=4, max_epochs=1, random_state=0)
    detector = OODDetector(flow, image_shape=(8, 8), random_state=0).fit(X)
    assert detector.density_.image_shape_ == (8, 8, 1)
    assert detector.density_.n_bins_ == 256
    assert flow.image_shape is None
    members = OODDetector(EnsembleDensity(flow, 2), image_shape=(8, 8), random_state=0).fit(X).density_.members_
    assert members[0].image_shape_ == (8, 8, 1)


def test_a_density_behind_steps_that_change_the_rows_does_not():
    X = load_images("digits")[0][:60].reshape(60, 64)
    flow = GlowDensity(n_steps=1, hidden_channels=4, max_epochs=1, random_state=0)
    detector = OODDetector(make_pipeline(PCA(10), flow), image_shape=(8, 8), random_state=0).fit(X)
    assert detector.density_[-1].image_shape_ is None


def test_more_than_8_bits_are_refused_before_training():
    X = rng.integers(0, 4096, size=(40, 8, 8))
    with pytest.raises(ValueError, match=r"OODDetector codes images of at most 256 values.*X // 16"):
        OODDetector().fit(X)


def test_a_likelihood_of_nothing_is_an_outliers():
    X = rng.normal(size=(100, 16))
    density = FrozenEstimator(KernelDensity(kernel="tophat", bandwidth=20.0).fit(X))
    detector = OODDetector(density, image_shape=(4, 4)).fit(X)
    both = np.stack([X[0], X[0] + 99])
    assert detector.score_samples(both)[1] < detector.calibration_scores_[0]
    assert (detector.predict(both)[1], detector.p_values(both)[1]) == (-1, 1 / 51)


def test_how_usual_likelihood_and_complexity_are(on_digits):
    X = load_images("digits", "test")[0][:50]
    log_p = on_digits.density_.score_samples(X)
    complexity = log_p / np.log(2) + on_digits.code_lengths(X)
    known = on_digits.calibration_statistics_
    expected = [
        gaussian_kde(column)(asked)
        for column, asked in zip(known.T, [np.minimum(complexity, np.median(known[:, 0])), log_p], strict=True)
    ]
    found = on_digits.score_samples(X)
    wanted = np.log(expected).sum(axis=0)  # up to the unit of the statistics
    np.testing.assert_allclose(found - found[0], wanted - wanted[0], rtol=0.05, atol=0.1)


def test_tables_keep_all_calibration_rows_for_p_values():
    X = rng.normal(size=(400, 3))
    mixture = FrozenEstimator(GaussianMixture(random_state=0).fit(X))
    assert len(OODDetector(mixture).fit(X).calibration_scores_) == 400
    images = np.arange(16) + rng.integers(0, 4, (400, 16))
    mixture = FrozenEstimator(GaussianMixture(random_state=0, reg_covar=1.0).fit(images))
    assert len(OODDetector(mixture, image_shape=(4, 4)).fit(images).calibration_scores_) == 200


def test_both_directions(on_digits):
    """Flat images are likely and simple, noise is unlikely and complex."""
    X = load_images("digits", "test")[0]
    flat = np.broadcast_to(np.arange(1, 17)[:, None, None], (16, 8, 8))
    noise = rng.integers(0, 17, (50, 8, 8))
    for outside in (flat, noise):
        assert auroc(on_digits.score_samples(X), on_digits.score_samples(outside)) > 0.9


def test_files(on_digits, tmp_path):
    on_digits.save(tmp_path / "detector")
    X = load_images("digits", "test")[0][:20]
    np.testing.assert_array_equal(load(tmp_path / "detector").score_samples(X), on_digits.score_samples(X))


def test_log_p_values_are_p_values_with_an_exponential_tail():
    known = np.sort(rng.normal(size=1000))
    asked = np.linspace(-6, 4, 500)
    found = log_p_value(asked, known)
    assert (np.diff(found) >= 0).all()
    inside = asked > known[50]
    p_values = (1 + np.searchsorted(known, asked[inside], side="right")) / 1001
    np.testing.assert_allclose(found[inside], np.log(p_values))
    assert found[0] < np.log(1 / 1001)
    slopes = np.diff(found[asked < known[50]]) / np.diff(asked[asked < known[50]])
    np.testing.assert_allclose(slopes, 1 / np.mean(known[50] - known[:50]))


def test_refusals_come_before_any_training():
    with pytest.raises(ValueError, match="OODDetector needs contamination"):
        OODDetector(contamination=0.9).fit(rng.normal(size=(50, 2)))
    with pytest.raises(TypeError, match="needs a density with score_samples"):
        OODDetector(FrozenEstimator(object())).fit(rng.normal(size=(50, 2)))

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from flowdetect import GlowDensity, OODDetector, RealNVPDensity, load, load_images
from flowdetect.detectors.p_values import log_p_value
from flowdetect.detectors.recommended import LIKELIHOOD_WEIGHT
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
    assert isinstance(detector._template(), GlowDensity)
    assert detector._template().image_shape == (4, 4, 1)


def test_the_louder_of_two_alarms_counts(on_digits):
    X = load_images("digits", "test")[0][:50]
    both = {name: log_p_value(scores, on_digits._tails[name]) for name, scores in on_digits._both(X).items()}
    expected = np.minimum(both["complexity"], both["likelihood"] + np.log(LIKELIHOOD_WEIGHT))
    np.testing.assert_array_equal(on_digits.score_samples(X), expected)


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

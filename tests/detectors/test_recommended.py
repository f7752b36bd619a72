import os
import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline

from flowdetect import (
    EnsembleDensity,
    GlowDensity,
    NeighborsDensity,
    OODDetector,
    PixelCNNDensity,
    load,
    load_images,
)
from flowdetect.detectors.base import BaseDetector
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
    assert isinstance(OODDetector(random_state=0).fit(X).density_, NeighborsDensity)


class Quick(OODDetector):
    """Its own choice of density, as small as it gets."""

    def _template(self):
        return super()._template().set_params(n_filters=4, max_epochs=1)  # images alone


def test_of_no_image_the_density_is_asked_twice(monkeypatch):
    X, asked = load_images("digits")[0][:400], []
    score = PixelCNNDensity.score_samples
    monkeypatch.setattr(PixelCNNDensity, "score_samples", lambda self, X: asked.extend(X) or score(self, X))
    detector = Quick(random_state=0).fit(X)
    assert len(asked) == 40  # the rows held out: a half for the statistics' p-values, all for the threshold
    monkeypatch.setattr(OODDetector, "_threshold_scores", BaseDetector._threshold_scores)
    again = Quick(random_state=0).fit(X)
    assert len(asked) == 40 + 20 + 40
    assert again.offset_ == detector.offset_
    np.testing.assert_array_equal(again.calibration_scores_, detector.calibration_scores_)


def test_images_without_a_density():
    X = load_images("digits")[0][:200]
    detector = Quick(random_state=0).fit(X)
    assert isinstance(detector.density_, PixelCNNDensity)
    assert detector.density_.variant == "pixelcnn++"
    assert (len(detector.calibration_statistics_), len(detector.calibration_scores_)) == (10, 10)
    assert detector.scores_ == ("complexity", "spectrum", "log_spectrum", "texture", "shape")
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


def test_the_score_is_the_weighted_sum_of_log_p_values(on_digits):
    X = load_images("digits", "test")[0][:50]
    known, found = on_digits.calibration_statistics_, on_digits._statistics(X)
    log_p = [log_p_value(-each, np.sort(-column)) for each, column in zip(found.T, known.T, strict=True)]
    other_side = log_p_value(found[:, 4], np.sort(known[:, 4]))  # the shape is rare on both sides
    log_p[4] = np.minimum(0, np.log(2) + np.minimum(log_p[4], other_side))
    expected = log_p[0] + 2 * log_p[1] + log_p[2] + log_p[3] + 0.5 * log_p[4]
    np.testing.assert_allclose(on_digits.score_samples(X), expected, rtol=1e-12)
    log_p_x = on_digits.density_.score_samples(X)
    np.testing.assert_allclose(-found[:, 0], log_p_x / np.log(2) + on_digits.code_lengths(X))


@pytest.mark.parametrize("scale", [1, 255], ids=["unit range", "bytes"])
def test_noise_that_nobody_sees_changes_no_verdict(scale):
    X = load_images("digits")[0][:300] * 15
    X[0, 0, 0] = 255  # so that real values have the same range
    X = X if scale == 255 else X / 255
    detector = Quick(random_state=0).fit(X[:200])
    noisy = X[200:] + rng.normal(0, 0.001 * scale, X[200:].shape)
    clean, changed = detector.score_samples(X[200:]), detector.score_samples(noisy)
    assert (clean == changed).mean() > 0.5
    assert abs(auroc(clean, changed) - 0.5) < 0.05


def test_contamination_says_that_a_tight_group_are_outliers():
    X = np.concatenate([rng.normal(size=(900, 8)), 5 + rng.uniform(-0.1, 0.1, (100, 8))])
    told = OODDetector(contamination=0.1, random_state=0).fit(X)
    assert auroc(told.score_samples(X[:900]), told.score_samples(X[900:])) > 0.99
    assert (told.predict(X[900:]) == -1).all()
    with pytest.warns(UserWarning, match="100 rows lie in a tight group far from all others.*give OODDetector contam"):
        OODDetector(random_state=0).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OODDetector(random_state=0).fit(X[:900])


def test_p_values_of_tables_are_valid_though_every_row_trains():
    shares = []
    for seed in range(20):
        X = np.random.default_rng(seed).standard_t(3, size=(400, 5))
        detector = OODDetector(random_state=0).fit(X[:200])
        assert len(detector.calibration_scores_) == 200
        shares.append([(detector.p_values(X[200:]) <= level).mean() for level in (0.05, 0.1, 0.5)])
    np.testing.assert_allclose(np.mean(shares, axis=0), (0.05, 0.1, 0.5), atol=0.025)


def test_gross_values_and_constant_columns():
    X = rng.normal(size=(300, 3))
    X[0, 1] = 1e6
    X = np.column_stack([X, np.full(300, 3.0)])
    inside = np.column_stack([rng.normal(size=(200, 3)), np.full(200, 3.0)])
    far = inside.copy()
    far[:, 1] = 9
    with pytest.warns(UserWarning, match="Column 1 has values up to 1e.06, but all except 2 of its rows span"):
        detector = OODDetector(random_state=0).fit(X)
    assert auroc(detector.score_samples(inside), detector.score_samples(far)) > 0.95
    broken = inside.copy()
    broken[:, 3] = 1e6
    assert auroc(detector.score_samples(inside), detector.score_samples(broken)) == 1
    broken[:, 3], broken[0, 0] = 3, 1e20
    assert detector.predict(broken)[0] == -1


def test_what_is_handed_on():
    X = load_images("digits")[0][:60]
    flow = GlowDensity(n_steps=1, hidden_channels=4, max_epochs=1)
    detector = OODDetector(flow, device="cpu", time_limit=50, random_state=0).fit(X)
    assert (detector.density_.device, detector.density_.time_limit) == ("cpu", 40)
    assert (flow.device, flow.time_limit) == ("auto", None)
    with pytest.raises(ValueError, match="OODDetector needs time_limit, the seconds that fit may take, above 0.*-1"):
        OODDetector(time_limit=-1).fit(X)


def test_lines_by_stage(capsys):
    X = load_images("digits")[0][:60]
    Quick(random_state=0, verbose=1).fit(X)
    told = capsys.readouterr().err
    for stage in ("density of 54 rows", "statistics of 27 images", "calibration on", "fitted in"):
        assert f"Quick: {stage}" in told
    assert "PixelCNNDensity: epoch 1/1" in told
    Quick(random_state=0).fit(X)
    assert capsys.readouterr().err == ""


class Killed(BaseException):
    """Ends a process as a kill does: nothing of ours catches it."""


def test_a_killed_fit_resumes_without_a_seed(tmp_path, monkeypatch):
    X = load_images("digits")[0][:60]
    monkeypatch.setattr("flowdetect.detectors.recommended.GRAY_PACE", (12, 8e-3))  # three epochs
    sizes = {"checkpoint": tmp_path / "fit", "random_state": None}

    class Small(OODDetector):
        def _template(self):
            return super()._template().set_params(n_filters=4)

    written = []
    real = os.replace

    def replace(source, target):
        real(source, target)
        if str(target).endswith(".checkpoint"):
            written.append(target)
            if len(written) == 2:
                raise Killed

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(Killed):
        Small(**sizes).fit(X)
    resumed = Small(**sizes).fit(X)
    assert len(written) > 2
    (file,) = tmp_path.glob("fit/PixelCNNDensity-*.checkpoint")
    file.unlink()
    whole = Small(**sizes).fit(X)  # the seed stands still
    np.testing.assert_array_equal(resumed.score_samples(X), whole.score_samples(X))
    np.testing.assert_array_equal(resumed.calibration_scores_, whole.calibration_scores_)
    (seed,) = tmp_path.glob("fit/Small-*.seed")
    seed.write_text("{}")
    with pytest.raises(
        ValueError, match="must hold the seed of the trainings.*remove the file and these checkpoints to start again"
    ):
        Small(**sizes).fit(X)


def test_ctrl_c_leaves_a_calibrated_detector(monkeypatch):
    X = load_images("digits")[0][:80]
    detector = Quick(random_state=0)
    real = PixelCNNDensity.fit

    def fit(self, *arguments):
        real(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(PixelCNNDensity, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(X)
    assert np.isfinite(detector.score_samples(X)).all()
    assert len(detector.calibration_scores_)
    assert "_interrupt" not in vars(detector)


def test_colour_and_real_valued_images():
    X = rng.integers(0, 256, (60, 6, 5, 3)).astype(np.uint8)
    X[:, :3] //= 8
    detector = Quick(random_state=0).fit(X)
    assert (detector.n_bins_, detector.density_.n_bins_) == (256, 32)
    real = Quick(random_state=0).fit(X / 255)
    assert real.n_bins_ is None
    assert auroc(detector.score_samples(X), detector.score_samples(255 - X)) > 0.9
    assert auroc(real.score_samples(X / 255), real.score_samples(1 - X / 255)) > 0.9


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


def test_a_tenth_of_new_images_are_called_outliers(on_digits):
    """Of 500 new images 10 % +- 4 standard deviations: of 500 draws, and of a threshold by 60 held out."""
    flagged = np.mean(on_digits.predict(load_images("digits", "test")[0]) == -1)
    assert abs(flagged - 0.1) < 4 * np.sqrt(0.09 / 500 + 0.09 / 60)


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
    for share in (0.9, "automatic", None):
        with pytest.raises(ValueError, match="OODDetector needs contamination"):
            OODDetector(contamination=share).fit(rng.normal(size=(50, 2)))
    with pytest.raises(TypeError, match="needs a density with score_samples"):
        OODDetector(FrozenEstimator(object())).fit(rng.normal(size=(50, 2)))

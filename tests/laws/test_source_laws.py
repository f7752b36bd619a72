"""Laws of sources: what is read in parts is fitted, scored and reported bitwise as the array of the same rows."""

import numpy as np
import pytest
import torch
from detector_table import ASK_FOR_MORE, DETECTORS, Asked
from sklearn.mixture import GaussianMixture

from flowdetect import (
    GlowDensity,
    LikelihoodDetector,
    LikelihoodRatioDetector,
    NeighborsDensity,
    OODDetector,
    RealNVPDensity,
    load_images,
    ood_report,
    sit_report,
)
from flowdetect._sources import Source
from flowdetect.detectors import rows as detector_rows
from flowdetect.sit import Translate

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(size=(120, 4))
PIXELS = RANDOM.integers(0, 256, (120, 4)).astype(np.uint8)
DIGITS, LABELS = load_images("digits")
DIGITS, LABELS = DIGITS[:150], LABELS[:150]


class InParts(Source):
    """A source that reads at most a few rows at a time, and remembers how many it read at once."""

    def __init__(self, values, columns=None, y=None):
        self.values, self.row_shape, self.dtype = values, values.shape[1:], values.dtype
        self.columns, self.y, self.most = columns, y, 0

    def __len__(self):
        return len(self.values)

    def read(self, indices):
        self.most = max(self.most, len(indices))
        return self.values[indices]


def small(**changes):
    return GlowDensity(n_bins=17, n_steps=1, hidden_channels=8, max_epochs=1, random_state=0, **changes)


@pytest.mark.parametrize("name", [*DETECTORS, *ASK_FOR_MORE])
@pytest.mark.filterwarnings("ignore:.*in a tight group")
def test_a_detector_reads_a_source_as_its_array(name, monkeypatch):
    monkeypatch.setattr(detector_rows, "PART_BYTES", 7 * 4 * 8)
    X = PIXELS if "images" in name else TABLE
    make = {**DETECTORS, **ASK_FOR_MORE}[name]
    expected, found = (make(Asked(random_state=0), random_state=0).fit(rows) for rows in (X, InParts(X)))
    assert found.offset_ == expected.offset_
    for method in ("score_samples", "predict", "p_values", "predict_proba"):
        asked = getattr(expected, method)(X)
        np.testing.assert_array_equal(getattr(found, method)(InParts(X)), asked)
        np.testing.assert_array_equal(getattr(found, method)(X), asked)
    assert (found.explain(InParts(X[:2])).to_frame() == expected.explain(X[:2]).to_frame()).all(axis=None)


@pytest.mark.parametrize("make", [LikelihoodDetector, LikelihoodRatioDetector], ids=lambda make: make.__name__)
def test_a_density_of_ours_is_trained_in_parts(make):
    source = InParts(DIGITS)
    expected, found = (make(small(), random_state=0).fit(X) for X in (DIGITS, source))
    if make is LikelihoodDetector:  # a background redraws pixels from some rows alone
        np.testing.assert_array_equal(found.score_samples(source), expected.score_samples(DIGITS))
    assert found.image_shape_ == expected.image_shape_ == (8, 8, 1)


def test_the_rows_of_a_large_source_are_drawn(monkeypatch):
    monkeypatch.setattr(detector_rows, "MOST_ROWS_READ", 20)
    X = np.random.default_rng(1).normal(size=(900, 3))
    detector = LikelihoodDetector(RealNVPDensity(n_steps=1, hidden_channels=4, max_epochs=1), random_state=0)
    detector.fit(InParts(X))
    assert len(detector.calibration_scores_) == 20
    own = detector.density_.score_samples(X)
    assert set(detector.calibration_scores_) <= set(own)
    for calibration_fraction in (0.0, 0.5):
        again = detector.set_params(calibration_fraction=calibration_fraction).fit(InParts(X))
        assert len(again.calibration_scores_) == 20
    frozen = LikelihoodDetector(detector.density_, prefit=True, random_state=0).fit(InParts(X))
    assert len(frozen.calibration_scores_) == 20
    # what the density calls constant is so in all rows, not in those drawn alone
    X[:, 1] = 3.0
    X[7, 1] = 4.0
    with pytest.warns(UserWarning, match="few distinct values"):
        assert not len(detector.fit(InParts(X)).density_.constant_features_)
    assert detector.score_samples(X[7:8])[0] > -1e250


def test_neighbours_of_a_large_source_are_drawn(monkeypatch):
    monkeypatch.setattr("flowdetect.detectors.recommended.MOST_NEIGHBORS", 50)
    detector = OODDetector(random_state=0).fit(InParts(TABLE))
    assert len(detector.density_._references) == 50
    assert detector.predict([[40.0] * 4]) == -1


def test_names_of_columns_are_kept_and_compared():
    names = ["a", "b", "c", "d"]
    for estimator in (LikelihoodDetector(GaussianMixture()), NeighborsDensity(), RealNVPDensity(max_epochs=1)):
        estimator.fit(InParts(TABLE, names))
        assert estimator.feature_names_in_.tolist() == names
        with pytest.raises(ValueError, match=r"unknown are \['x'\].*columns=\['a', 'b', 'c', 'd'\]"):
            estimator.score_samples(InParts(TABLE, ["a", "b", "c", "x"]))
        with pytest.raises(ValueError, match="order differs"):
            estimator.score_samples(InParts(TABLE, names[::-1]))


def test_labels_come_along():
    expected = small(conditional=True).fit(DIGITS, LABELS)
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(DIGITS)[:, None], torch.from_numpy(LABELS))
    for source in (InParts(DIGITS, y=LABELS), tensors, torch.utils.data.DataLoader(tensors, batch_size=7)):
        found = small(conditional=True).fit(source)
        np.testing.assert_array_equal(found.score_samples(DIGITS), expected.score_samples(DIGITS))
    detector = LikelihoodDetector(small(conditional=True), random_state=0)
    np.testing.assert_array_equal(
        detector.fit(InParts(DIGITS, y=LABELS)).score_samples(DIGITS),
        detector.fit(DIGITS, LABELS).score_samples(DIGITS),
    )
    with pytest.raises(ValueError, match="requires y"):
        small(conditional=True).fit(InParts(DIGITS))


def test_reports_read_sources():
    mixture, density = (
        GaussianMixture(random_state=0).fit(TABLE),
        RealNVPDensity(max_epochs=1, random_state=0).fit(TABLE),
    )
    scorers = {"mixture": mixture, "flow": density}
    moved = TABLE + 1
    expected = ood_report(scorers, TABLE, {"moved": moved}, n_bootstrap=10).to_frame()
    found = ood_report(scorers, InParts(TABLE), {"moved": InParts(moved)}, n_bootstrap=10).to_frame()
    assert (found.auroc == expected.auroc).all()
    expected, found = (
        sit_report([mixture], X, [Translate(dx=1)], n_bootstrap=10).to_frame() for X in (TABLE, InParts(TABLE))
    )
    assert (found.auroc_clean == expected.auroc_clean).all()


def test_what_is_wrong_in_a_later_part_is_told_with_its_row(monkeypatch):
    monkeypatch.setattr(detector_rows, "PART_BYTES", 7 * 4 * 8)
    detector = LikelihoodDetector(GaussianMixture(), random_state=0).fit(TABLE)
    lost = TABLE.copy()
    lost[23, 2] = np.nan
    with pytest.raises(ValueError, match=r"NaN.*counted from row 21 of X"):
        detector.score_samples(InParts(lost))
    with pytest.raises(ValueError, match="NaN"):
        LikelihoodDetector(GaussianMixture()).fit(InParts(lost))
    with pytest.raises(ValueError, match="row 23, column 2"):
        RealNVPDensity().fit(InParts(lost))


def test_a_source_is_indexed_like_an_array():
    source = InParts(DIGITS, y=LABELS)
    np.testing.assert_array_equal(source[3], DIGITS[3])
    np.testing.assert_array_equal(source[-1], DIGITS[-1])
    for index in (slice(5, 40, 3), slice(None, None, -1), np.array([3, -1, 3]), LABELS == 2):
        part = source[index]
        np.testing.assert_array_equal(part.array(), DIGITS[index])
        np.testing.assert_array_equal(np.asarray(part), DIGITS[index])
        np.testing.assert_array_equal(part.y, LABELS[index])
        np.testing.assert_array_equal(part[1:][0], DIGITS[index][1])
    with pytest.raises(IndexError):
        source[150]
    assert source.shape == DIGITS.shape

"""What fit learns about the data: in float64, from the training rows alone, and with warnings where it cannot."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from flowdetect import GlowDensity, OODDetector, PixelCNNDensity, RealNVPDensity, load_images
from flowdetect._sources import ArraySource
from flowdetect.density import _reading
from flowdetect.density.spec import DataSpec

SMALL = {"n_steps": 1, "hidden_channels": 8, "max_epochs": 3, "random_state": 0}
DIGITS, LABELS = load_images("digits")


# ---- numbers on their way in


def far_from_zero(n, rng, moved=0.0):
    """Two columns of large values, whose difference is what tells: scikit-learn's issue 9354."""
    a = rng.normal(0, 60, n)
    return 5.4e6 + np.c_[a, a + rng.normal(0, 0.05, n) + moved]


@pytest.mark.parametrize("make", [GlowDensity, RealNVPDensity, PixelCNNDensity])
def test_columns_far_from_zero_score_as_when_standardised_by_hand(make):
    rng = np.random.default_rng(0)
    X, rows = far_from_zero(1000, rng), far_from_zero(300, rng)
    loc, scale = X.mean(0), X.std(0)
    settings = {
        "max_epochs": 2,
        "learning_rate": 1e-5,
        "random_state": 0,
    }  # as it starts: training multiplies roundings
    scores = make(**settings).fit(X).score_samples(rows)
    by_hand = make(**settings).fit((X - loc) / scale).score_samples((rows - loc) / scale) - np.log(scale).sum()
    np.testing.assert_allclose(scores, by_hand, atol=1e-2)


def test_outliers_in_columns_far_from_zero_are_found():
    rng = np.random.default_rng(0)
    X, X_in, X_out = far_from_zero(1000, rng), far_from_zero(300, rng), far_from_zero(300, rng, moved=0.4)
    density = RealNVPDensity(max_epochs=20, random_state=0).fit(X)
    scores = np.concatenate([density.score_samples(X_in), density.score_samples(X_out)])
    assert roc_auc_score(np.repeat([1, 0], 300), scores) > 0.99


def test_rows_go_into_tensors_and_back():
    X = np.random.default_rng(0).normal(1e8, 1e-2, size=(50, 3))
    spec = RealNVPDensity(**SMALL).fit(X).spec_
    tensor = spec.to_tensor(X, "cpu")
    assert tensor.dtype == torch.float32
    assert tensor.mean(0).abs().max() < 0.1  # some rows are held out
    np.testing.assert_allclose(spec.to_rows(tensor), X, atol=1e-8)


@pytest.mark.parametrize("n_bins", [2**20 + 1, 2**22, 2**24])
@pytest.mark.parametrize("make", [GlowDensity, PixelCNNDensity])
def test_more_bins_than_float32_resolves_are_refused(n_bins, make):
    X = np.random.default_rng(0).integers(0, n_bins, size=(30, 2))
    with pytest.raises(ValueError, match=r"at most 2\*\*20 = 1048576.*n_bins=None"):
        make(n_bins=n_bins, max_epochs=1).fit(X)


@pytest.mark.parametrize("n_bins", [2, 17, 256, 257, 1024, 2**20])
def test_noise_keeps_every_value_in_its_bin(n_bins):
    from flowdetect.bijections import UniformDequantize

    layer = UniformDequantize((1, 1, 1), n_bins)
    x = torch.full((1, 1, 1, 1), float(n_bins - 1))
    top = torch.tensor([[np.nextafter(np.float32(1), np.float32(0))]])
    z, term = layer(x, None, top)
    assert n_bins - 1 < z.item() < n_bins
    assert term.item() == 0
    torch.testing.assert_close(layer.inverse(z), x)
    assert layer(x)[0].item() == n_bins - 0.5


# ---- one gross value


@pytest.mark.parametrize("make", [GlowDensity, RealNVPDensity, PixelCNNDensity])
def test_one_gross_value_is_warned_of_by_column(make):
    X = np.random.default_rng(0).normal(size=(300, 3))
    X[7, 1] = 1e6
    with pytest.warns(UserWarning, match=r"scale of column\(s\) 1: .* to 1e\+06.*drop such rows"):
        make(max_epochs=1, random_state=0).fit(X)


def test_codes_of_missing_values_are_warned_of():
    X = np.random.default_rng(0).normal(size=(300, 3))
    X[::20, 2] = -9999
    with pytest.warns(UserWarning, match=r"scale of column\(s\) 2: .*impute codes"):
        GlowDensity(**SMALL).fit(X)


def test_the_recommended_detector_passes_the_warning_on():
    X = np.random.default_rng(0).normal(size=(300, 3))
    X[7, 1] = 1e6
    with pytest.warns(UserWarning, match="extreme values dominate the scale of .*: column 1"):
        OODDetector(RealNVPDensity(**SMALL), random_state=0).fit(X)


@pytest.mark.parametrize("draw", ["normal", "exponential", "lognormal", "uniform"])
def test_usual_columns_are_not_warned_of(draw):
    X = getattr(np.random.default_rng(0), draw)(size=(400, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GlowDensity(**SMALL).fit(X)


# ---- rows that are held out


class Recorder(ArraySource):
    """A source that notes which rows are read."""

    def __init__(self, array):
        super().__init__(array)
        self.seen = []

    def rows(self, indices):
        self.seen.append(np.asarray(indices))
        return super().rows(indices)


def split_of(density, X):
    return _reading.split_rows(ArraySource(X), None, 0.05, density.seed_, "cpu", {}, False)


@pytest.mark.parametrize(
    ("density", "X"),
    [
        (RealNVPDensity(preprocessing="gaussianize", **SMALL), np.random.default_rng(0).gamma(2, size=(200, 3))),
        (GlowDensity(n_bins=17, **SMALL), DIGITS[:200]),
    ],
    ids=["table", "images"],
)
def test_nothing_is_learned_from_rows_held_out(density, X):
    first = density.fit(X)
    data = split_of(first, X)
    held_out = np.setdiff1d(np.arange(len(X)), data.training.indices)
    assert len(held_out) == 10
    changed = X.copy()
    changed[held_out] = changed[held_out[::-1]] // 2 if first.n_bins_ else changed[held_out] * 1.5 + 0.1
    before, after = first.spec_.to_dict(), type(density)(**density.get_params()).fit(changed).spec_.to_dict()
    for name in ("loc", "scale"):
        np.testing.assert_array_equal(before[name], after[name])
    assert before["learned"].keys() == after["learned"].keys() != set()
    for name, learned in before["learned"].items():
        np.testing.assert_array_equal(learned, after["learned"][name], err_msg=name)


@pytest.mark.parametrize("make", [GlowDensity, RealNVPDensity])
def test_validation_is_near_fresh_rows_on_columns_of_many_values(make):
    """Two columns of 1,024 values: counts of 600 rows say little, and validation must see that."""
    rng = np.random.default_rng(0)

    def draw(n):
        return np.clip(np.rint(rng.normal(512, 100, size=(n, 2))), 0, 1023).astype(int)

    X, fresh = draw(600), draw(2000)
    entropy = 0.5 * np.log2(2 * np.pi * np.e * 100**2)  # bits a column, 8.69
    density = make(n_bins=1024, max_epochs=30, validation_fraction=0.2, random_state=0).fit(X)
    bits = density.bits_per_dim(fresh).mean()
    assert bits == pytest.approx(entropy, abs=0.15)
    assert min(density.history_["validation_bits_per_dim"]) == pytest.approx(bits, abs=0.15)


def test_images_of_few_grey_levels_are_still_gaussianized():
    density = GlowDensity(n_bins=17, **SMALL).fit(DIGITS)
    assert density.value_counts_.sum() == 64 * (len(DIGITS) - round(0.05 * len(DIGITS)))


def test_a_spec_survives_its_dictionary():
    spec = GlowDensity(conditional=True, **SMALL).fit(DIGITS[:60] / 16, LABELS[:60]).spec_
    again = DataSpec.from_dict(spec.to_dict())
    assert again.layout == spec.layout
    assert again.difference(spec) == ""
    np.testing.assert_array_equal(again.loc, spec.loc)

"""Sources in ways that few ask: indices that are none, other orders of columns, odd images, items that fail."""

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split

from flowdetect import (
    ComplexityDetector,
    EnsembleDensity,
    GlowDensity,
    LikelihoodDetector,
    LikelihoodRatioDetector,
    RealNVPDensity,
    VAEDensity,
    ood_report,
)
from flowdetect._datasets import DatasetSource, dataset_source
from flowdetect._sources import ArrayElsewhere, Source

TABLE = np.random.default_rng(0).normal(size=(60, 3))
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3)).astype(np.uint8)
LABELS = np.arange(60) % 3
TENSORS = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
FLAT = RealNVPDensity(n_steps=1, hidden_channels=4, max_epochs=1, random_state=0)


class Rows(Source):
    """Rows of an array, as a source."""

    def __init__(self, values, columns=None):
        self.values, self.row_shape, self.dtype, self.columns = values, values.shape[1:], values.dtype, columns

    def __len__(self):
        return len(self.values)

    def read(self, indices):
        return self.values[indices]


class Items:
    """A map-style dataset of a list."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([12], r"rows of the source, -10..9, got 12..12"),
        ([-11, 3], r"got -11..3"),
        ([1.7], "indexed by rows"),
        ([[0, 1]], "indexed by rows"),
        ((slice(None), 1), "indexed by rows"),
        ("a", "indexed by rows"),
        (np.ones(9, dtype=bool), "one entry per row, 10, got 9"),
    ],
)
def test_an_index_of_no_row_is_refused(index, message):
    with pytest.raises(IndexError, match=message):
        Rows(TABLE)[:10][index]


@pytest.mark.parametrize("make", [Rows, ArrayElsewhere, lambda X: DatasetSource(Items(list(X)))])
def test_a_part_of_no_rows_has_none(make):
    for part in (make(TABLE)[2:2], make(TABLE)[[]], make(TABLE)[np.zeros(60, dtype=bool)]):
        assert part.array().shape == (0, 3)


def mean_score(estimator, X, y=None):
    return estimator.score_samples(X).mean()


def test_searches_of_scikit_learn_split_a_source():
    mixture = GaussianMixture(random_state=0)
    for estimator in (FLAT, LikelihoodDetector(mixture, random_state=0)):
        found, expected = (cross_val_score(estimator, X, cv=2, scoring=mean_score) for X in (Rows(TABLE), TABLE))
        np.testing.assert_array_equal(found, expected)
    search = GridSearchCV(LikelihoodDetector(mixture), {"contamination": [0.1, 0.3]}, cv=2, scoring=mean_score)
    assert search.fit(Rows(TABLE)).n_features_in_ == 3
    found, expected = (train_test_split(X, LABELS, random_state=0) for X in (Rows(TABLE), TABLE))
    np.testing.assert_array_equal(found[1].array(), expected[1])
    np.testing.assert_array_equal(found[3], expected[3])


def test_columns_of_another_order_are_refused_by_what_was_fitted_before():
    frame, turned = pd.DataFrame(TABLE, columns=["a", "b", "c"]), Rows(TABLE[:, ::-1], ["c", "b", "a"])
    mixture = GaussianMixture(random_state=0).fit(frame)
    for density in (mixture, clone(FLAT).fit(frame)):
        with pytest.raises(ValueError, match="the order differs; pass"):
            LikelihoodDetector(density, prefit=True).fit(turned)
        LikelihoodDetector(density, prefit=True).fit(Rows(TABLE, ["a", "b", "c"]))
    ensemble = EnsembleDensity(GaussianMixture(), n_members=2, random_state=0).fit(Rows(TABLE, ["a", "b", "c"]))
    with pytest.raises(ValueError, match="the order differs; pass"):
        ensemble.score_samples(turned)
    assert not hasattr(ensemble.fit(TABLE), "feature_names_in_")
    same = Rows(TABLE + 1, ["a", "b", "c"])
    assert np.isfinite(ood_report([mixture], same, {"same": same}, n_bootstrap=5).to_frame().auroc).all()
    unscored = ood_report([mixture], turned, {"same": same}, n_bootstrap=5).unscored[0]
    assert unscored.rows == tuple(range(60))
    assert "the order differs" in unscored.reason


@pytest.mark.parametrize("make", [LikelihoodDetector, ComplexityDetector])
@pytest.mark.filterwarnings("ignore:image_shape=")
def test_images_of_three_rows_of_pixels_have_channels_where_torch_has_them(make):
    X = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 4, 3, 8)).astype(np.uint8))
    dataset = torch.utils.data.TensorDataset(X)
    found, expected = (make(VAEDensity(max_epochs=1, random_state=0), random_state=0).fit(x) for x in (dataset, X))
    assert found.image_shape_ == (3, 8, 4)
    np.testing.assert_array_equal(found.score_samples(dataset), expected.score_samples(X))
    assert found.explain(torch.utils.data.Subset(dataset, [0, 1])).images.shape == (2, 3, 8, 4)


@pytest.mark.filterwarnings("ignore:image_shape=")
def test_a_remedy_for_items_that_look_channel_first_helps():
    dataset = Items(list(np.random.default_rng(0).normal(size=(30, 3, 8, 4))))
    with pytest.raises(ValueError, match=r"image_shape=\(3, 8, 4\)"):
        VAEDensity(max_epochs=1).fit(dataset)
    density = VAEDensity(max_epochs=1, image_shape=(3, 8, 4), random_state=0).fit(dataset)
    np.testing.assert_array_equal(density.score_samples(dataset), density.score_samples(np.stack(dataset.items)))


def test_numbers_and_labels_beside_an_array_are_not_the_data():
    for key in ("photo", "image"):
        source = dataset_source(Items([{"id": i, "label": i % 2, key: IMAGES[i]} for i in range(9)]))
        np.testing.assert_array_equal(source.array(), IMAGES[:9])
        assert source.y.tolist() == [i % 2 for i in range(9)]
    for item in ({"width": 1.0, "height": 2.0}, {"left": TABLE[0], "right": TABLE[1]}, {}):
        with pytest.raises(ValueError, match="or name it 'image'"):
            dataset_source(Items([item]))


def test_files_that_are_closed_or_whole_are_told(tmp_path):
    with h5py.File(tmp_path / "X.h5", "w") as file:
        rows = file.create_dataset("X", data=TABLE)
        with pytest.raises(ValueError, match="maps names"):
            clone(FLAT).fit(file)
    for estimator in (clone(FLAT), LikelihoodDetector(FLAT)):
        with pytest.raises(ValueError, match="open its file again"):
            estimator.fit(rows)


@pytest.mark.parametrize("make", [lambda density: density, LikelihoodDetector, LikelihoodRatioDetector])
def test_an_item_that_fails_in_the_middle_leaves_the_old_fit(make):
    class Fails(Items):
        n_read = 0

        def __getitem__(self, i):
            self.n_read += 1
            if self.n_read > 150:
                raise OSError("disk gone")
            return super().__getitem__(i)

    density = GlowDensity(n_bins=256, n_steps=1, hidden_channels=8, max_epochs=1, random_state=0)
    estimator = make(density).fit(TENSORS)
    names, scores = set(vars(estimator)), estimator.score_samples(TENSORS)
    with pytest.raises(ValueError, match="but raised OSError: disk gone"):
        estimator.fit(Fails(list(TENSORS)))
    assert set(vars(estimator)) == names
    np.testing.assert_array_equal(estimator.score_samples(TENSORS), scores)

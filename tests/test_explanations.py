import importlib.util
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from detector_table import ASK_FOR_MORE, DETECTORS, Asked
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowdetect import load
from flowdetect.detectors import LikelihoodDetector, explanations
from flowdetect.explanation import Explanation, ImageExplanation, TableExplanation

CONTAINERS = ["pandas", *(["polars"] if importlib.util.find_spec("polars") else [])]
ARRAYS = ["scores", "importance", "values", "usual_values", "best_values", "suffices", "gains"]
ARRAYS += ["cell_p_values", "residual_p_values"]
RNG = np.random.default_rng(0)
LATENT = RNG.normal(size=(400, 1))
X = np.c_[LATENT + 0.1 * RNG.normal(size=(400, 1)), LATENT + 0.1 * RNG.normal(size=(400, 1)), RNG.normal(size=(400, 2))]
SQUARE = (slice(4, 9), slice(8, 13))


def fitted(X=X, **parameters):
    return LikelihoodDetector(GaussianMixture(random_state=0), random_state=0, **parameters).fit(X)


class Smallest(BaseEstimator):
    """A score that is minus the largest absolute value, exactly the same in every batch; -inf beyond `reach`."""

    def __init__(self, reach=np.inf):
        self.reach = reach

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def score_samples(self, X):
        largest = np.abs(np.asarray(X, dtype=float)).reshape(len(X), -1).max(axis=1)
        return np.where(largest > self.reach, -np.inf, -largest)


class Pixels(BaseEstimator):
    """Minus the squared distance to the mean image; it keeps what it was asked."""

    def __init__(self, image_shape=None):
        self.image_shape = image_shape

    def fit(self, X, y=None):
        self.mean_ = np.asarray(X, dtype=float).mean(axis=0)
        return self

    def score_samples(self, X):
        self.asked_ = np.asarray(X)
        return -((self.asked_.reshape(len(X), -1) - self.mean_.ravel()) ** 2).mean(axis=1)


def images(shape=(60, 16, 16)):
    return np.random.default_rng(1).integers(90, 110, size=shape).astype(np.uint8)


class TestTables:
    def test_a_value_that_contradicts_another_column_comes_first(self):
        rows = np.array([[1.5, 1.5, -1.2, 0.0], [0.0, 0.0, 0.0, 8.0]])
        found = fitted().explain(rows)
        assert isinstance(found, TableExplanation)
        assert isinstance(found, Explanation)
        assert found.importance[1].argmax() == 3
        np.testing.assert_allclose(found.importance.sum(axis=1), [1, 1])
        three = np.c_[X, LATENT + 0.1 * RNG.normal(size=(400, 1))]  # two of three columns agree against the third
        found = fitted(three).explain([[1.5, -1.5, 0.0, 0.0, 1.5]])
        assert found.importance[0].argmax() == 1
        assert 0.5 < found.best_values[0, 1] < 2.5
        assert found.cell_p_values[0, 1] < 0.05

    def test_the_usual_value_is_the_nearest_tried_that_reaches_the_threshold(self):
        detector = LikelihoodDetector(Smallest()).fit(X)
        found = detector.explain([[0.0, 9.0, 0.1, 0.1]])
        usual = found.usual_values[0, 1]
        assert found.suffices[0, 1]
        assert detector.predict([[0.0, usual, 0.1, 0.1]]) == [1]
        tried = explanations._spread(X[:, 1])
        allowed = tried[-np.abs(tried) >= detector.offset_]
        assert abs(9.0 - usual) <= np.abs(9.0 - allowed).min()
        assert abs(found.best_values[0, 1]) < abs(usual)
        np.testing.assert_array_equal(found.suffices[0], [False, True, False, False])

    def test_a_usual_row_needs_no_change(self):
        found = fitted().explain(X[:3] / 10)
        np.testing.assert_array_equal(found.usual_values, X[:3] / 10)
        assert found.suffices.all()

    def test_where_no_single_change_suffices_the_best_value_is_given(self):
        found = fitted().explain([[0.0, 0.0, 12.0, 12.0]])
        assert not found.suffices.any()
        np.testing.assert_array_equal(found.usual_values, found.best_values)
        assert set(found.importance[0].argsort()[-2:]) == {2, 3}
        assert np.abs(found.usual_values[0, 2:]).max() < 3

    def test_values_tried_are_values_of_training(self):
        found = fitted().explain(X[:20] + [0, 0, 5, 0])
        for column in range(4):
            values = found.best_values[:, column][found.gains[:, column] > 0]
            assert np.isin(values, X[:, column]).all()

    def test_constant_columns(self):
        constant = np.c_[X, np.full(len(X), 3.0)]
        detector = LikelihoodDetector(Smallest()).fit(constant)
        found = detector.explain([[0.1, 0.1, 0.1, 0.1, 3.0], [0.1, 0.1, 0.1, 0.1, 7.0]])
        assert not found.importance[0].any()
        assert found.importance[1].argmax() == 4
        assert found.usual_values[1, 4] == 3.0

    def test_rows_too_far_out_to_be_scored(self):
        detector = LikelihoodDetector(Smallest(reach=5)).fit(X)
        found = detector.explain([[0, 7.0, 0, 0], [7.0, 7.0, 0, 0]])
        assert found.scores[0] == detector.score_samples([[0, 7.0, 0, 0]])
        assert all(np.isfinite(getattr(found, name)).all() for name in ARRAYS)
        assert found.importance[0].tolist() == [0, 1, 0, 0]
        assert not found.importance[1].any()

    def test_a_row_is_explained_the_same_alone_and_in_any_batch(self, monkeypatch):
        detector = LikelihoodDetector(Smallest()).fit(X)
        rows = X[:9] + RNG.normal(size=(9, 4))
        whole, turned = detector.explain(rows), detector.explain(rows[::-1])
        monkeypatch.setattr(explanations, "SCORED_AT_ONCE", 7)
        chunked = detector.explain(rows)
        for name in ARRAYS:
            values = getattr(whole, name)
            np.testing.assert_array_equal(values[::-1], getattr(turned, name))
            np.testing.assert_array_equal(values, getattr(chunked, name))
            np.testing.assert_array_equal(values[4:5], getattr(detector.explain(rows[4:5]), name))

    def test_few_training_rows(self):
        found = LikelihoodDetector(Smallest()).fit(X[:3]).explain(X[:2] * 9)
        assert found.importance.shape == (2, 4)

    @pytest.mark.parametrize("container", CONTAINERS)
    def test_frames_keep_their_names(self, container):
        frame_of = importlib.import_module(container).DataFrame
        names = ["a", "b", "c", "d"]
        frame = frame_of({name: column for name, column in zip(names, X.T, strict=True)})
        by_name = ColumnTransformer([("scaled", StandardScaler(), names)])
        detector = LikelihoodDetector(make_pipeline(by_name, GaussianMixture(random_state=0)), random_state=0)
        found = detector.fit(frame).explain(frame[:4])
        assert list(found.columns) == names
        plain = LikelihoodDetector(make_pipeline(StandardScaler(), GaussianMixture(random_state=0)), random_state=0)
        np.testing.assert_allclose(plain.fit(X).explain(X[:4]).importance, found.importance, atol=1e-9)

    def test_whole_numbers_and_flags_in_a_frame(self):
        frame = pd.DataFrame({"n": np.arange(50) % 7, "flag": np.arange(50) % 2 == 0, "x": X[:50, 0]})
        found = fitted(frame).explain(pd.DataFrame({"n": [30], "flag": [True], "x": [0.0]}))
        assert found.columns[found.importance[0].argmax()] == "n"
        assert found.usual_values[0, 0] in range(7)

    def test_training_rows_remembered_are_few(self):
        assert explanations.remembered_rows(np.zeros((5000, 3)), is_image=False).shape == (2048, 3)
        assert explanations.remembered_rows(np.zeros((5000, 2000), dtype="f4"), is_image=False).shape == (262, 2000)
        assert explanations.remembered_rows(images((300, 4, 4)), is_image=True).shape == (256, 16)
        whole = explanations.remembered_rows(X, is_image=False)
        assert not np.shares_memory(whole, X)
        np.testing.assert_array_equal(whole, X)

    def test_most_broken_cells_are_found(self):
        rng = np.random.default_rng(5)
        mixing = rng.normal(size=(3, 8))
        data = rng.normal(size=(1200, 3)) @ mixing + 0.2 * rng.normal(size=(1200, 8))
        rows, broken = data[1000:1100].copy(), rng.integers(0, 8, 100)
        rows[np.arange(100), broken] += rng.choice([-1, 1], 100) * 2.5
        found = fitted(data[:1000]).explain(rows)
        assert (found.importance.argmax(axis=1) == broken).mean() >= 0.95


class TestImages:
    def test_the_unusual_region_is_found(self):
        odd = images((3, 16, 16))
        odd[(1, *SQUARE)] = 250
        detector = LikelihoodDetector(Pixels(), random_state=0).fit(images())
        found = detector.explain(odd)
        assert isinstance(found, ImageExplanation)
        assert found.importance.shape == (3, 16, 16)
        assert found.images.shape == (3, 16, 16, 1)
        y, x = np.unravel_index(found.importance[1].argmax(), (16, 16))
        assert 4 <= y < 9
        assert 8 <= x < 13
        inside = np.zeros((16, 16), bool)
        inside[SQUARE] = True
        assert found.importance[1][inside].mean() > 4 * found.importance[1][~inside].mean()
        np.testing.assert_array_equal(found.importance[1], detector.explain(odd[1:2]).importance[0])

    def test_layouts_agree(self):
        colour = images((40, 6, 8, 3))
        odd = colour[:2].copy()
        odd[0, 1:4, 1:4] = 200
        detector = LikelihoodDetector(Pixels(), random_state=0).fit(colour)
        maps = detector.explain(odd).importance
        rows = odd.reshape(2, -1)
        for form in (torch.from_numpy(odd).permute(0, 3, 1, 2), rows, pd.DataFrame(rows)):
            np.testing.assert_allclose(detector.explain(form).importance, maps)
        plain = LikelihoodDetector(FrozenEstimator(GaussianMixture(reg_covar=1.0).fit(rows.astype(float)))).fit(colour)
        assert plain.explain(odd).importance.shape == (2, 6, 8)

    def test_fills_stay_on_the_grid_and_are_at_most_200(self):
        detector = LikelihoodDetector(Pixels(), random_state=0).fit(images((60, 28, 28)))
        detector.explain(images((1, 28, 28)))
        assert detector.density_.asked_.dtype == np.uint8
        assert 100 < len(detector.density_.asked_) <= 200

    def test_fills_of_real_values_are_not_rounded(self):
        detector = LikelihoodDetector(Pixels(), random_state=0).fit(images() / 255)
        detector.explain(images((1, 16, 16)) / 255)
        assert len(np.unique(detector.density_.asked_)) > 300

    @pytest.mark.parametrize("shape", [(20, 1, 1), (20, 2, 2), (20, 1, 9)])
    def test_small_images(self, shape):
        found = LikelihoodDetector(Pixels(), random_state=0).fit(images(shape)).explain(images(shape)[:2])
        assert found.importance.shape == (2, *shape[1:])
        assert np.isfinite(found.importance).all()

    def test_an_image_too_far_out_to_be_scored(self):
        odd = images((1, 16, 16))
        odd[(0, *SQUARE)] = 250
        found = LikelihoodDetector(Smallest(reach=240), random_state=0).fit(images()).explain(odd)
        assert np.isfinite(found.importance).all()
        assert found.importance[0][6, 10] > 0


class TestOutput:
    def test_frame(self):
        found = fitted().explain([[0.0, 0.0, 0.0, 8.0], [0.0, 0.0, 8.0, 0.0]])
        frame = found.to_frame()
        assert frame["row"].tolist() == [0] * 4 + [1] * 4
        assert frame["column"][[0, 4]].tolist() == ["x3", "x2"]
        assert (frame.groupby("row")["importance"].diff().dropna() <= 0).all()
        np.testing.assert_allclose(frame["value"] + frame["change"], frame["usual_value"])
        assert not frame.isna().any(axis=None)
        assert frame["suffices"].dtype == bool

    def test_frame_of_images(self):
        odd = images((2, 16, 16))
        odd[(1, *SQUARE)] = 250
        frame = LikelihoodDetector(Pixels(), random_state=0).fit(images()).explain(odd).to_frame()
        assert list(frame.columns) == ["row", "y", "x", "value", "importance", "score"]
        first = frame[frame["row"] == 1].iloc[0]
        assert odd[1, int(first["y"]), int(first["x"])] == first["value"] == 250

    def test_pictures(self, tmp_path):
        found = fitted().explain([[0.0, 0.0, 0.0, 8.0]])
        ax = found.plot(-1)
        assert [label.get_text() for label in ax.get_yticklabels()][0] == "x3"
        assert "8 \N{RIGHTWARDS ARROW} " in ax.texts[0].get_text()
        assert "outlier" in ax.get_title(loc="left")
        assert found.plot(ax=ax) is ax
        ax.figure.savefig(tmp_path / "table.png")
        for shape in [(20, 8, 8), (20, 8, 8, 3)]:
            detector = LikelihoodDetector(Pixels(), random_state=0).fit(images(shape))
            ax = detector.explain(images(shape)[:1]).plot()
            assert len(ax.images) == 2
            ax.figure.savefig(tmp_path / "image.png")

    def test_images_of_few_grey_levels_are_drawn_up_to_white(self):
        few = images() % 17
        ax = LikelihoodDetector(Pixels(), random_state=0).fit(few).explain(few[:1]).plot()
        assert ax.images[0].get_array().max() == 1

    def test_a_row_that_is_not_there(self):
        with pytest.raises(IndexError, match="one of the 1 rows explained, got row=1"):
            fitted().explain(X[:1]).plot(1)


@pytest.mark.parametrize("name", [*DETECTORS, *ASK_FOR_MORE])
def test_every_detector_explains(name):
    make = (DETECTORS | ASK_FOR_MORE)[name]
    detector = make(Asked(reg_covar=1e-3)).set_params(random_state=0, calibration_fraction=0.4)
    found = detector.fit(X[:60]).explain(X[:3] + 2)
    assert found.importance.shape == ((3, 2, 2) if detector.image_shape_ else (3, 4))
    assert np.isfinite(found.importance).all()
    np.testing.assert_allclose(found.scores, detector.score_samples(X[:3] + 2), rtol=1e-9)


def test_a_detector_of_several_fits_explains_their_mean_score():
    detector = fitted(cv=3)
    rows = X[:2] + [0, 0, 5, 0]
    found = detector.explain(rows)
    np.testing.assert_array_equal(found.scores, detector.score_samples(rows))
    assert (found.importance.argmax(axis=1) == 2).all()


def test_saved_detectors_explain_the_same(tmp_path):
    detector = fitted(pd.DataFrame(X, columns=list("abcd")))
    rows = pd.DataFrame(X[:3] + 3, columns=list("abcd"))
    expected = detector.explain(rows).to_frame()
    detector.save(tmp_path / "detector.safetensors")
    for copy in (pickle.loads(pickle.dumps(detector)), load(tmp_path / "detector.safetensors")):
        pd.testing.assert_frame_equal(copy.explain(rows).to_frame(), expected)


def test_what_cannot_be_explained():
    with pytest.raises(NotFittedError):
        LikelihoodDetector(GaussianMixture()).explain(X)
    detector = fitted()
    with pytest.raises(ValueError, match="features"):
        detector.explain(X[:, :2])
    del detector._remembered_rows
    with pytest.raises(ValueError, match="fit it again"):
        detector.explain(X[:2])


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002, the very thing that must not change
    fitted().explain(X[:2])
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002

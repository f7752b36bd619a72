"""`explain` of a pipeline: the original columns, whatever the transformers make of them."""

import datetime
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flowdetect import LikelihoodDetector, NeighborsDensity, OODDetector, explain
from flowdetect.explanation import TableExplanation

RNG = np.random.default_rng(0)
N = 300
CITY = RNG.choice(["Lima", "Oslo", "Rome"], N, p=[0.5, 0.3, 0.2])
FRAME = pd.DataFrame(
    {
        "city": CITY,
        "cold": RNG.normal(size=N) + 9.0 * (CITY == "Oslo"),
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 500, N), "D"),
        "count": np.where(RNG.random(N) < 0.1, np.nan, RNG.integers(0, 9, N)),
    }
)
NUMBERS = RNG.normal(size=(N, 3)) @ np.array([[1.0, 0.9, 0.0], [0.0, 0.4, 0.0], [0.0, 0.0, 1.0]])


class Days:
    """Dates as days, missing numbers as -1: two transformers of one's own, which name nothing."""

    def fit(self, X, y=None):
        self.first_ = X["since"].min()
        return self

    def transform(self, X):
        days = (X["since"] - self.first_).dt.days / 500
        return X.assign(since=days, count=X["count"].fillna(-1) / 9)


@pytest.fixture(scope="module")
def pipeline():
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough")
    return make_pipeline(Days(), encode, OODDetector(random_state=0)).fit(FRAME)


def row(**cells):
    usual = {"city": "Lima", "cold": 0.1, "since": pd.Timestamp("2020-09-01"), "count": 4.0}
    return pd.DataFrame({name: [value] for name, value in {**usual, **cells}.items()}).astype(
        {"since": FRAME["since"].dtype}
    )


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        ({"cold": 40.0}, "cold"),
        ({"since": pd.Timestamp("1970-01-01")}, "since"),
        ({"count": 300.0}, "count"),
        ({"city": "Atlantis", "cold": 9.0}, "city"),
    ],
    ids=lambda case: str(case),
)
def test_the_broken_column_comes_first_by_its_own_name(pipeline, cells, column):
    frame = explain(pipeline, row(**cells), FRAME).to_frame()
    assert frame["column"][0] == column
    assert frame["value"][0] == cells[column]
    assert frame["suffices"][0]
    assert frame["usual_value"][0] != cells[column]
    assert frame["gain"][0] > 0


def test_a_category_that_suits_the_other_columns_is_named(pipeline):
    found = explain(pipeline, row(city="Lima", cold=9.2), FRAME)
    city = found.to_frame().set_index("column").loc["city"]
    assert (city["value"], city["best_value"], city["change"]) == ("Lima", "Oslo", None)


def test_what_is_promised_is_so_when_the_row_is_changed(pipeline):
    asked = pd.concat([row(cold=40.0), row(count=300.0), row()], ignore_index=True)
    found = explain(pipeline, asked, FRAME)
    for i, j in np.ndindex(found.values.shape):
        changed = asked.iloc[[i]].copy()
        changed[found.columns[j]] = [found.best_values[i, j]]
        gain = pipeline.score_samples(changed.astype(FRAME.dtypes))[0] - found.scores[i]
        assert found.gains[i, j] == pytest.approx(gain)
        changed[found.columns[j]] = [found.usual_values[i, j]]
        scores = pipeline.score_samples(changed.astype(FRAME.dtypes))[0]
        assert found.suffices[i, j] == (scores >= found.threshold)
    assert found.threshold == pipeline[-1].offset_
    np.testing.assert_array_equal(found.scores, pipeline.score_samples(asked))


def test_a_row_is_explained_by_itself(pipeline):
    asked = pd.concat([row(cold=40.0), row(), FRAME[:5]], ignore_index=True)
    together = explain(pipeline, asked, FRAME)
    alone = explain(pipeline, asked[1:2], FRAME)
    np.testing.assert_array_equal(together.gains[1:2], alone.gains)
    np.testing.assert_array_equal(together.cell_p_values[1:2], alone.cell_p_values)
    np.testing.assert_array_equal(together.residual_p_values[1:2], alone.residual_p_values)


def test_on_numbers_it_agrees_with_the_detectors_own():
    broken = NUMBERS[:60].copy()
    columns = RNG.integers(0, 3, 60)
    broken[np.arange(60), columns] = RNG.choice([-6.0, 6.0], 60)
    detector = LikelihoodDetector(GaussianMixture(random_state=0), random_state=0).fit(NUMBERS)
    pipeline = make_pipeline(StandardScaler(), LikelihoodDetector(GaussianMixture(random_state=0), random_state=0))
    own, through = detector.explain(broken), explain(pipeline.fit(NUMBERS), broken, NUMBERS)
    assert (own.importance.argmax(axis=1) == columns).mean() > 0.9
    assert (through.importance.argmax(axis=1) == columns).mean() > 0.9
    assert (own.importance.argmax(axis=1) == through.importance.argmax(axis=1)).mean() > 0.9
    assert through.values.dtype == np.float64
    assert through.columns == ["x0", "x1", "x2"]


def test_any_detector_with_a_threshold_is_explained():
    pipeline = make_pipeline(StandardScaler(), IsolationForest(random_state=0)).fit(NUMBERS)
    found = explain(pipeline, [[0.0, 0.0, 9.0]], NUMBERS)
    assert isinstance(found, TableExplanation)
    assert found.importance[0].argmax() == 2


def test_missing_cells_are_values():
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"a": rng.normal(size=200), "b": rng.normal(size=200)})
    X["b"] = X["a"] + 0.1 * X["b"]
    odd = pd.DataFrame({"a": [0.5], "b": [np.nan]})

    class Indicate:
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return np.c_[X.fillna(0.0), X.isna() * 9.0]

    found = explain(make_pipeline(Indicate(), OODDetector(random_state=0)).fit(X), odd, X)
    frame = found.to_frame()
    assert frame["column"][0] == "b"
    assert found.values[0, 1] is None or np.isnan(found.values[0, 1])
    assert frame["suffices"][0]
    assert frame["cell_p_value"][0] < 0.05
    found.plot()


def test_the_picture_shows_cells_of_any_kind(pipeline):
    texts = [text.get_text() for text in explain(pipeline, row(city="Atlantis", cold=9.0), FRAME).plot().texts]
    assert any("Atlantis" in text and "Oslo" in text for text in texts)


def test_transformers_warn_of_the_rows_once(pipeline):
    encode = make_column_transformer((OneHotEncoder(handle_unknown="warn"), ["city"]), remainder="passthrough")
    warning = make_pipeline(Days(), encode, OODDetector(random_state=0)).fit(FRAME)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        explain(warning, row(city="Atlantis"), FRAME)
    assert len(said) == 1


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_skrub_is_seen_through(library):
    skrub = pytest.importorskip("skrub")
    X, asked = FRAME.astype({"city": object}), row(city="Lima", cold=40.0)
    if library == "polars":
        polars = pytest.importorskip("polars")
        X, asked = (polars.DataFrame(each.to_dict("list"), nan_to_null=True, strict=False) for each in (X, asked))
    pipeline = make_pipeline(skrub.TableVectorizer(), SimpleImputer(), OODDetector(random_state=0)).fit(X)
    assert {"city_Lima", "since_year"} <= set(pipeline[0].get_feature_names_out())
    found = explain(pipeline, asked, X)
    assert found.columns == list(X.columns)
    assert found.to_frame()["column"][0] == "cold"
    assert pipeline[-1].p_values(pipeline[:-1].transform(asked))[0] < 0.01


def test_tables_of_other_libraries_are_refused(pipeline):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.Table.from_pandas(FRAME)
    with pytest.raises(ValueError, match=r"a Table; convert it, e\.g\. by X\.to_pandas"):
        explain(pipeline, table, table)


@pytest.mark.parametrize(
    ("detector", "X", "background", "error", "words"),
    [
        (NeighborsDensity().fit(NUMBERS), NUMBERS, NUMBERS, TypeError, "offset_"),
        (OODDetector(), NUMBERS, NUMBERS, TypeError, "fit it first"),
        (OODDetector, NUMBERS, NUMBERS, TypeError, "score_samples"),
        (StandardScaler().fit(NUMBERS), NUMBERS, NUMBERS, TypeError, "score_samples"),
        (None, FRAME, NUMBERS, ValueError, "one kind"),
        (None, FRAME[["city"]], FRAME, ValueError, "'cold'"),
        (None, NUMBERS[:, :2], NUMBERS, ValueError, "one width"),
        (None, FRAME, FRAME[:0], ValueError, "at least one row"),
    ],
)
def test_what_cannot_be_explained_is_refused(pipeline, detector, X, background, error, words):
    with pytest.raises(error, match=words):
        explain(pipeline if detector is None else detector, X, background)


def test_columns_in_another_order_are_put_right(pipeline):
    found = explain(pipeline, row(cold=40.0)[["since", "cold", "count", "city"]], FRAME)
    assert found.columns == ["city", "cold", "since", "count"]
    assert found.columns[found.importance[0].argmax()] == "cold"


def test_dates_of_any_kind_have_a_place():
    from flowdetect.detectors.cells import Column

    days = [datetime.date(2020, 1, 1), datetime.date(2020, 1, 3)]
    utc = [datetime.datetime(2020, 1, 1 + 2 * i, tzinfo=datetime.UTC) for i in range(2)]
    for cells in (
        days,
        utc,
        [datetime.timedelta(days=1), datetime.timedelta(days=3)],
        [np.datetime64("2020-01-01"), np.datetime64("2020-01-03")],
        [np.timedelta64(1, "D"), np.timedelta64(3, "D")],
        list(pd.period_range("2020-01-01", periods=3, freq="D"))[::2],
        list(pd.to_datetime(["2020-01-01", "2020-01-03"])),
    ):
        numbers = Column(cells, [None]).numbers
        assert numbers[1] - numbers[0] == 2
        assert np.isnan(numbers[2])

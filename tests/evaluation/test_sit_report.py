import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from flowdetect import AddNoise, LikelihoodDetector, Translate, sit_report
from flowdetect.evaluation import auroc, auroc_interval


class Bits:
    """A density of images whose bits/dim are the mean of the pixels; refuses what is brighter than `limit`."""

    def __init__(self, limit=np.inf):
        self.limit, self.calls = limit, 0

    def bits_per_dim(self, X):
        self.calls += 1
        means = np.asarray(X, dtype=float).reshape(len(X), -1).mean(axis=1)
        if (means > self.limit).any():
            raise ValueError("too bright")
        return means

    def score_samples(self, X):
        raise AssertionError("bits_per_dim says the same")


class Add(TransformerMixin, BaseEstimator):
    """Adds; remembers whether it was fitted."""

    def __init__(self, value=1.0):
        self.value = value

    def fit(self, X, y=None):
        self.n_fitted_ = len(X)
        return self

    def transform(self, X):
        return np.asarray(X, dtype=float) + self.value


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(60, 4, 4)) + 5


@pytest.fixture
def y():
    return np.repeat(["boot", "coat", "hat"], 20)


def cell(report, scorer, sit, label="all"):
    frame = report.to_frame().set_index(["scorer", "sit", "label"])
    return frame.loc[(scorer, sit, label)]


def test_the_numbers_of_a_shift_by_one(X, y):
    report = sit_report({"bits": Bits()}, X, {"add": Add()}, y, X_out=X[:30] + 0.5, n_bootstrap=200)
    clean = X.reshape(60, -1).mean(axis=1)
    for label, rows in {"all": np.full(60, True), **{name: y == name for name in np.unique(y)}}.items():
        found = cell(report, "bits", "add", label)
        assert found[["shift", "shift_low", "shift_high", "shift_median"]].to_numpy(float) == pytest.approx(np.ones(4))
        assert found["mean"] == pytest.approx(clean[rows].mean() + 1)
        assert found["median"] == pytest.approx(np.median(clean[rows]) + 1)
        assert found.auroc_clean == pytest.approx(auroc(-clean[rows], -clean[rows] - 1))
        assert found.auroc_ood == pytest.approx(auroc(-clean[rows] - 1, -clean[:30] - 0.5))
        assert found.auroc_clean_low <= found.auroc_clean <= found.auroc_clean_high
        assert found.auroc_ood_low <= found.auroc_ood <= found.auroc_ood_high
        assert (found.unit, found.n_images) == ("bits/dim", rows.sum())


def test_the_images_as_they_are_come_first(X):
    report = sit_report([Bits()], X, [Add()], X_out=X + 1, n_bootstrap=50)
    first = report.to_frame().iloc[0]
    assert (first.sit, first["shift"], first.auroc_clean) == ("none", 0, pytest.approx(0.5))
    assert first.auroc_ood == auroc(report.scores["Bits"]["none"], report.scores_out["Bits"])


def test_other_scores_are_told_in_their_own_spreads(X):
    rows = X.reshape(60, -1)
    mixture = GaussianMixture(covariance_type="spherical", random_state=0).fit(rows)
    report = sit_report(
        {"mixture": mixture, "detector": LikelihoodDetector(mixture, prefit=True).fit(rows)}, rows, [Add(3.0)]
    )
    scores = mixture.score_samples(rows), mixture.score_samples(rows + 3)
    found = cell(report, "mixture", "Add(value=3.0)")
    assert found["shift"] == pytest.approx((scores[0].mean() - scores[1].mean()) / scores[0].std())
    assert found["shift"] > 0  # less normal
    assert found["mean"] == pytest.approx(scores[1].mean())
    assert found.unit == "standard deviations"
    assert np.isnan(found.auroc_ood)


def test_each_set_is_scored_once(X, y):
    scorer = Bits()
    sit_report([scorer], X, [Add(1), Add(2)], y, X_out=X, n_bootstrap=10)
    assert scorer.calls == 4


def test_fitted_sits_are_used_and_others_cloned(X):
    fitted, fresh = Add().fit(X[:7]), Add(2.0)
    report = sit_report([Bits()], X, {"fitted": fitted, "fresh": fresh}, n_bootstrap=10)
    assert report.sits["fitted"] is fitted
    assert report.sits["fresh"].n_fitted_ == 60
    assert not hasattr(fresh, "n_fitted_")


class WithoutLabels(Add):
    """A transformer of somebody else, whose fit spells no y."""

    def fit(self, X):
        return super().fit(X)


@pytest.mark.parametrize("with_labels", [False, True])
def test_a_sit_whose_fit_takes_no_labels_is_fitted_without_them(X, y, with_labels):
    report = sit_report([Bits()], X, {"add": WithoutLabels()}, y=y if with_labels else None)
    assert "add" in set(report.to_frame()["sit"])


def test_scorers_share_resamples_and_do_not_depend_on_one_another(X, y):
    alone = sit_report({"a": Bits()}, X, {"add": Add(0.1)}, y, X_out=X + 1).to_frame()
    among = sit_report({"b": Bits(), "a": Bits()}, X, {"add": Add(0.1), "more": Add()}, y, X_out=X + 1).to_frame()
    among = among[(among.scorer == "a") & (among.sit != "more")].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, among)


def test_rows_that_cannot_be_scored_are_named_and_left_out(X):
    X[3] += 100
    report = sit_report([Bits(limit=50)], X, {"add": Add()}, X_out=X, n_bootstrap=20)
    assert [(problem.set_name, problem.rows) for problem in report.unscored] == [
        ("the images", (3,)),
        ("add", (3,)),
        ("X_out", (3,)),
    ]
    found = cell(report, "Bits", "add")
    assert (found.n_images, found["shift"]) == (59, pytest.approx(1))
    assert "too bright" in str(report)
    assert "too bright" in report._repr_html_()


def test_texts(X, y):
    report = sit_report([Bits()], X, {"a<b": Add()}, y, X_out=X, n_bootstrap=20)
    text, page = str(report), report._repr_html_()
    assert text.splitlines()[0] == "Transformations of 60 images; shifts in bits/dim"
    assert report.to_markdown().splitlines()[2].startswith("| Bits   | none | bits/dim |")
    assert "coat" not in text
    assert "a&lt;b" in page
    assert repr(report) == "SITReport(scorers=['Bits'], sits=['none', 'a<b'], n_images=60)"
    assert len(report.to_frame()) == 2 * 4


def test_pictures(X, y):
    rows = X.reshape(60, -1)
    mixture = GaussianMixture(random_state=0).fit(rows)
    report = sit_report({"m": mixture, "b": Bits()}, rows, {"noise": AddNoise(0.5, random_state=0)}, y, n_bootstrap=10)
    figure = report.plot()
    assert [ax.get_title("left") for ax in figure.axes] == ["m", "b"]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["hat", "boot", "coat"]
    ax = report.plot_examples(3, image_shape=(4, 4))
    captions = [text.get_text() for text in ax.texts]
    assert len(captions) == 2 * 3 + 2
    assert captions[0] == "\n".join(f"{report.values(scorer)[0]:.2f}" for scorer in ("m", "b"))
    assert captions[3].split("\n")[1] == f"{report.values('b', 'noise')[0]:.2f}"
    assert report.plot_shifts().get_xlabel().startswith("shift, standard deviations or bits/dim")
    assert "  unit\n" in str(report)


def test_a_page(X, y, tmp_path):
    path = tmp_path / "page.html"
    sit_report([Bits()], X, {"a<b": Add()}, y, X_out=X + 1, n_bootstrap=10).save_html(path)
    page = path.read_text()
    assert page.count("data:image/png;base64") == 3  # shifts, classes, examples
    assert "a<b" not in page
    rows = X.reshape(60, -1)
    sit_report([Bits()], rows, [Add()], n_bootstrap=10).save_html(path)
    assert path.read_text().count("data:image/png;base64") == 1


def test_areas_hold_their_intervals_of_pairs_and_of_independent_sets(X):
    report = sit_report([Bits()], X, [Add(0.1)], X_out=X + 0.5, n_bootstrap=10)
    found = cell(report, "Bits", "Add(value=0.1)")
    clean, moved, out = -report.values("Bits"), -report.values("Bits", "Add(value=0.1)"), report.scores_out["Bits"]
    assert (found.auroc_clean_low, found.auroc_clean_high) == auroc_interval(clean, moved, paired=True)
    assert (found.auroc_ood_low, found.auroc_ood_high) == auroc_interval(moved, out)


def test_a_part_of_a_report(X, y):
    report = sit_report({"a": Bits(), "b": Bits()}, X, {"one": Add(), "two": Add(2)}, y, X_out=X + 3, n_bootstrap=10)
    part = report.select(["b"], ["two"])
    whole = report.to_frame()
    expected = whole[(whole.scorer == "b") & (whole.sit != "one")].reset_index(drop=True)
    pd.testing.assert_frame_equal(part.to_frame(), expected)
    assert len(part.plot().axes) == 1
    assert repr(part) == "SITReport(scorers=['b'], sits=['none', 'two'], n_images=60)"
    assert repr(report.select()) == repr(report)


def test_images_and_pipelines_of_ours(X):
    images = np.clip(X * 25, 0, 255).astype(np.uint8)
    report = sit_report([Bits()], images, [Translate(dx=1), AddNoise(0.01, random_state=0)], n_bootstrap=10)
    assert list(report.sits) == ["Translate(dx=1)", "AddNoise(random_state=0, scale=0.01)"]
    assert report.plot_examples([4, 2]) is not None


def test_a_scorer_that_is_not_fitted(X):
    with pytest.raises(NotFittedError):
        sit_report([GaussianMixture()], X.reshape(60, -1), [Add()])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], [Add()]), ValueError, "scorers must hold at least one fitted density or detector, got none"),
        (([Bits()], []), ValueError, "sits must hold at least one transformer, got none"),
        (([Bits()], Add()), TypeError, "sits must be a dict or a list, each a transformer, got Add"),
        (([Bits()], [GaussianMixture()]), TypeError, "Each of sits needs transform, which 'GaussianMixture"),
        (([Add()], [Add()]), TypeError, "Each of scorers needs score_samples, which 'Add'"),
        (([Bits()], {"none": Add()}), ValueError, "A SIT is called 'none'"),
        (([Bits()], [Add()], ["all"] * 60), ValueError, "A class of y is called 'all'"),
        (([Bits()], [Add()], [0, 1]), ValueError, r"y must hold one label an image, shape \(60,\), got \(2,\)"),
    ],
)
def test_refusals(X, arguments, error, message):
    scorers, sits, *y = arguments
    with pytest.raises(error, match=message):
        sit_report(scorers, X, sits, *y)


def test_functions_are_transformers_too(X):
    report = sit_report([Bits()], X, {"half": FunctionTransformer(lambda X: X / 2)}, n_bootstrap=10)
    assert cell(report, "Bits", "half")["shift"] == pytest.approx(-X.reshape(60, -1).mean() / 2)


def test_infinite_scores_are_named_and_left_out(X):
    class Tophat:
        def score_samples(self, rows):
            means = np.asarray(rows).reshape(len(rows), -1).mean(axis=1)
            return np.where(means > 5.2, -np.inf, means)

    report = sit_report({"t": Tophat()}, X, [Add(0.01)], np.arange(60) // 3, n_bootstrap=20)
    assert report.unscored[0].reason == "the score is infinite"
    found = cell(report, "t", "Add(value=0.01)")
    assert 0 < found.n_images < 60
    assert np.isfinite(found[["shift", "shift_low", "shift_high"]].to_numpy(float)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_of_torch_images(channels):
    torch = pytest.importorskip("torch")
    images = torch.randint(0, 256, (12, channels, 4, 4), dtype=torch.uint8)
    report = sit_report([Bits()], images, [Translate(dx=1)], n_bootstrap=5)
    assert len(report.plot_examples(3).images) == 6


def test_transform_output_of_frames_changes_no_report():
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4)).astype(np.uint8)
    sits = {"moved": Translate(dx=1), "both": make_pipeline(Translate(dx=1), AddNoise(random_state=0))}
    expected = sit_report([Bits()], images, sits, n_bootstrap=10)
    with sklearn.config_context(transform_output="pandas"):
        report = sit_report([Bits()], images, sits, n_bootstrap=10)
        report.plot_examples(2)
    pd.testing.assert_frame_equal(report.to_frame(), expected.to_frame())

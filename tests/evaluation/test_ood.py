import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from flowdetect.evaluation import (
    OODReport,
    aupr_in,
    aupr_out,
    auroc,
    auroc_interval,
    bootstrap_interval,
    fpr_at_95_tpr,
    ood_report,
)

COLUMNS = [
    "scorer",
    "out_set",
    "auroc",
    "auroc_low",
    "auroc_high",
    "in_set",
    "aupr_out",
    "aupr_in",
    "fpr95",
    "ms_per_image",
    "aupr_out_low",
    "aupr_out_high",
    "aupr_in_low",
    "aupr_in_high",
    "fpr95_low",
    "fpr95_high",
]
NUMBERS = [name for name in COLUMNS if name not in ("scorer", "in_set", "out_set", "ms_per_image")]


class MeanScorer:
    """Scores a row by its mean, in any layout; refuses rows with a value above `limit`; NaN for negative means."""

    def __init__(self, limit=np.inf, refuse=ValueError):
        self.limit, self.refuse, self.calls = limit, refuse, 0

    def score_samples(self, X):
        self.calls += 1
        rows = np.asarray(X, dtype=float).reshape(len(X), -1)
        if (rows > self.limit).any():
            raise self.refuse("a value is too large")
        means = rows.mean(axis=1)
        return np.where(means < -10, np.nan, means)


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(60, 4))


@pytest.fixture
def mixture(X):
    return GaussianMixture(random_state=0).fit(X)


def test_the_numbers_are_those_of_the_metrics(X, mixture):
    out = X[:50] + 1
    report = ood_report({"mixture": mixture}, X, {"moved": out}, name="normal", n_bootstrap=100, random_state=3)
    frame = report.to_frame()
    assert list(frame.columns) == COLUMNS
    row = frame.iloc[0]
    scores = mixture.score_samples(X), mixture.score_samples(out)
    assert (row.scorer, row.in_set, row.out_set) == ("mixture", "normal", "moved")
    assert row.auroc == auroc(*scores)
    assert (row.auroc_low, row.auroc_high) == auroc_interval(*scores)
    for name in ("aupr_out", "aupr_in", "fpr95"):
        ends = bootstrap_interval(*scores, name, n_bootstrap=100, random_state=3)
        assert (row[f"{name}_low"], row[f"{name}_high"]) == ends
    assert (row.aupr_out, row.aupr_in, row.fpr95) == (aupr_out(*scores), aupr_in(*scores), fpr_at_95_tpr(*scores))
    assert row.ms_per_image > 0
    np.testing.assert_array_equal(report.scores["mixture"]["moved"], scores[1])
    assert report.unscored == []


def test_every_scorer_meets_every_set(X, mixture):
    report = ood_report([mixture, MeanScorer()], X, {"a": X + 1, "b": X - 1})
    pairs = report.to_frame()[["scorer", "in_set", "out_set"]].to_numpy().tolist()
    names = ["GaussianMixture", "MeanScorer"]
    assert pairs == [[scorer, "in", out] for scorer in names for out in "ab"]
    assert list(report.scores["MeanScorer"]) == ["in", "a", "b"]


def test_a_scorers_numbers_do_not_depend_on_the_others(X, mixture):
    alone = ood_report({"m": mixture}, X, {"b": X - 1}, n_bootstrap=50).to_frame()
    among = ood_report({"k": MeanScorer(), "m": mixture}, X, {"a": X + 1, "b": X - 1}, n_bootstrap=50).to_frame()
    pd.testing.assert_series_equal(alone.loc[0, NUMBERS], among.loc[3, NUMBERS], check_names=False)


def test_names_of_a_list_are_unique(X, mixture):
    report = ood_report([mixture, FrozenEstimator(mixture), KernelDensity().fit(X), mixture], X, {"a": X})
    assert list(report.scores) == ["GaussianMixture", "GaussianMixture 2", "KernelDensity", "GaussianMixture 3"]


@pytest.mark.parametrize("shape", [(4,), (2, 2), (2, 2, 1)])
def test_layouts(X, mixture, shape):
    images, out = X.reshape(-1, *shape), (X + 1).reshape(-1, *shape)
    report = ood_report({"rows": mixture, "any": MeanScorer()}, images, {"moved": out})
    assert report.unscored == []
    np.testing.assert_allclose(report.scores["rows"]["in"], mixture.score_samples(X), rtol=1e-9)


def test_frames_lists_and_tensors(X, mixture):
    torch = pytest.importorskip("torch")
    images = X.reshape(-1, 1, 2, 2)
    expected = mixture.score_samples(X)
    out = {"list": X.tolist(), "tensor": torch.from_numpy(X), "images": torch.from_numpy(images)}
    report = ood_report({"m": mixture}, X, out)
    for name in out:
        np.testing.assert_allclose(report.scores["m"][name], expected, rtol=1e-9)
    frame = pd.DataFrame(X, columns=list("abcd"))
    on_frames = ood_report([GaussianMixture(random_state=0).fit(frame)], frame, {"moved": frame + 1})
    np.testing.assert_allclose(on_frames.scores["GaussianMixture"]["in"], expected)  # memory order differs


# Rows that cannot be scored


def with_bad_rows(X, *rows, value=100.0):
    X = X.copy()
    X[list(rows), 0] = value
    return X


def test_rows_that_raise_are_counted_and_named(X):
    scorer = MeanScorer(limit=50)
    report = ood_report({"mean": scorer}, with_bad_rows(X, 3), {"moved": with_bad_rows(X - 1, 7, 59)})
    problems = [(p.scorer, p.set_name, p.rows, p.reason) for p in report.unscored]
    assert problems == [
        ("mean", "in", (3,), "a value is too large"),
        ("mean", "moved", (7, 59), "a value is too large"),
    ]
    kept_in, kept_out = np.delete(X, 3, axis=0).mean(axis=1), np.delete(X - 1, [7, 59], axis=0).mean(axis=1)
    assert report.results[0]["auroc"] == auroc(kept_in, kept_out)
    assert np.flatnonzero(np.isnan(report.scores["mean"]["moved"])).tolist() == [7, 59]
    assert "mean could not score 2 of moved (rows 7, 59): a value is too large" in str(report)
    assert scorer.calls < 40  # by halves, not row by row


def test_frames_with_bad_rows(X):
    frame = pd.DataFrame(with_bad_rows(X, 5), index=np.arange(60)[::-1])
    report = ood_report([MeanScorer(limit=50)], frame, {"same": X})
    assert report.unscored[0].rows == (5,)


def test_nan_scores_are_unscored(X):
    report = ood_report([MeanScorer()], X, {"low": with_bad_rows(X, 2, value=-1000.0)})
    assert (report.unscored[0].rows, report.unscored[0].reason) == ((2,), "the score is NaN")
    assert np.isfinite(report.results[0]["auroc"])


def test_a_set_that_cannot_be_scored_at_all(X, mixture):
    report = ood_report({"m": mixture, "mean": MeanScorer()}, X, {"wide": np.ones((5, 7)), "moved": X + 1})
    wide, moved = report.results[:2]
    assert np.isnan([wide[name] for name in NUMBERS]).all()
    assert np.isfinite(moved["auroc"])
    assert report.unscored[0].rows == (0, 1, 2, 3, 4)
    assert "7 features" in report.unscored[0].reason
    assert "nan" in str(report)
    assert len(report.plot().axes) == 6


def test_long_lists_of_rows_are_cut(X):
    report = ood_report([MeanScorer(limit=-np.inf)], X, {"same": X})
    assert "rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)" in str(report)


def test_other_errors_are_not_swallowed(X):
    with pytest.raises(KeyError):
        ood_report([MeanScorer(limit=0, refuse=KeyError)], X, {"same": X})
    with pytest.raises(NotFittedError):
        ood_report([GaussianMixture()], X, {"same": X})


class OneScore(MeanScorer):
    def score_samples(self, X):
        return 1.0


@pytest.mark.parametrize(
    ("scorers", "X_out", "error", "message"),
    [
        ({}, {"a": [[0.0]]}, ValueError, "at least one fitted density"),
        ("density", {"a": [[0.0]]}, TypeError, "a dict or a list"),
        ([object()], {"a": [[0.0]]}, TypeError, "score_samples, which 'object'"),
        ([OneScore()], {"a": [[0.0]]}, TypeError, "one score a row"),
        ([MeanScorer()], [[0.0]], TypeError, "X_out must map names to data"),
        ([MeanScorer()], {}, ValueError, "at least one set"),
        ([MeanScorer()], {"in": [[0.0]]}, ValueError, "give another name"),
        ([MeanScorer()], {"a": []}, ValueError, "'a' has none"),
    ],
)
def test_refusals(X, scorers, X_out, error, message):
    with pytest.raises(error, match=message):
        ood_report(scorers, X, X_out)


# Faces of the report


def test_the_table_is_aligned_markdown(X, mixture):
    report = ood_report({"a|b": mixture, "m": mixture}, X, {"moved": X + 1})
    lines = report.to_markdown().splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert r"a\|b" in lines[2]
    assert all(character in "|-: " for character in lines[1])


def test_html_is_escaped(X, mixture):
    html = ood_report({"<b>": mixture}, X, {"<script>": X + 1})._repr_html_()
    assert "<script>" not in html
    assert "&lt;b&gt;" in html
    assert html.count("<tr>") == 2


def test_repr_is_short(X, mixture):
    report = ood_report({"m": mixture}, X, {"moved": X + 1})
    assert isinstance(report, OODReport)
    assert repr(report) == "OODReport(in_set='in', scorers=['m'], out_sets=['moved'])"


def test_plot_draws_each_scorer_and_set(X, mixture):
    from matplotlib.figure import Figure

    report = ood_report({"m": mixture, "mean": MeanScorer()}, X, {"moved": X + 1, "far": X + 5})
    fig = report.plot()
    assert len(fig.axes) == 6
    fig.savefig("/dev/null", format="png")
    given = Figure()
    assert report.plot(fig=given) is given


def test_importing_loads_neither_matplotlib_nor_torch():
    code = (
        "import sys, flowdetect.evaluation, flowdetect.sit; "
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'torch', 'pyod')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_integers_reach_foreign_scorers_as_floats():
    """GaussianMixture squares uint8 as uint8."""
    images = np.random.default_rng(0).integers(0, 256, (80, 3, 3)).astype(np.uint8)
    rows = images.reshape(80, 9).astype(float)
    mixture = GaussianMixture(random_state=0).fit(rows)
    for X in (images, images.reshape(80, 9)):
        report = ood_report({"mixture": mixture}, X, {"same": X}, n_bootstrap=10)
        np.testing.assert_allclose(report.scores["mixture"]["in"], mixture.score_samples(rows), rtol=1e-9)


def test_integers_become_floats_in_parts(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (80, 3, 3)).astype(np.uint8)
    mixture = GaussianMixture(random_state=0).fit(images.reshape(80, 9).astype(float))
    monkeypatch.setattr("flowdetect.evaluation.scoring.AT_ONCE", 32)
    scores = ood_report({"m": mixture}, images, {"same": images}, n_bootstrap=10).scores["m"]["in"]
    np.testing.assert_allclose(scores, mixture.score_samples(images.reshape(80, 9).astype(float)), rtol=1e-9)


class OfImages(MeanScorer):
    image_shape = None

    def score_samples(self, X):
        if X.shape[1:] != (4, 6):
            raise ValueError(f"fitted on (4, 6), got {X.shape[1:]}")
        return super().score_samples(X)


def test_a_scorer_that_knows_images_is_not_asked_for_rows_instead():
    X = np.zeros((5, 4, 6))
    report = ood_report({"s": OfImages()}, X, {"turned": X.transpose(0, 2, 1)}, n_bootstrap=10)
    assert [(problem.set_name, len(problem.rows)) for problem in report.unscored] == [("turned", 5)]


def test_a_page_holds_all_pictures_and_the_lowest_images(tmp_path):
    images = np.random.default_rng(0).normal(size=(30, 4, 4, 2))
    report = ood_report({"a<b": MeanScorer(), "b": MeanScorer()}, images, {"moved": images + 1, "far": images + 5})
    path = tmp_path / "page.html"
    report.save_html(path, images={"in": images, "far": images})
    page = path.read_text()
    assert page.count("data:image/png;base64") == 1 + 4 + 2 + 2  # intervals, histograms, ROC curves, images
    assert "a&lt;b" in page
    assert "a<b" not in page
    assert "https:" not in page
    assert "another training or seed is not counted" in page
    with pytest.raises(ValueError, match="images of 'far' must be as many as its scores, 30, got 29"):
        report.save_html(path, images={"far": images[1:]})
    with pytest.raises(ValueError, match="images must name sets of the report"):
        report.save_html(path, images={"near": images})
    with pytest.raises(IsADirectoryError):
        report.save_html(tmp_path)
    assert path.read_text() == page


def test_intervals_are_drawn_for_each_scorer_and_set(X, mixture):
    report = ood_report({"m": mixture, "mean": MeanScorer()}, X, {"moved": X + 1, "far": X + 5})
    ax = report.plot_intervals()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["m", "mean"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["moved", "far"]
    alone = ood_report({"m": mixture}, X, {"moved": X + 1, "far": X + 5}).plot_intervals()
    assert [tick.get_text() for tick in alone.get_yticklabels()] == ["moved", "far"]
    assert alone.get_legend() is None

import numpy as np
import pandas as pd
import pytest

from flowdetect import combine, ood_report


class Mean:
    def __init__(self, sign=1):
        self.sign = sign

    def score_samples(self, X):
        return self.sign * np.asarray(X).mean(axis=1)


rng = np.random.default_rng(0)
SETS = {"low": rng.normal(size=(80, 3)) - 2, "high": rng.normal(size=(90, 3)) + 2, "mid": rng.normal(size=(70, 3))}


@pytest.fixture
def reports():
    def against(name, **scorers):
        others = {key: X for key, X in SETS.items() if key != name}
        return ood_report(scorers, SETS[name], others, name=name, n_bootstrap=50)

    return [against("high", up=Mean(), down=Mean(-1)), against("low", up=Mean(), down=Mean(-1), more=Mean(-1))]


def test_frames_are_joined(reports):
    combined = combine(reports)
    expected = pd.concat([report.to_frame() for report in reports], ignore_index=True)
    pd.testing.assert_frame_equal(combined.to_frame(), expected)
    assert combined.pairs == [("high", "low"), ("high", "mid"), ("low", "high"), ("low", "mid")]
    assert combined.scorers == ["up", "down", "more"]


def test_worst_cases(reports):
    worst = combine(reports).worst().set_index("scorer")
    assert worst.index[0] == "more"
    assert worst.n_pairs.to_dict() == {"more": 2, "up": 4, "down": 4}
    frame = combine(reports).to_frame()
    for name, row in worst.iterrows():
        assert row.auroc == frame[frame.scorer == name].auroc.min()


def test_one_table(reports):
    lines = combine(reports).to_markdown().splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        "AUROC",
        "high / low",
        "high / mid",
        "low / high",
        "low / mid",
        "worst",
        "ms/row",
    ]
    assert lines[2].startswith("| more  |                      |")
    text = str(combine(reports)).splitlines()
    assert text[0] == "AUROC of 3 scorer(s) on 4 pair(s) of sets, best worst case first"
    assert [line.split()[0] for line in text[4:14]] == ["more"] * 2 + ["up"] * 4 + ["down"] * 4
    assert sum("worst" in line for line in text[4:14]) == 3
    assert repr(combine(reports)).startswith("CombinedReport(scorers=['up', 'down', 'more'], pairs=[('high', 'low')")
    assert "<table>" in combine(reports)._repr_html_()


def test_one_figure(reports, tmp_path):
    ax = combine(reports).plot()
    combine(reports).save_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("data:image/png;base64") == 1
    assert [tick.get_text() for tick in ax.get_yticklabels()] == combine(reports).worst().scorer.tolist()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "high / low",
        "high / mid",
        "low / high",
        "low / mid",
    ]
    marked = [line for line in ax.lines if line.get_marker() in "oDs^"]
    assert sum(np.isfinite(line.get_xdata().astype(float)).sum() for line in marked) == 10
    assert len({line.get_marker() for line in marked}) == 4  # told apart in print, too


def test_what_could_not_be_scored_is_kept(reports):
    X = SETS["low"].copy()
    X[3] = np.nan
    report = ood_report({"up": Mean()}, X, {"other": SETS["high"]}, name="holes", n_bootstrap=10)
    assert combine([*reports, report]).unscored == report.unscored != []


class Lost:
    def __init__(self, below=np.inf):
        self.below = below

    def score_samples(self, X):
        means = np.asarray(X).mean(axis=1)
        return np.where(means < self.below, np.nan, means)


def test_a_scorer_that_failed_has_no_worst_case_it_did_not_see():
    others = {"low": SETS["low"], "mid": SETS["mid"]}
    scorers = {"up": Mean(), "never": Lost(), "not low": Lost(-1.2)}
    combined = combine([ood_report(scorers, SETS["high"], others, name="high", n_bootstrap=10)])
    worst = combined.worst().set_index("scorer")
    assert worst.n_pairs.to_dict() == {"up": 2, "never": 0, "not low": 2}
    assert np.isnan(worst.auroc["never"])
    assert worst.index[-1] == "never"
    assert "never" in str(combined)
    assert combined.plot() is not None


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "at least one report, got none"),
        ([3], TypeError, "needs reports of ood_report, got int"),
    ],
)
def test_refusals(given, error, message):
    with pytest.raises(error, match=message):
        combine(given)


def test_a_pair_twice(reports):
    with pytest.raises(ValueError, match="'up' on 'high' against 'low' twice"):
        combine([reports[0], reports[0]])

import time

import numpy as np
import pytest

from flowdetect import AddNoise, Translate, combine, ood_report, sit_report
from flowdetect.evaluation.text import shortened, text_tables

X = np.random.default_rng(0).normal(size=(40, 2, 2))


class Mean:
    def score_samples(self, X):
        return np.asarray(X).reshape(len(X), -1).mean(axis=1)


class Slow(Mean):
    def score_samples(self, X):
        time.sleep(0.1)
        return super().score_samples(X)


@pytest.mark.parametrize("n_scorers", [1, 6])
@pytest.mark.parametrize("n_sets", [1, 5])
@pytest.mark.parametrize("length", [4, 60])
def test_every_report_shows_its_areas_within_80_columns(n_scorers, n_sets, length):
    scorers = {f"{'s' * length}{i}": Mean() for i in range(n_scorers)}
    sets = {f"{i}{'o' * length}": X - i / 2 for i in range(n_sets)}
    ood = ood_report(scorers, X, sets, name="digits", n_bootstrap=10)
    sit = sit_report(scorers, X, {f"{'t' * length}": Translate(dx=1)}, X_out=X + 1, n_bootstrap=10)
    for report, count in ((ood, n_scorers * n_sets), (combine([ood]), n_scorers * n_sets), (sit, n_scorers * 2)):
        lines = str(report).splitlines()
        assert max(map(len, lines)) <= 80
        end = lines.index("", 2)  # of the first table
        assert len(lines[4:end]) == count
        assert all("." in line and "[" in line for line in lines[4:end])
        assert "Intervals: 95 %, over the rows drawn; another training or seed is not counted." in lines
        assert len({line.split("  ")[0] for line in lines[4:end]}) == n_scorers
    assert "Milliseconds a row:" in str(ood)
    result = ood.results[0]
    assert f"{result['auroc']:.3f} [{result['auroc_low']:.3f}, {result['auroc_high']:.3f}]" in str(ood)


def test_numbers_go_into_the_first_table_while_there_is_room():
    names, numbers = [["name", "a"]], [["first", "1"], ["second", "2"], ["third", "3"]]
    assert text_tables(names, numbers, width=80).splitlines() == [
        "name  first  second  third",
        "----  -----  ------  -----",
        "a         1       2      3",
    ]
    assert text_tables(names, numbers, width=20).splitlines()[4:] == ["name  third", "----  -----", "a         3"]


def test_long_names_keep_both_ends_or_a_number():
    assert shortened("LikelihoodDetector", 10) == "Like...tor"
    names = [["name", "x" * 20 + "1" + "y" * 20, "x" * 20 + "2" + "y" * 20]]
    lines = text_tables(names, [["n", "1", "2"]], width=15).splitlines()
    assert len(set(lines[2:])) == 2
    assert lines[2].split()[0] != lines[3].split()[0]


def test_slow_reports_say_what_they_wait_for(capsys, monkeypatch):
    monkeypatch.setattr("flowdetect.evaluation._waiting.FIRST_SECONDS", 0.05)
    monkeypatch.setattr("flowdetect.evaluation._waiting.LINE_SECONDS", 0.05)
    ood_report([Slow()], X, {"low": X - 1}, n_bootstrap=10)
    written = capsys.readouterr().err
    assert "ood_report: Slow scores 40 rows of in, 1 of 2 (0 s)" in written
    assert "Slow scores 40 rows of low, 2 of 2" in written
    sit_report([Slow()], X, [AddNoise(random_state=0)], n_bootstrap=10)
    assert "sit_report: Slow scores 40 rows, the images, 1 of 2" in capsys.readouterr().err
    ood_report([Slow()], X, {"low": X - 1}, n_bootstrap=10, verbose=0)
    assert capsys.readouterr().err == ""


def test_quick_reports_are_silent(capsys):
    ood_report([Mean()], X, {"low": X - 1}, n_bootstrap=10)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("verbose", [-1, 0.5, "yes", None])
def test_verbose_is_a_count(verbose):
    with pytest.raises(ValueError, match="verbose must be a whole number >= 0"):
        ood_report([Mean()], X, {"low": X - 1}, n_bootstrap=10, verbose=verbose)

import errno
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from flowdetect.commands import main
from flowdetect.demo import OUTSIDE, load_sets, report, wording

TINY = ["--epochs", "1", "--steps", "1", "--hidden", "8", "--images", "200"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One tiny demonstration: what it printed and the page it wrote."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    command = [sys.executable, "-m", "flowdetect", "demo", *TINY, "--ood", "dimmed,flat", "--out", str(folder)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return printed, (folder / "report.html").read_text(encoding="utf-8")


def test_tables_and_sentences_are_printed(run):
    printed, _ = run
    lines = printed.splitlines()
    for score in ("likelihood       ", "corrected score  "):
        assert sum(line.startswith((f"{score}dimmed", f"{score}flat")) for line in lines) == 2
    assert max(map(len, lines[:-1])) <= 80  # the last names a folder of any length
    for words in ("first latent level zeroed", "2 pixels left", "- dimmed: the", "- flat: the", "report.html"):
        assert words in printed


def test_page_is_self_contained(run):
    _, page = run
    assert "http:" not in page
    assert "https:" not in page
    assert "<script" not in page
    assert "<link" not in page
    sources = re.findall(r"src\s*=\s*\"([^\"]{0,30})", page)
    assert len(sources) >= 6
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_page_says_what_was_printed(run):
    printed, page = run
    number = re.search(r"likelihood +dimmed +(\d\.\d{3})", printed)[1]
    assert f"(AUROC {number})" in page
    assert "seed 0" in page
    assert "scikit-learn" in page


@pytest.mark.parametrize(
    ("likelihood", "corrected", "said"),
    [
        (0.29, 0.91, ["gets it wrong", "gets it right"]),
        (0.31, 0.90, ["prefers the wrong images", "finds some of them"]),
        (0.50, 0.49, ["likelihood finds some of them", "corrected score prefers the wrong images"]),
        (0.91, 0.85, ["likelihood finds them", "the correction costs"]),
        (0.91, 0.87, ["likelihood finds them"]),
    ],
)
def test_verdict_follows_the_numbers(likelihood, corrected, said):
    sentence = wording.verdict("faint", likelihood, corrected)
    for words in said:
        assert words in sentence
    assert ("gets it wrong" in sentence) == (likelihood < 0.3)
    assert ("gets it right" in sentence) == (corrected > 0.9)
    assert ("costs" in sentence) == (corrected < likelihood - 0.05)
    assert f"AUROC {likelihood:.3f}" in sentence


def test_headline_follows_the_numbers():
    assert "gets 'a' wrong" in wording.headline({"a": (0.1, 0.95), "b": (0.6, 0.7)})
    assert "gets it right" in wording.headline({"a": (0.1, 0.95), "b": (0.1, 0.7)})
    assert "does not set them right" in wording.headline({"a": (0.1, 0.8), "b": (0.2, 0.7)})
    assert "slightly prefers" in wording.headline({"a": (0.4, 0.95)})
    assert "prefers none" in wording.headline({"a": (0.6, 0.95)})


def test_the_story_is_told_of_the_set_that_shows_it_best():
    assert wording.example({"a": (0.05, 0.7), "b": (0.1, 0.95), "c": (0.2, 0.99)}) == "b"
    assert wording.example({"a": (0.6, 0.7), "b": (0.5, 0.95)}) == "b"
    assert "can call unknown images more normal" in wording.title({"a": (0.2, 0.5)})
    assert "How well" in wording.title({"a": (0.4, 0.5)})
    assert wording.likelihood_title(0.4) == "Where the likelihood fails"
    assert wording.likelihood_title(0.6) == "The likelihood"
    assert "above those it learned" in wording.panel(False, "small", 0.3)
    assert "some of the small images" in wording.panel(True, "small", 0.8)
    assert "ranks most of the small images" in wording.panel(True, "small", 0.95)


def test_advice_is_given_only_where_the_story_is_missing():
    assert wording.FASHION_COMMAND in wording.advice("digits", {"a": (0.4, 0.95)})
    assert wording.advice("digits", {"a": (0.2, 0.95)}) == wording.DIGITS_CAUTION
    assert wording.advice("mnist", {"a": (0.2, 0.95)}) is None
    assert wording.advice("fashion_mnist", {"a": (0.4, 0.95)}) is None


def test_shift_sentence_follows_the_sign():
    assert "less likely (+0.50" in wording.shift_sentence("moved", 0.5)
    assert "more likely (-0.50" in wording.shift_sentence("moved", -0.5)
    assert "hardly moves" in wording.shift_sentence("moved", 0.01)


def test_sets_are_disjoint_and_of_one_shape():
    sets = load_sets("digits", list(OUTSIDE))
    assert len(sets.train) + len(sets.calibration) == 1043
    assert {images.shape[1:] for images in (sets.train, sets.calibration, sets.test, *sets.outside.values())} == {
        (8, 8)
    }
    assert all(images.max() < sets.n_bins for images in sets.outside.values())
    assert all(np.ptp(image) == 0 for image in sets.outside["flat"])
    np.testing.assert_array_equal(sets.outside["halved"][:, :, :4], sets.test[:, :, :4])
    assert not sets.outside["halved"][:, :, 4:].any()
    frame = sets.outside["small"].copy()
    frame[:, 2:6, 2:6] = 0
    assert not frame.any()
    np.testing.assert_allclose(sets.outside["small"].mean(), sets.test.mean() / 4, atol=0.05)


@pytest.mark.parametrize("name", ["no_such_set", "mnist"])
def test_unfit_outside_set_is_explained_in_a_line(name, capsys, monkeypatch, tmp_path):
    np.savez(tmp_path / "mnist.npz", X_test=np.zeros((3, 28, 28), np.uint8), y_test=np.zeros(3, np.int64))
    monkeypatch.setenv("FLOWDETECT_DATA", str(tmp_path))
    assert main(["demo", "--ood", name]) == 2
    error = capsys.readouterr().err
    assert f"the outside set '{name}'" in error
    assert "dimmed" in error
    assert "FLOWDETECT_DATA" in error


def test_digits_own_set_with_another_data_set(tmp_path, monkeypatch):
    images, labels = np.zeros((30, 28, 28), np.uint8), np.zeros(30, np.int64)
    np.savez(tmp_path / "mnist.npz", X_train=images, y_train=labels, X_test=images, y_test=labels)
    monkeypatch.setenv("FLOWDETECT_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="goes with --dataset digits only"):
        load_sets("mnist", ["unseen"])
    with pytest.raises(ValueError, match="cannot train on 'svhn'"):
        load_sets("svhn")


@pytest.mark.parametrize("arguments", [["demo", "--dataset", "letters"], ["demo", "--epochs", "0"], []])
def test_wrong_arguments(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("flowdetect: ")
    assert error.endswith("--help'.\n")
    assert error.count("\n") == 1
    for word in arguments[-1:]:
        assert f"'{word}'" in error


@pytest.mark.parametrize("value", ["x", "0", "-1", "1e3", "nan", "1.5", ""])
@pytest.mark.parametrize("option", ["--epochs", "--steps", "--hidden", "--images"])
def test_counts_that_are_none(option, value, capsys):
    assert main(["demo", f"{option}={value}"]) == 2
    assert f"argument {option}: must be a whole number of at least 1, got {value!r}" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["x", "-1", "4294967296", "0.5"])
def test_seeds_that_are_none(value, capsys):
    assert main(["demo", f"--seed={value}"]) == 2
    assert f"argument --seed: must be a whole number from 0 to 4294967295, got {value!r}" in capsys.readouterr().err


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr("flowdetect.demo.load_sets", lambda *a: pytest.fail("the folder was not checked first"))


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file", "is a file; name another with --out"),
        ("file/", "is a file; name another with --out"),
        ("file/below", "Not a directory"),
        ("taken", "where the report is to stand, is a folder; remove it"),
        ("x" * 300, "File name too long"),
        ("/proc/none/there", "no report can be written"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_refused_before_training(place, said, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    assert main(["demo", "--out", os.path.join(tmp_path, place)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert place.rstrip("/") in error
    assert "Traceback" not in error
    assert "FLOWDETECT_DATA" not in error  # which has nothing to do with it


@pytest.mark.usefixtures("no_training")
def test_a_folder_without_permission_is_refused_before_training(tmp_path, capsys, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("flowdetect.demo.report.tempfile.TemporaryFile", refused)  # a superuser may write anywhere
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert f"{str(tmp_path)!r}: Permission denied; name another with --out." in capsys.readouterr().err


def test_ctrl_c_is_told_in_a_line(tmp_path, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("flowdetect.demo.measure", interrupted)
    assert main(["demo", *TINY, "--out", f"{tmp_path}/new/"]) == 130  # a trailing slash is no fault
    assert "flowdetect: interrupted, and nothing was written." in capsys.readouterr().err
    assert not list((tmp_path / "new").iterdir())


def test_a_report_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("before")
    for part in ("_story", "_scores", "_images", "_transformations", "_training"):
        monkeypatch.setattr(report, part, lambda *a: "after")
    found = SimpleNamespace(sets=SimpleNamespace(name="digits"))

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("flowdetect._files.os.replace", full)
        with pytest.raises(OSError, match="No space"):
            report.write_report(found, tmp_path, "command")
    assert (tmp_path / "report.html").read_text() == "before"
    report.write_report(found, tmp_path, "command")
    assert "after" in (tmp_path / "report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.match(r"flowdetect \d+\.\d+", capsys.readouterr().out)

"""From each kind of input to a model and to scores, which are those of Python bit for bit."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import table

import flowdetect
from flowdetect import load, load_folder, load_images
from flowdetect._persistence import notes_of
from flowdetect.commands import readers

TINY = ["--density", "Glow", "--set", "n_steps=1", "--set", "hidden_channels=8", "--epochs", "1"]


def same(answer, verdicts):
    """Compare an answer's columns with what Python gives."""
    assert (answer.score.to_numpy() == verdicts.score).all()
    assert (answer.p_value.to_numpy() == verdicts.p_value).all()
    assert (answer.label.to_numpy() == verdicts.label).all()


def test_a_table(here, call, tmp_path):
    done = call("fit", "normal.csv", "-o", tmp_path / "a.fd", "--drop", "age", "--seed", 3, "--json")
    assert done.code == 0
    assert done.result["columns"] == ["height", "weight"]
    assert done.result["rows"] == 80
    frame = pd.read_csv("normal.csv")[["height", "weight"]]
    detector = flowdetect.OODDetector(random_state=3).fit(frame)
    assert done.result["threshold"] == detector.offset_
    done = call("score", tmp_path / "a.fd", "new.csv", "-o", tmp_path / "a.csv", "--json")
    answer = pd.read_csv(tmp_path / "a.csv")
    assert list(answer.columns) == ["row", "score", "p_value", "label"]
    assert (answer.row == np.arange(80)).all()
    same(answer, detector.verdicts(table(1)[["height", "weight"]]))
    assert done.result["outliers"] == (answer.label == -1).sum()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_answers_of_every_kind(ending, here, call, tmp_path):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"out.{ending}"
    assert call("score", "model.fd", "new.csv", "-o", path, "--terms").code == 0
    if ending == "csv":
        answer = pd.read_csv(path)
    elif ending == "parquet":
        answer = pd.read_parquet(path)
    else:
        answer = pd.DataFrame(json.loads(line) for line in path.read_text().splitlines())
    model = load("model.fd")
    same(answer, model.verdicts(table(1)))
    assert (answer.likelihood == answer.score).all()
    assert list(tmp_path.iterdir()) == [path]


def test_parts_give_what_the_whole_gives(here, call, tmp_path, monkeypatch):
    call("score", "model.fd", "new.csv", "-o", tmp_path / "whole.csv")
    monkeypatch.setattr(readers, "MOST_PART_ROWS", 7)
    monkeypatch.setattr(readers.Reader, "part_rows", 7)
    call("score", "model.fd", "new.csv", "-o", tmp_path / "parts.csv")
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_other_tables(here, call, tmp_path):
    whole = call("score", "model.fd", "new.csv", "-o", "-").out
    assert call("score", "model.fd", "new.tsv", "-o", "-").out == whole
    table(1)[["age", "weight", "height"]].assign(id=range(80)).to_csv(tmp_path / "b.csv", index=False, sep=";")
    columns = ["--columns", "height,weight,age", "--separator", ";"]
    assert call("score", "model.fd", tmp_path / "b.csv", "-o", "-", *columns).out == whole
    np.save(tmp_path / "b.npy", table(1).to_numpy())
    assert call("score", "model.fd", tmp_path / "b.npy", "-o", "-").out == whole


def test_several_inputs(here, call):
    lines = call("score", "model.fd", "new.csv", "normal.csv", "-o", "-").out.splitlines()
    assert lines[0] == "file,row,score,p_value,label"
    assert lines[80].startswith("new.csv,79,")
    assert lines[81].startswith("normal.csv,0,")
    assert len(lines) == 161


def test_parquet(here, call, tmp_path):
    pytest.importorskip("pyarrow")
    table(0).assign(name="a").to_parquet(tmp_path / "a.parquet", row_group_size=30)
    table(1).to_parquet(tmp_path / "b.parquet", row_group_size=30)
    out = ["-o", tmp_path / "a.fd", "--drop", "name"]
    assert call("fit", tmp_path / "a.parquet", *out, "--json").result["columns"] == ["height", "weight", "age"]
    lines = call("score", tmp_path / "a.fd", tmp_path / "b.parquet", "-o", "-").out
    assert lines == call("score", "model.fd", "new.csv", "-o", "-").out
    assert call("score", tmp_path / "a.fd", "new.csv", "-o", "-").out == lines


def test_images_of_an_array(here, call, tmp_path):
    settings = ["--detector", "likelihood", *TINY, "--set", "n_bins=17", "--seed", "1"]
    done = call("fit", "two.npz", "--array", "first", "-o", tmp_path / "a.fd", *settings, "--json")
    assert done.result["image_shape"] == [8, 8, 1]
    assert done.result["density"] == "GlowDensity"
    glow = flowdetect.GlowDensity(n_steps=1, hidden_channels=8, max_epochs=1, n_bins=17)
    images = np.load("images.npy")
    detector = flowdetect.LikelihoodDetector(glow, random_state=1).fit(images)
    call("score", tmp_path / "a.fd", "images.npy", "-o", tmp_path / "a.csv")
    same(pd.read_csv(tmp_path / "a.csv"), detector.verdicts(images))


def test_rows_that_are_images(here, call, tmp_path):
    np.save(tmp_path / "flat.npy", np.load("images.npy").reshape(70, 64))
    settings = ["--detector", "Likelihood", *TINY, "--set", "n_bins=17", "--image-shape", "8,8"]
    done = call("fit", tmp_path / "flat.npy", "-o", tmp_path / "a.fd", *settings, "--json")
    assert done.result["image_shape"] == [8, 8, 1]
    of_rows = call("score", tmp_path / "a.fd", tmp_path / "flat.npy", "-o", "-").out
    assert call("score", tmp_path / "a.fd", "images.npy", "-o", "-").out == of_rows


def test_a_folder(here, call, tmp_path):
    settings = ["--size", "6,8", "--mode", "L", "--fit", "pad", "--detector", "likelihood", *TINY]
    assert call("fit", "photos", "-o", tmp_path / "a.fd", *settings).code == 0
    assert notes_of(tmp_path / "a.fd")["reading"]["size"] == [6, 8]
    assert call("score", tmp_path / "a.fd", "photos/", "-o", tmp_path / "a.csv").code == 0
    answer = pd.read_csv(tmp_path / "a.csv")
    assert list(answer.file) == [f"{i:02d}.{'png' if i % 2 else 'jpg'}" for i in range(12)]
    same(answer, load(tmp_path / "a.fd").verdicts(load_folder("photos", size=(6, 8), mode="L", fit="pad").array()))
    one = call("score", tmp_path / "a.fd", "photos/03.png", "-o", "-").out.splitlines()[1]
    assert one.split(",")[:2] == ["photos/03.png", repr(float(answer.score[3]))]


def test_a_folder_as_a_stranger_types_it(here, call, tmp_path):
    done = call("fit", "photos", "-o", tmp_path / "a.fd", *TINY, "--set", "n_levels=1", "--json")
    assert done.result["image_shape"] == [32, 32, 3]
    lines = call("score", tmp_path / "a.fd", "photos", "-o", "-").out.splitlines()
    scores = load(tmp_path / "a.fd").score_samples(load_folder("photos", size=32).array())
    assert [line.split(",")[1] for line in lines[1:]] == [repr(float(score)) for score in scores]


def test_damaged_pictures_are_left_out_and_named_or_refused_if_asked(here, call, tmp_path):
    (tmp_path / "new").mkdir()
    for name in ("photos/00.jpg", "photos/01.png", "broken.png"):
        (tmp_path / "new" / name.split("/")[-1]).write_bytes((here / name).read_bytes())
    call("fit", "photos", "-o", tmp_path / "a.fd", "--size", "8", "--detector", "likelihood", *TINY)
    refused = call("score", tmp_path / "a.fd", tmp_path / "new", "-o", tmp_path / "a.csv", "--on-error", "raise")
    assert refused.code == 2
    assert "broken.png" in refused.err
    assert "--on-error skip" in refused.err
    done = call("score", tmp_path / "a.fd", tmp_path / "new", "-o", "-")
    assert [line.split(",")[0] for line in done.out.splitlines()] == ["file", "00.jpg", "01.png"]
    assert "flowdetect: warning: load_folder left out 1 file(s)" in done.err


def test_a_named_set(here, call, tmp_path):
    np.save(tmp_path / "a.npy", load_images("digits", "test")[0])
    lines = call("score", "density.fd", "digits:test", "-o", "-").out
    assert lines.startswith("row,score\n0,")
    assert call("score", "density.fd", tmp_path / "a.npy", "-o", "-").out == lines


def test_labels_of_classes(here, call, tmp_path):
    settings = ["--detector", "likelihood", *TINY, "--set", "n_bins=17", "--set", "conditional=True"]
    done = call("fit", "labelled.npz", "--array", "X", "--label", "y", "-o", tmp_path / "a.fd", *settings)
    assert done.code == 0
    assert load(tmp_path / "a.fd").density_.classes_.tolist() == [0, 1]


def test_false_discoveries_and_exit_codes(here, call, tmp_path):
    rows = table(1)
    rows.loc[:9] = [300.0, 20, 40]
    rows.to_csv(tmp_path / "a.csv", index=False)
    done = call("score", "model.fd", tmp_path / "a.csv", "-o", "-", "--fdr", "0.2", "--fail-on-outliers")
    assert done.code == 1
    labels = [int(line.split(",")[-1]) for line in done.out.splitlines()[1:]]
    with pytest.warns(UserWarning, match="80 calibration scores"):
        assert labels == load("model.fd").select(rows, 0.2).tolist()
    assert "flowdetect: warning: select compares 80 rows" in done.err
    assert labels[:10] == [-1] * 10
    rows[10:40].to_csv(tmp_path / "b.csv", index=False)
    assert call("score", "model.fd", tmp_path / "b.csv", "-o", "-", "--fdr", "0.01", "--fail-on-outliers").code == 0


def test_cross_conformal(here, call, tmp_path):
    call("fit", "normal.csv", "-o", tmp_path / "a.fd", "--set", "cv=3")
    call("score", tmp_path / "a.fd", "new.csv", "-o", tmp_path / "a.csv")
    model = load(tmp_path / "a.fd")
    assert len(model.members_) == 3
    same(pd.read_csv(tmp_path / "a.csv"), model.verdicts(table(1)))


def test_a_model_of_python(here, call, tmp_path):
    flowdetect.OODDetector(random_state=0).fit(table(0).to_numpy()).save(tmp_path / "a.fd")
    assert (
        call("score", tmp_path / "a.fd", "new.csv", "-o", "-").out
        == call("score", "model.fd", "new.csv", "-o", "-").out
    )


def test_warnings_are_lines_told_once(here, call, tmp_path, monkeypatch):
    (table(1) * 1e6).to_csv(tmp_path / "a.csv", index=False)
    monkeypatch.setattr(readers.Reader, "part_rows", 20)
    done = call("score", "model.fd", tmp_path / "a.csv", "-o", tmp_path / "b.csv", "--json")
    lines = done.err.splitlines()
    assert len(lines) == len(done.result["warnings"]) == 1
    assert lines[0].startswith("flowdetect: warning: OODDetector got another range of numbers")

"""The commands report, explain and sample, and the help."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import table
from PIL import Image

from flowdetect import load, ood_report


def check_page(text, n_pictures):
    """A page needs no other file, and has so many pictures."""
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text
    assert len(re.findall(r'<img [^>]*src="data:image/png;base64,', text)) == text.count("<img") == n_pictures


def width(path):
    with Image.open(path) as file:
        return file.size[0]


def test_a_report(here, call, tmp_path):
    words = ["report", "model.fd", "new.csv", "shifted=" + str(tmp_path / "s.csv")]
    (table(2) + 30).to_csv(tmp_path / "s.csv", index=False)
    done = call(*words, "-o", tmp_path / "a.csv", "--json")
    expected = ood_report({"OODDetector": load("model.fd")}, table(1), {"shifted": table(2) + 30}, name="new")
    found = pd.read_csv(tmp_path / "a.csv").drop(columns="ms_per_image")
    pd.testing.assert_frame_equal(found, expected.to_frame().drop(columns="ms_per_image"), check_exact=True)
    assert done.result["results"][0]["auroc"] == found.auroc[0] > 0.9
    done = call(*words, "-o", tmp_path / "a.html")
    assert "OODDetector  shifted" in done.out
    page = (tmp_path / "a.html").read_text()
    check_page(page, 3)  # intervals, histograms, ROC curves
    assert f"AUROC {found.auroc[0]:.3f}" in page
    assert f"{np.mean(load('model.fd').predict(table(2) + 30) == -1):.1%}" in page


def test_a_report_of_images(here, call, tmp_path):
    assert call("report", "images.fd", "images.npy", "digits:test", "-o", tmp_path / "a.html").code == 0
    check_page((tmp_path / "a.html").read_text(), 4)


def test_explanations_of_a_table(here, call, tmp_path):
    call("explain", "model.fd", "new.csv", "-o", tmp_path / "a.csv", "--rows", "5,2-3")
    found = pd.read_csv(tmp_path / "a.csv")
    assert found.row.unique().tolist() == [5, 2, 3]
    frame = load("model.fd").explain(table(1).iloc[[5, 2, 3]]).to_frame()
    assert found.column.tolist() == frame.column.tolist()
    np.testing.assert_allclose(found.importance, frame.importance, rtol=1e-12)
    done = call("explain", "model.fd", "new.csv", "-o", tmp_path / "a.html", "--lowest", "2", "--json")
    lowest = np.argsort(load("model.fd").score_samples(table(1)))[:2].tolist()
    assert done.result["rows"] == lowest
    page = (tmp_path / "a.html").read_text()
    check_page(page, 2)
    assert f"<h2>row {lowest[0]}</h2>" in page


def test_explanations_of_images(here, call, tmp_path):
    done = call("explain", "images.fd", "images.npy", "-o", tmp_path / "a.png", "--rows", "3")
    assert done.code == 0
    assert width(tmp_path / "a.png") > 600
    call("explain", "images.fd", "images.npy", "-o", tmp_path / "a.jsonl", "--rows", "3")
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 64


def test_samples(here, call, tmp_path):
    assert call("sample", "model.fd", "-n", "5", "-o", tmp_path / "a.csv").code == 0
    found = pd.read_csv(tmp_path / "a.csv")
    assert list(found.columns) == ["height", "weight", "age"]
    assert (found.to_numpy() == load("model.fd").density_.sample(5, random_state=0)).all()
    settings = ["-n", "5", "--temperature", "0.5", "--seed", "2"]
    call("sample", "images.fd", *settings, "-o", tmp_path / "a.npy")
    images = load("images.fd").density_.sample(5, temperature=0.5, random_state=2)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), images)
    call("sample", "images.fd", *settings, "-o", f"{tmp_path}/new/")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [f"{i}.png" for i in range(5)]
    with Image.open(tmp_path / "new" / "3.png") as file:
        picture = np.asarray(file).astype(float)
    np.testing.assert_allclose(picture, images[3] * (255 / 16), atol=0.51)
    assert call("sample", "images.fd", "-o", tmp_path / "a.png").code == 0
    assert width(tmp_path / "a.png") > 500


def test_samples_of_a_class(here, call, tmp_path):
    call("sample", "classes.fd", "-n", "4", "--label", "1", "-o", tmp_path / "a.npy")
    images = load("classes.fd").sample(4, y=[1] * 4, random_state=0)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), images)


@pytest.mark.parametrize("command", ["", "fit", "score", "report", "explain", "sample", "demo"])
def test_help(command, call):
    done = call(*command.split(), "--help")
    assert done.code == 0
    assert "example:\n  flowdetect " in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_help_needs_no_library():
    code = "import sys; from flowdetect.commands import main; main(['score', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("numpy", "torch", "pandas", "sklearn", "matplotlib"):
        assert f"'{name}'" not in done.stdout

"""Figures of the studies' pages are those of the results that the repository keeps."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "docs" / "studies"


@pytest.fixture(scope="module")
def answers():
    """The script that draws the pages' first pictures."""
    sys.path.insert(0, str(ROOT / "examples" / "studies"))
    import draw_answers

    yield draw_answers
    sys.path.remove(str(ROOT / "examples" / "studies"))


def page(name):
    return re.sub(r"\s+", " ", (STUDIES / f"{name}.rst").read_text())


def test_detection_shows_the_kept_areas(answers):
    found = json.loads((STUDIES / "detector.json").read_text())
    sets = set(answers.TITLES)
    pairs = [(job, other) for job in found for other in found[job]["auroc"] if {job, other} <= sets]
    near = [(job, other) for job in found for other in found[job]["auroc"] if ":without" in job]
    assert len(pairs) == 8
    assert near
    text = page("detection")
    for job, other in pairs:
        area, low, high = found[job]["auroc"][other]["auroc"]
        assert f"{answers.TITLES[job]} / {answers.TITLES[other]} {area:.4f} [{low:.4f}, {high:.4f}]" in text
    for job, other in near:
        area, low, high = found[job]["auroc"][other]["auroc"]
        assert f"{area:.3f} [{low:.3f}, {high:.3f}]" in text, job


def test_tables_shows_the_kept_areas(answers):
    areas = answers.table_areas(STUDIES)
    assert len(areas) > 25
    text = page("tables")
    for name in ("OODDetector", "LUNAR", "KNN mean", "IForest", "LOF", "ECOD"):
        for area, low, high in areas[name].values():
            half = 5e-5  # of the last digit that the file has
            written = [f"{area + a:.3f} [{low + b:.3f}, " for a in (-half, half) for b in (-half, half)]
            assert any(each in text for each in written), (name, area, low, high)


def test_pictures_are_drawn_of_what_is_kept(answers, tmp_path):
    for draw in (answers.draw_detection, answers.draw_tables, answers.draw_semantics):
        draw(STUDIES).savefig(tmp_path / "drawn.png")
        assert (tmp_path / "drawn.png").stat().st_size > 10_000


def test_constant_images_are_those_of_the_page():
    found = json.loads((STUDIES / "constant_images.json").read_text())["fashion_mnist"]
    levels = {int(level): bits for level, bits in found["constant, by level"].items()}
    text = page("paradox")
    assert f"black {levels[0]:.3f}" in text
    assert f"white {levels[255]:.3f}" in text
    between = [bits for level, bits in levels.items() if 0 < level < 255]
    assert f"{min(between):.3f} to {max(between):.3f}" in text
    assert levels[0] < found["test images"]["mnist"][0] < found["test images"]["fashion_mnist"][0]

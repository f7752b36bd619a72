"""The house: who uses whose private names, and that base is short."""

import ast
import re
import tomllib
from pathlib import Path
from runpy import run_path

from packaging.version import Version

import flowdetect

ROOT = Path(flowdetect.__file__).parent
BELOW_BASE = ("_training", "_averages", "_checkpoint", "_scoring", "_derivatives")  # these know no estimator
LONGEST_BASE = 300


def private_names_of_others(path):
    """Private attributes that a module asks of anything but self, cls or super()."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        owner = node.value
        own = isinstance(owner, ast.Name) and owner.id in ("self", "cls")
        of_super = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
        if not own and not of_super:
            found.append(ast.unparse(node))
    return found


def test_what_stands_below_the_estimator_asks_none_of_its_private_names():
    allowed = {"torch._foreach_lerp_"}
    for name in BELOW_BASE:
        path = ROOT / "density" / f"{name}.py"
        assert set(private_names_of_others(path)) <= allowed, name


def test_what_stands_below_the_estimator_does_not_know_it():
    for name in BELOW_BASE:
        imported = [
            alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse((ROOT / "density" / f"{name}.py").read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        ]
        assert not [entry for entry in imported if "density.base" in entry or "BaseEstimator" in entry]


def test_base_joins_and_is_short():
    assert len((ROOT / "density" / "base.py").read_text().splitlines()) <= LONGEST_BASE


def pins(name):
    lines = (line.split("#")[0].strip() for line in (ROOT.parent / name).read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


def test_the_least_versions_are_those_that_are_tried():
    wanted = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    least = {re.split("[>=]", entry)[0]: re.search(r">=([\d.]+)", entry)[1] for entry in wanted}
    oldest, newest = pins("constraints-oldest.txt"), pins("constraints.txt")
    for name, version in least.items():
        assert name in newest
        if name == "torch":  # see the file
            assert oldest[name] == newest[name]
        else:
            assert Version(oldest[name]) == Version(version), name


def test_what_is_promised_is_held_by_tests_that_are_there():
    text = (ROOT.parent / "docs" / "guide" / "promises.rst").read_text()
    named = set(re.findall(r"``([\w/]+\.py)``", text)) - {"examples/studies/interrupted.py"}
    assert len(named) >= 10
    assert not [name for name in named if not (ROOT.parent / "tests" / name).is_file()]


def test_the_picture_of_the_rooms_shows_the_contract():
    drawing = run_path(str(ROOT.parent / "docs" / "contributing" / "draw_architecture.py"))
    assert drawing["PICTURE"].read_text() == drawing["draw"](), "run python docs/contributing/draw_architecture.py"
    assert "tarflow" in drawing["draw"]()

"""The files around the code: citation, changelog fragments, and the README's links in a package."""

import re
import tomllib
from pathlib import Path
from runpy import run_path

import flowdetect

ROOT = Path(flowdetect.__file__).parent.parent
TOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]


def test_the_citation_names_this_version():
    assert f"\nversion: {flowdetect.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_fragments_have_a_kind_and_a_text():
    kinds = {kind["directory"] for kind in TOOLS["towncrier"]["type"]}
    for path in (ROOT / "changelog.d").iterdir():
        if path.name != "README.md":
            assert re.fullmatch(rf"(\d+|\+[\w-]+)\.({'|'.join(kinds)})\.md", path.name), path.name
            assert path.read_text().strip().endswith("."), path.name


def test_new_versions_have_a_place_in_the_changelog():
    assert (ROOT / "CHANGELOG.md").read_text().count(TOOLS["towncrier"]["start_string"]) == 1


def test_links_in_a_package_are_absolute():
    absolute = run_path(str(ROOT / "tests" / "wheel.py"))["with_absolute_links"]
    text = "![Two scores.](docs/a.png) [log](CHANGELOG.md) [paper](https://arxiv.org/abs/1807.03039) [here](#data)"
    version = f"v{flowdetect.__version__}"
    assert absolute(text, "https://host/us/flowdetect") == (
        f"![Two scores.](https://host/us/flowdetect/raw/{version}/docs/a.png) "
        f"[log](https://host/us/flowdetect/blob/{version}/CHANGELOG.md) "
        "[paper](https://arxiv.org/abs/1807.03039) [here](#data)"
    )


def test_what_the_pages_call_is_there():
    """Every target of make that a page for contributors names."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / "contributing").glob("*.rst")]
    named = {name for page in pages for name in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert named <= targets
    assert targets - {"help"} <= set(
        re.findall(r"`make ([a-z-]+)", (ROOT / "docs/contributing/testing.rst").read_text())
    )

"""Each page of docs/how_to is run as a reader would type it: its blocks in order, in an empty folder."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PAGES = sorted(Path(__file__).parents[1].glob("docs/how_to/*.rst"))
MOST_LINES = 48  # a screen
BLOCK = re.compile(r"^\.\. code-block:: (python|bash)\n((?:   :.*\n)*)\n((?:   .*\n|\n)+)", re.MULTILINE)
NEEDS = re.compile(r"^\.\. needs: (.+)$", re.MULTILINE)
ENGINE = re.compile(r"^\.\. engine: .+$", re.MULTILINE)  # a page that starts several processes


def blocks(page):
    """Kind and text of each block of a page that is to be run."""
    return [(kind, textwrap.dedent(text)) for kind, _, text in BLOCK.findall(page.read_text() + "\n")]


def script(page):
    """One bash script of all blocks; python blocks of one page share their names."""
    python, lines = [], ["set -e"]
    for number, (kind, text) in enumerate(blocks(page)):
        if kind == "bash":
            lines.append(text)
            continue
        Path(f"block_{number}.py").write_text(text)
        python.append(f"block_{number}.py")
        # what earlier blocks of python computed is computed again only where a command stands between
        if number + 1 == len(blocks(page)) or blocks(page)[number + 1][0] == "bash":
            Path(f"part_{number}.py").write_text("\n".join(Path(name).read_text() for name in python))
            lines.append(f"{sys.executable} -W error::FutureWarning part_{number}.py")
            python = []
    return "\n".join(lines)


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "index"], ids=lambda page: page.stem)
def test_a_page_runs_as_it_is_typed(page, tmp_path, monkeypatch, request):
    if ENGINE.search(page.read_text()) and not any("engines" in argument for argument in request.config.args):
        pytest.skip("run by make test-engines")
    for needed in ", ".join(NEEDS.findall(page.read_text())).split(", "):
        if needed:
            pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    text = script(page)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", text],
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_every_page_has_something_to_run_and_is_a_screen_long():
    for page in PAGES:
        if page.stem != "index":
            assert blocks(page), page.name
            assert len(page.read_text().splitlines()) <= MOST_LINES, page.name

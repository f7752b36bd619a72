"""The pages of docs/how_to and docs/guide and README.md are run as a reader would type them.

Blocks of python and bash run in order, in an empty folder. What a page says of its own test stands in comments, which a
reader of the source sees (``.. needs: pyarrow`` in a page, ``<!-- needs: pyarrow -->`` in README.md):

=====================  ==============================================================================================
needs: a, b            the page is skipped where one of these libraries is missing
engine: name           the page starts several processes: make test-engines runs it
run by: path           this other test runs the page
not run: reason        above a block: the block is not run, for this reason
run first:             with indented lines of Python: they run at this place and are not shown, such as data to work on
shortened: a -> b      a is replaced by b in all blocks, such as a time limit
=====================  ==============================================================================================
"""

import json
import os
import re
import select
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOW_TO, GUIDE = sorted(ROOT.glob("docs/how_to/*.rst")), sorted(ROOT.glob("docs/guide/*.rst"))
PAGES = [page for page in [*HOW_TO, *GUIDE] if page.stem != "index"] + [ROOT / "README.md"]
MOST_LINES = 48  # a screen, of how-tos
MOST_SECONDS = 300
RUNNABLE = ("python", "bash", "console", "sh", "")  # "": a block of README.md that names no language
NOT_RUN = {"README.md": 2, "photos.rst": 1}  # blocks by page; another one is a decision

RST_BLOCK = re.compile(
    r"^(?:\.\. not run: (?P<reason>.+)\n\n)?"
    r"\.\. (?:code-block:: (?P<kind>\w+)\n(?:   :.*\n)*\n|(?P<first>run first):\n)(?P<text>(?:   .*\n|\n)+)",
    re.MULTILINE,
)
MARKDOWN_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+) -->\n+)?"
    r"(?:```(?P<kind>\w*)|<!-- (?P<first>run first):)\n(?P<text>(?:.*\n)*?)(?:```|-->)$",
    re.MULTILINE,
)


def said(page, name):
    """What the page's comments of this name say."""
    return re.findall(rf"^(?:\.\.|<!--) {name}: (.+?)(?: -->)?$", page.read_text(), re.MULTILINE)


def all_blocks(page):
    """Kind, text and reason not to run of each block of code of a page."""
    pattern = MARKDOWN_BLOCK if page.suffix == ".md" else RST_BLOCK
    for found in pattern.finditer(page.read_text() + "\n"):
        kind, text = "python" if found["first"] else found["kind"], textwrap.dedent(found["text"])
        for long, short in (change.split(" -> ") for change in said(page, "shortened")):
            text = text.replace(long, short)
        if kind in RUNNABLE:
            yield kind, text, found["reason"]


def blocks(page):
    """Kind and text of each block of a page that is to be run."""
    return [(kind, text) for kind, text, reason in all_blocks(page) if kind in ("python", "bash") and not reason]


def python_parts(page):
    """Write python blocks into files, joined where no command stands between; give files and commands in order."""
    parts, before = [], None
    for number, (kind, text) in enumerate(blocks(page)):
        if kind == "python" and before == "python":
            with parts[-1].open("a") as file:
                file.write(text)
        elif kind == "python":
            parts.append(Path(f"part_{number}.py"))
            parts[-1].write_text(text)
        else:
            parts.append(text)
        before = kind
    return parts


def environment():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}


@pytest.fixture(scope="module")
def runner():
    """A process that runs scripts of Python."""
    command = [sys.executable, "-W", "error::FutureWarning", Path(__file__).with_name("page_runner.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), text=True, bufsize=1, **pipes) as process:
        yield process
        process.stdin.close()


def run_script(runner, script):
    """Run a file of Python in the present folder; give its exit code and what it printed."""
    print(json.dumps({"folder": str(Path.cwd()), "script": str(script)}), file=runner.stdin, flush=True)
    if not select.select([runner.stdout], [], [], MOST_SECONDS)[0]:
        runner.kill()
    return runner.stdout.readline().strip(), Path("output.txt").read_text()


def run_all(page):
    """Run all blocks of a page in one shell; give its exit code and what it printed."""
    lines = [
        f"{sys.executable} -W error::FutureWarning {part}" if isinstance(part, Path) else part
        for part in python_parts(page)
    ]
    script = "\n".join(["set -e", *lines])
    captured = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": MOST_SECONDS}
    done = subprocess.run(["bash", "-c", script], env=environment(), check=False, **captured)
    return str(done.returncode), done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_as_it_is_typed(page, tmp_path, monkeypatch, request):
    is_engine = bool(said(page, "engine"))
    if is_engine and not any("engines" in argument for argument in request.config.args):
        pytest.skip("run by make test-engines")
    if said(page, "run by"):
        pytest.skip(f"run by {said(page, 'run by')[0]}")
    if not blocks(page):
        pytest.skip("a page without code")
    for needed in ", ".join(said(page, "needs")).split(", "):
        if needed:
            pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    if is_engine or {kind for kind, _ in blocks(page)} != {"python"}:
        code, printed = run_all(page)
    else:
        code, printed = run_script(request.getfixturevalue("runner"), *python_parts(page))
    assert code == "0", printed


def test_every_how_to_has_something_to_run_and_is_a_screen_long():
    for page in set(HOW_TO) & set(PAGES):
        assert blocks(page), page.name
        assert len(page.read_text().splitlines()) <= MOST_LINES, page.name


def test_blocks_of_guide_and_readme_are_run_or_say_why_not():
    counts = {}
    for page in set(PAGES) - set(HOW_TO):
        if said(page, "run by"):
            test = ROOT / said(page, "run by")[0]
            assert page.name in test.read_text(), (page.name, test)
            continue
        for kind, text, reason in all_blocks(page):
            assert reason or kind in ("python", "bash"), f"{page.name}: a block neither run nor marked:\n{text}"
            counts[page.name] = counts.get(page.name, 0) + bool(reason)
    assert {name: count for name, count in counts.items() if count} == NOT_RUN


def test_each_comment_about_the_test_is_understood():
    for page in PAGES:
        text = page.read_text()
        for name in re.findall(r"^(?:\.\.|<!--) ([\w ]+):(?: |$)", text, re.MULTILINE):
            assert name in ("needs", "engine", "run by", "not run", "run first", "shortened"), (page.name, name)
        assert text.count("not run: ") == sum(bool(reason) for *_, reason in all_blocks(page)), page.name
        for change in said(page, "shortened"):
            assert text.count(change.split(" -> ")[0]) > 1, (page.name, change)

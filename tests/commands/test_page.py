"""The page on the command line shows what the commands say."""

import re
import shlex
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flowdetect import load

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "command_line.rst"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
TIME = re.compile(r"in [\d.]+ s\b|\"seconds\": [\d.e-]+|row: OODDetector [\d.]+\.$", re.MULTILINE)


def steps():
    """Each command of the page, and the output that is shown under it."""
    blocks = re.findall(r"code-block:: console\n\n((?:   .*\n|\n)+)", PAGE.read_text())
    found = []
    for line in textwrap.dedent("\n".join(blocks)).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line or (found and found[-1][1]):
            found[-1][1].append(line)
    return [(command, "\n".join(shown).strip()) for command, shown in found]


def check_same(said, shown):
    """Compare words exactly, and numbers to three digits, as other machines round otherwise; times are left out."""
    said, shown = (TIME.sub("TIME", text.strip()) for text in (said, shown))
    assert NUMBER.sub("#", said) == NUMBER.sub("#", shown)
    pairs = [[float(number) for number in NUMBER.findall(text)] for text in (said, shown)]
    np.testing.assert_allclose(*pairs, rtol=1e-3)


def test_the_page(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(re.search(r"code-block:: python\n\n((?:   .*\n|\n)+)", PAGE.read_text())[1]), {})
    assert len(steps()) >= 12
    for command, shown in steps():
        name, *words = shlex.split(command)
        if name == "head":
            said = "\n".join(Path(words[1]).read_text().splitlines()[: int(words[0][1:])])
        else:
            done = call(*words)
            assert done.code == (2 if re.search(r"^flowdetect: (?!warning)", shown, re.MULTILINE) else 0)
            said = done.err + done.out
        check_same(said, shown)
    model, verdicts = load("digits.fd"), pd.read_csv("digits.csv")
    assert model.offset_ == np.quantile(model.calibration_scores_, 0.1)  # of rows that it was not trained on
    assert 0.05 < np.mean(verdicts.label == -1) < 0.2


def test_a_shown_number_matters():
    with pytest.raises(AssertionError):
        check_same("in 3 s: 19 outliers", "in 2 s: 18 outliers")

"""What ends a command in its middle leaves nothing behind: Ctrl-C, a full disk, a reader that has read enough."""

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import contents, table

from flowdetect import OODDetector
from flowdetect.commands import tables

COMMAND = [sys.executable, "-m", "flowdetect"]


@contextmanager
def limited_files(n_bytes):
    """Let no file grow beyond some bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "words",
    [
        ["score", "model.fd", "new.csv", "-o", "{}/out.csv"],
        ["fit", "normal.csv", "-o", "{}/out.fd"],
        ["report", "model.fd", "new.csv", "normal.csv", "-o", "{}/out.html"],
        ["explain", "model.fd", "new.csv", "-o", "{}/out.csv", "--lowest", "50"],
        ["sample", "images.fd", "-n", "64", "-o", "{}/out.npy"],
    ],
    ids=["score", "fit", "report", "explain", "sample"],
)
def test_a_full_disk(words, here, call, tmp_path):
    old = tmp_path / words[words.index("-o") + 1].split("/")[-1]
    old.write_text("what was there")
    with limited_files(2000):
        done = call(*(word.format(tmp_path) for word in words))
    assert done.code == 2
    assert done.err == f"flowdetect: '{old}': File too large; the file could not be written.\n"
    assert old.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [old]


def test_standard_output_on_a_full_disk(here, call, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        done = call("score", "model.fd", "new.csv", "-o", "-")
    assert done.code == 2
    assert done.err == "flowdetect: No space left on device.\n"


def test_a_reader_that_has_read_enough(here, call, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        done = call("score", "model.fd", "new.csv", "-o", "-")
    assert (done.code, done.err) == (0, "")


def test_ctrl_c(here, tmp_path):
    np.save(tmp_path / "many.npy", np.tile(table(1).to_numpy(), (20_000, 1)))
    command = [*COMMAND, "score", "model.fd", str(tmp_path / "many.npy"), "-o", str(tmp_path / "out.csv"), "--verbose"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.read(1)  # of the bar
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "flowdetect: interrupted, and nothing was written."
    assert "Traceback" not in err
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["many.npy"]


def test_ctrl_c_in_a_fit(here, call, tmp_path, monkeypatch):
    monkeypatch.setattr(OODDetector, "_calibrate", lambda *_: signal.raise_signal(signal.SIGINT))
    before = contents(here)
    done = call("fit", "normal.csv", "-o", tmp_path / "out.fd", "--json")
    assert done.code == done.result["exit_code"] == 130
    assert done.err.startswith("flowdetect: interrupted, and nothing was written; with --checkpoint FOLDER")
    assert list(tmp_path.iterdir()) == []
    assert contents(here) == before


def test_an_error_in_the_middle(here, call, tmp_path, monkeypatch):
    monkeypatch.setattr(tables.TextTable, "part_rows", 64)
    lines = (here / "new.csv").read_text().splitlines()
    lines[75] = "170,,30"
    (tmp_path / "late.csv").write_text("\n".join(lines))
    (tmp_path / "out.csv").write_text("what was there")
    done = call("score", "model.fd", tmp_path / "late.csv", "-o", tmp_path / "out.csv")
    assert done.code == 2
    assert "row 74, column 'weight'" in done.err
    assert (tmp_path / "out.csv").read_text() == "what was there"
    assert {path.name for path in tmp_path.iterdir()} == {"late.csv", "out.csv"}

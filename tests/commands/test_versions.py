"""`flowdetect --version`, which reports of faults begin with."""

import platform
import sys
from importlib.metadata import version

import torch

from flowdetect.commands import main
from flowdetect.commands.versions import LIBRARIES, describe


def test_all_that_a_report_needs(capsys):
    assert main(["--version"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    first, *lines = said.out.splitlines()
    assert first == f"flowdetect {version('flowdetect-ood')}"
    told = dict(line.split(": ", 1) for line in lines)
    assert list(told) == ["python", *LIBRARIES, "platform", "devices", "compiled networks"]
    assert told["python"] == platform.python_version()
    assert told["torch"] == torch.__version__
    assert f"CPU with {torch.get_num_threads()} threads" in told["devices"]


def test_installations_that_are_broken(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("flowdetect.commands.versions.LIBRARIES", ("numpy", "flowdetect-no-such-library"))
    told = describe()
    assert "flowdetect-no-such-library: not installed" in told
    assert "devices: unknown, as torch cannot be imported" in told

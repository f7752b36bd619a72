"""Versions, the platform and the devices, for reports of errors."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "lightning-fabric", "pyod", "safetensors", "skops")
COMPILED = ("no: torch computes them", "float32", "float32 and bfloat16")  # by level of the processor


class ShowVersions(argparse.Action):
    """Print the versions and end, as `--version` does."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        told = "show the versions of flowdetect and of its libraries, the platform and the devices"
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=told)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print, and raise SystemExit."""
        sys.stdout.write(f"{describe()}\n")
        parser.exit()


def describe() -> str:
    """Return the lines, with flowdetect and its version first."""
    libraries = {name: _version(name) for name in LIBRARIES}
    lines = {"python": platform.python_version(), **libraries, "platform": platform.platform(), **_devices()}
    return "\n".join([f"flowdetect {version('flowdetect-ood')}", *(f"{name}: {said}" for name, said in lines.items())])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> dict[str, str]:
    try:
        import torch
    except (ImportError, OSError) as error:  # of an installation that is to be reported
        return {"devices": f"unknown, as torch cannot be imported: {error}"}
    from flowdetect.nets.compiled import library

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    names += ["MPS"] if torch.backends.mps.is_available() else []
    threads = f"CPU with {torch.get_num_threads()} threads"
    return {"devices": ", ".join([*names, threads]), "compiled networks": COMPILED[library()[1]]}

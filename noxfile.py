"""Which Pythons and versions of the libraries are tried together; the Makefile makes the environments.

`make test-versions` runs all pairs whose Python is installed, NOX_ARGS="-s 'smoke(3.12-newest)'" one.
"""

import os
import subprocess
from pathlib import Path

import nox

# numpy 2.0, scipy 1.13 and pandas 2.2.2, the least versions, came out before Python 3.13
PAIRS = [("3.11", "oldest"), ("3.12", "oldest"), *((python, "newest") for python in ("3.11", "3.12", "3.13", "3.14"))]


def interpreter(version):
    """Find a Python of this version that runs, in the path or among pyenv's; None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for found in (f"python{version}", *pyenv.glob(f"{version}.*/bin/python")):
        try:
            subprocess.run([found, "-c", ""], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return found
    return None


@nox.session(venv_backend="none")
@nox.parametrize("version, pins", PAIRS, ids=["-".join(pair) for pair in PAIRS])
def smoke(session, version, pins):
    """Install the package with these pins, fit every density, save it and load it."""
    python = interpreter(version)
    if python is None:
        session.skip(f"Python {version} is not installed")
    environment = [f"PYTHON={python}", f"PINS={pins}", f"SMOKE=.venv-{pins}-{version}"]
    session.run("make", "test-oldest", *environment, external=True)

"""Which Pythons and versions of the libraries are tried together; the Makefile makes the environments.

`make test-versions` runs all pairs whose Python is installed, NOX_ARGS="-s smoke-3.12-newest" one.
"""

import shutil

import nox

# numpy 2.0, scipy 1.13 and pandas 2.2.2, the least versions, came out before Python 3.13
PAIRS = [("3.11", "oldest"), ("3.12", "oldest"), *((python, "newest") for python in ("3.11", "3.12", "3.13", "3.14"))]


@nox.session(venv_backend="none")
@nox.parametrize("version, pins", PAIRS, ids=["-".join(pair) for pair in PAIRS])
def smoke(session, version, pins):
    """Install the package with these pins, fit every density, save it and load it."""
    if not shutil.which(f"python{version}"):
        session.skip(f"Python {version} is not installed")
    environment = [f"PYTHON=python{version}", f"PINS={pins}", f"SMOKE=.venv-{pins}-{version}"]
    session.run("make", "test-oldest", *environment, external=True)

"""Build the wheel and the sdist into dist, install the wheel into a clean environment, and use it from a clean folder.

    python tests/wheel.py [ADDRESS [PAGES]]

`make wheel` runs it. ADDRESS is where the repository is published, PAGES where its documentation is: they become the
project's URLs, and the README's links are made absolute by ADDRESS, since a package index resolves no relative ones.
Without ADDRESS the package has no URLs. The package is also built and used without a C compiler.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parent.parent
VERSION = re.search(r'__version__ = "(.*)"', (ROOT / "flowdetect" / "__init__.py").read_text())[1]
USES = {
    "images": """
from flowdetect import ComplexityDetector, RealNVPDensity, load_images
X, _ = load_images("digits")
detector = ComplexityDetector(RealNVPDensity(n_bins=17, max_epochs=1)).fit(X[:200])
assert detector.p_values(X[200:250]).shape == (50,)
""",
    "a table": """
import numpy as np
import pandas as pd
from flowdetect import OODDetector
X = np.random.default_rng(0).normal(size=(300, 3))
assert OODDetector(random_state=0).fit(X).predict([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]).tolist() == [1, -1]
pd.DataFrame(X, columns=["a", "b", "c"]).to_csv("rows.csv", index=False)
""",
}
COMMANDS = (
    "--version",
    "fit rows.csv -o model.fd",
    "score model.fd rows.csv -o scores.csv",
    "demo --images 100 --epochs 1 --steps 1 --hidden 8 --out report",
)
WRITTEN = ("model.fd", "scores.csv", "report/report.html")


def run(*words, **options):
    """Run a program; its failure ends the script."""
    print("$", *[str(word).strip().split("\n")[-1] for word in words], flush=True)
    subprocess.run([str(word) for word in words], check=True, **options)


def published(folder, address, pages):
    """Copy what git tracks, with absolute links and the project's URLs if there is an address."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    if address:
        readme, project = folder / "README.md", folder / "pyproject.toml"
        readme.write_text(with_absolute_links(readme.read_text(), address))
        urls = {
            "Source": address,
            "Issues": f"{address}/issues",
            "Changelog": f"{address}/blob/v{VERSION}/CHANGELOG.md",
        }
        urls |= {"Documentation": pages} if pages else {}
        lines = "\n".join(f'{name} = "{url}"' for name, url in urls.items())
        project.write_text(f"{project.read_text()}\n[project.urls]\n{lines}\n")
    return folder


def with_absolute_links(text, address):
    """Let Markdown's relative links, and pictures, point into the repository at this version."""
    text = re.sub(r"(!\[[^\]]*\])\((?![a-z]+:|#)([^)]+)\)", rf"\1({address}/raw/v{VERSION}/\2)", text)
    return re.sub(r"(\])\((?![a-z]+:|#)([^)]+)\)", rf"\1({address}/blob/v{VERSION}/\2)", text)


def built(source, out, **options):
    """Build the sdist, and the wheel from it; give the wheel and whether it has the compiled networks."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, **options)
    (wheel,) = out.glob("*.whl")
    names = ZipFile(wheel).namelist()
    assert "flowdetect/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "docs", "examples", "changelog.d"))], names
    return wheel, any("_compiled" in name and name.endswith((".so", ".pyd")) for name in names)


def used(python, folder):
    """Use what is installed as a user would."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = {"cwd": folder, "env": {**environment, "OMP_NUM_THREADS": "1"}}
    run(python, "-c", "import flowdetect; assert 'site-packages' in flowdetect.__file__", **options)
    for code in USES.values():
        run(python, "-c", code, **options)
    for words in COMMANDS:
        run(python.with_name("flowdetect"), *words.split(), **options)
    assert all((folder / name).stat().st_size for name in WRITTEN)


def main(address="", pages=""):
    """Build, check and use."""
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place), ROOT / "dist"
        shutil.rmtree(out, ignore_errors=True)
        source = published(folder / "source", address.rstrip("/"), pages.rstrip("/"))
        wheel, has_compiled = built(source, out)
        plain, is_compiled = built(source, folder / "plain", env={**os.environ, "CC": "/no/compiler"})
        assert not is_compiled, "the wheel that was built without a compiler has compiled networks"
        run(sys.executable, "-m", "twine", "check", "--strict", *out.iterdir())
        run(sys.executable, "-m", "venv", folder / "venv")
        python = folder / "venv" / "bin" / "python"
        install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        run(*install, "--constraint", ROOT / "constraints.txt", "torch")  # before what asks for it with an open range
        for name, each in (("compiled", wheel), ("plain", plain)):
            run(*install, "--constraint", ROOT / "constraints.txt", "--force-reinstall", "--no-deps", each)
            run(*install, "--constraint", ROOT / "constraints.txt", each)
            used(python, folder / f"use_{name}")
    print(f"{wheel.name} works, with compiled networks: {has_compiled}; and without")


if __name__ == "__main__":
    main(*sys.argv[1:])

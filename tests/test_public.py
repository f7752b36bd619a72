import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flowdetect
from flowdetect._homes import HOMES

PACKAGE = Path(flowdetect.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
NAMES = [name for name in flowdetect.__all__ if name != "__version__"]
HEAVY = ("lightning_fabric", "matplotlib", "pandas", "pyod", "safetensors", "skops", "tqdm")
# packages of scikit-learn that its base does not load, and of which fits load what they need
LATER = {f"sklearn.{name}" for name in ("covariance", "decomposition", "linear_model", "metrics", "mixture")}
LATER |= {f"sklearn.{name}" for name in ("model_selection", "neighbors", "pipeline", "preprocessing", "svm")}


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def source(request):
    return request.param


def imported_on_load(tree):
    """Names of the modules that a file imports when it is itself imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imported_on_load(node)


def test_import_is_cheap():
    code = "import sys, flowdetect; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "flowdetect" in loaded
    assert not {"torch", "sklearn", "numpy", "scipy", *HEAVY} & set(loaded)


@pytest.mark.parametrize("name", NAMES)
def test_public_name_resolves_and_is_public_at_home(name):
    home = importlib.import_module(f"flowdetect.{HOMES[name]}")
    assert getattr(flowdetect, name) is getattr(home, name)
    assert name in getattr(home, "__all__", dir(home))


@pytest.mark.parametrize("name", NAMES)
def test_public_name_is_documented(name):
    value = getattr(flowdetect, name)
    assert value.__doc__
    if inspect.isclass(value):
        methods = [method for method in dir(value) if not method.startswith("_") and callable(getattr(value, method))]
        assert not [method for method in methods if not inspect.getdoc(getattr(value, method))]
        words = re.findall(r"\w+", value.__doc__)
        assert not [parameter for parameter in inspect.signature(value).parameters if parameter not in words]


def test_public_list_is_sorted_and_complete():
    assert flowdetect.__all__ == sorted(flowdetect.__all__)
    assert sorted([*HOMES, "__version__"]) == flowdetect.__all__
    assert dir(flowdetect) == flowdetect.__all__


def test_types_are_declared_for_every_public_name():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    homes = {alias.name: node.module for node in block.body for alias in node.names}
    assert homes == {name: f"flowdetect.{home}" for name, home in HOMES.items()}


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'flowdetect' has no attribute 'NoSuchDensity'"):
        _ = flowdetect.NoSuchDensity


def test_heavy_libraries_are_imported_inside_functions(source):
    roots = {name.partition(".")[0] for name in imported_on_load(ast.parse(source.read_text()))}
    allowed = {"pyod"} if source.relative_to(PACKAGE) == Path("detectors/pyod.py") else set()  # it subclasses
    assert not roots & set(HEAVY) - allowed


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_detectors_do_not_load_what_fits_need():
    loaded = loaded_by("from flowdetect import OODDetector")
    assert "sklearn.base" in loaded
    assert not {"pyod", "torch", "flowdetect.density", "matplotlib", "PIL", "imagecodecs", *LATER} & loaded


def test_densities_do_not_load_what_fits_need():
    loaded = loaded_by("from flowdetect import GlowDensity")
    assert "torch" in loaded
    forbidden = {"pyod", "flowdetect.detectors", "matplotlib", "PIL", "torch._dynamo", "torch._inductor"}
    assert not (forbidden | LATER | set(HEAVY) - {"pandas", "tqdm"}) & loaded  # scikit-learn's and torch's own


def test_nothing_inside_imports_the_package_root(source):
    package = source.relative_to(PACKAGE.parent).parent.parts  # of the file, ("flowdetect", "density")
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            assert all(alias.name != "flowdetect" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            if (*base, *(node.module or "").split(".")) in {("flowdetect",), ("flowdetect", "")}:
                assert {alias.name for alias in node.names} <= MODULES


def test_a_file_is_read_in_one_sitting(source):
    assert len(source.read_text().splitlines()) <= 400

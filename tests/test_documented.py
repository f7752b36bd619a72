"""Every parameter is described, every public name has an example, and the HTML representation links to our pages."""

import inspect
import re
from pathlib import Path

import pytest
from sklearn.externals._numpydoc.docscrape import NumpyDocString  # what the HTML representation reads
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

import flowdetect
from flowdetect import LikelihoodDetector, MAFDensity, Translate, _documented, bijections, evaluation, testing
from flowdetect.detectors import BaseDetector
from flowdetect.explanation import ImageExplanation, TableExplanation

PAGES = "https://example.org/pages"
ESTIMATORS = [name for name in flowdetect.__all__ if hasattr(getattr(flowdetect, name), "get_params")]
ESTIMATORS.remove("FlowOD")  # pyod's kind of estimator, without an HTML representation
PUBLIC = [
    *(getattr(flowdetect, name) for name in flowdetect.__all__ if name != "__version__"),
    *(getattr(module, name) for module in (evaluation, bijections) for name in module.__all__),
    *(ImageExplanation, TableExplanation, testing.check_bijection, testing.check_density, testing.check_detector),
]
API = (Path(__file__).parents[1] / "docs/api.rst").read_text()


def page_of(estimator):
    return estimator._get_doc_link()


@pytest.fixture
def said(monkeypatch):
    monkeypatch.setenv("FLOWDETECT_DOCS", PAGES + "/")


def test_a_representation_links_to_our_page(said):
    html = estimator_html_repr(MAFDensity())
    assert f'href="{PAGES}/generated/flowdetect.MAFDensity.html"' in html
    assert "Documentation for MAFDensity" in html


def test_estimators_within_have_their_own(said):
    html = estimator_html_repr(make_pipeline(Translate(), LikelihoodDetector(GaussianMixture())))
    links = re.findall(r'href="([^"#]+)"', html)
    assert f"{PAGES}/generated/flowdetect.Translate.html" in links
    assert f"{PAGES}/generated/flowdetect.LikelihoodDetector.html" in links
    assert any("sklearn.mixture.GaussianMixture" in link for link in links)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_each_link_is_to_a_page_that_the_documentation_makes(name, said):
    estimator = object.__new__(getattr(flowdetect, name))
    assert page_of(estimator) == f"{PAGES}/generated/flowdetect.{name}.html"
    assert re.search(rf"^   {name}$", API, re.MULTILINE)


def test_without_an_address_there_is_no_link(monkeypatch):
    monkeypatch.delenv("FLOWDETECT_DOCS", raising=False)
    monkeypatch.setattr(_documented, "metadata", lambda name: _Metadata([]))
    assert page_of(MAFDensity()) == ""
    assert "Documentation for MAFDensity" not in estimator_html_repr(MAFDensity())


class _Metadata:
    def __init__(self, urls):
        self.urls = urls

    def get_all(self, name):
        return {"Project-URL": self.urls}[name]


def test_the_address_is_that_of_the_metadata(monkeypatch):
    monkeypatch.delenv("FLOWDETECT_DOCS", raising=False)
    monkeypatch.setattr(_documented, "metadata", lambda name: _Metadata(["Source, s", f"Documentation, {PAGES}/"]))
    assert page_of(MAFDensity()).startswith(f"{PAGES}/generated/")


def test_it_may_be_a_folder_that_one_has_built(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOWDETECT_DOCS", str(tmp_path))
    assert page_of(MAFDensity()) == f"{tmp_path.as_uri()}/generated/flowdetect.MAFDensity.html"


def test_classes_of_others_and_bases_have_none(said):
    class Own(BaseDetector):
        pass

    assert page_of(Own(GaussianMixture())) == ""
    assert page_of(BaseDetector(GaussianMixture())) == ""


@pytest.mark.parametrize("name", [*ESTIMATORS, "FlowOD"])
def test_each_parameter_is_described(name):
    estimator = getattr(flowdetect, name)
    described = NumpyDocString(inspect.getdoc(estimator))["Parameters"]
    texts = {one: entry.desc or entry.type for entry in described for one in entry.name.split(", ")}
    assert list(filter(texts.get, inspect.signature(estimator).parameters)) == list(
        inspect.signature(estimator).parameters
    )
    assert set(texts) == set(inspect.signature(estimator).parameters)


def test_a_parameter_without_a_description_has_that_of_the_base():
    class Base(_documented.Documented):
        """One.

        Parameters
        ----------
        a : int
            Of the base.
        b, c : int
            Shared.
        """

        def __init__(self, a, b, c):
            pass

    class Derived(Base):
        """Two.

        Parameters
        ----------
        a : int, default 3
        d : int
            Of its own.

        All other parameters are those of `Base`.

        Notes
        -----
        A note.
        """

        def __init__(self, a, b, c, d):
            pass

    lines = ["a : int, default 3", "    Of the base.", "d : int", "    Of its own.", "b, c : int", "    Shared."]
    assert Derived.__doc__.splitlines()[4:] == [*lines, "", "Notes", "-----", "A note."]


@pytest.mark.parametrize("value", PUBLIC, ids=lambda value: value.__name__)
def test_each_public_name_has_an_example_and_a_page(value):
    examples = NumpyDocString(inspect.getdoc(value))["Examples"]
    assert any(line.startswith(">>> ") for line in examples)
    assert re.search(rf"^   (\w+\.)*{value.__name__}$", API, re.MULTILINE)  # and a page


def test_a_docstring_without_parameters_keeps_its_prose():
    described = _documented.completed(
        "One.\n\nTwo.\n\nNotes\n-----\nThree.", ["a"], ["Parameters\n----------\na : int"]
    )
    assert described == "One.\n\nTwo.\n\nParameters\n----------\na : int\n\nNotes\n-----\nThree."

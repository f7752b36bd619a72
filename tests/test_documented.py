"""The HTML representation links to our own pages, wherever they are said to be, and nowhere otherwise."""

import re
from pathlib import Path

import pytest
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

import flowdetect
from flowdetect import LikelihoodDetector, MAFDensity, Translate, _documented
from flowdetect.detectors import BaseDetector

PAGES = "https://example.org/pages"
ESTIMATORS = [name for name in flowdetect.__all__ if hasattr(getattr(flowdetect, name), "get_params")]
ESTIMATORS.remove("FlowOD")  # pyod's kind of estimator, described within a page
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

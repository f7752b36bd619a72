"""The helper for old names, on a class of this file: no class of flowdetect has an old name now."""

import ast
import warnings
from pathlib import Path

import numpy as np
import pytest
from packaging.version import Version
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import flowdetect
from flowdetect._deprecation import DEPRECATED, renamed_parameter, warn_renamed

X = np.random.default_rng(0).normal(size=(30, 2))


class Renamed(BaseEstimator):
    def __init__(self, n_steps=8, n_flows=DEPRECATED):
        self.n_steps = n_steps
        self.n_flows = n_flows

    def fit(self, X, y=None):
        self.n_steps_ = renamed_parameter(self, "n_flows", "n_steps", since="0.3", removed_in="0.4")
        return self

    def directions(self):
        return self.n_steps_

    def ways(self):
        warn_renamed("Renamed.ways", "Renamed.directions", since="0.3", removed_in="0.4")
        return self.directions()

    def score(self, X, y=None):
        return -self.n_steps_


SAID = (
    r"^Renamed\(n_flows=...\) is deprecated since 0.3 and is removed in 0.4; use n_steps={} instead.$",
    r"^Renamed.ways is deprecated since 0.3 and is removed in 0.4; use Renamed.directions instead.$",
)


def test_the_new_name_is_silent():
    assert Renamed(n_steps=3).fit(X).directions() == 3
    assert clone(Renamed()).fit(X).n_steps_ == 8


@pytest.mark.parametrize("value", [3, None, 8, "uniform"])
def test_the_old_name_works_and_says_what_to_write(value):
    estimator = Renamed(n_flows=value)
    for fitted in (estimator, clone(estimator), Renamed().set_params(n_flows=value)):
        assert fitted.get_params() == {"n_steps": 8, "n_flows": value}
        with pytest.warns(FutureWarning, match=SAID[0].format(repr(value))):
            fitted.fit(X)
        assert fitted.n_steps_ == value
        assert fitted.get_params() == {"n_steps": 8, "n_flows": value}  # fit changes no parameter


def test_the_old_method_works_and_says_what_to_call():
    fitted = Renamed(n_steps=3).fit(X)
    with pytest.warns(FutureWarning, match=SAID[1]):
        assert fitted.ways() == 3


def test_both_names_are_refused():
    with pytest.raises(ValueError, match="or its old name n_flows, not both, got n_steps=2 and n_flows=3; use n_steps"):
        Renamed(n_steps=2, n_flows=3).fit(X)


def test_searches_and_pipelines_take_both():
    for name in ("n_steps", "n_flows"):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            search = GridSearchCV(Renamed(), {name: [2, 3]}, cv=2).fit(X)
            make_pipeline(StandardScaler(), Renamed(**{name: 3})).fit(X)
        assert search.best_params_ == {name: 2}
        assert {warning.category for warning in heard} == ({FutureWarning} if name == "n_flows" else set())
        assert {warning.filename for warning in heard} <= {__file__}


def test_the_warning_points_at_the_users_line():
    inside = {"__name__": "flowdetect.renamed", "warn_renamed": warn_renamed}
    exec(
        compile("def ways(): warn_renamed('ways', 'directions', since='0.3', removed_in='0.4')", "ours", "exec"), inside
    )
    with pytest.warns(FutureWarning) as heard:
        inside["ways"]()
    assert [warning.filename for warning in heard] == [__file__]


def outlived(source, version):
    """Versions in which old names of a source should have been removed by now."""
    removals = [
        keyword.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "removed_in" and isinstance(keyword.value, ast.Constant)
    ]
    return [removal for removal in removals if Version(removal) <= Version(version)]


def test_no_old_name_outlives_its_version():
    sample = 'warn_renamed("a", "b", since="0.3", removed_in="0.4")'
    assert outlived(sample, "0.3.1") == []
    assert outlived(sample, "0.4.0") == ["0.4"]
    for path in Path(flowdetect.__file__).parent.rglob("*.py"):
        assert outlived(path.read_text(), flowdetect.__version__) == [], path

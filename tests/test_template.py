"""The template of docs/contributing/index.rst keeps the laws of densities."""

import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from flowdetect.datasets import load_images
from flowdetect.testing import check_density

TEMPLATE = Path(__file__).parent.parent / "docs" / "contributing" / "template_density.py"


@pytest.fixture(scope="module")
def template():
    spec = importlib.util.spec_from_file_location("template_density", TEMPLATE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickles and dataclasses look for a class in its module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", return_X_y=True)


def test_on_a_table(template):
    X = np.random.default_rng(0).normal(size=(60, 5)) * [1, 10, 0.1, 1, 1] + [0, 100, 0, 0, 0]
    check_density(template.MarkovDensity(max_epochs=2, batch_size=16), X)


def test_on_images_in_bins(template, digits):
    check_density(template.MarkovDensity(n_bins=17, max_epochs=2, batch_size=16), digits[0][:80])


def test_by_class(template, digits):
    density = template.MarkovDensity(n_bins=17, conditional=True, max_epochs=2, batch_size=16)
    check_density(density, digits[0][:80], digits[1][:80])


def test_probabilities_of_all_images_sum_to_one(template):
    X = np.random.default_rng(0).integers(0, 3, size=(60, 2, 2))
    density = template.MarkovDensity(n_bins=3, max_epochs=20, batch_size=16, random_state=0).fit(X)
    everything = np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2)
    assert np.exp(density.score_samples(everything)).sum() == pytest.approx(1, abs=1e-5)


def test_it_learns_a_linear_dependence(template):
    rng = np.random.default_rng(0)
    a = rng.logistic(size=2000)
    X = np.stack([a, 2 * a + 0.1 * rng.logistic(size=2000)], axis=1)
    density = template.MarkovDensity(max_epochs=60, learning_rate=0.05, random_state=0).fit(X)
    assert density.score(X) == pytest.approx(-2 - 2 + np.log(10), abs=0.05)  # the entropy of a logistic is 2 + log s

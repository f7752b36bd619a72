import numpy as np
import pytest
import torch

from flowdetect import RealNVPDensity
from flowdetect._threads import torch_threads
from flowdetect.density import _small_steps
from flowdetect.density.flow import FlowModel

X = np.random.default_rng(0).normal(size=(64, 3))


@pytest.fixture
def threads(monkeypatch):
    """The numbers of threads that steps are computed with."""
    found, begin = set(), FlowModel.begin_step

    def begin_step(self, seed, progress):
        found.add(torch.get_num_threads())
        begin(self, seed, progress)

    monkeypatch.setattr(FlowModel, "begin_step", begin_step)
    return found


def density():
    return RealNVPDensity(n_steps=2, hidden_channels=8, batch_size=32, max_epochs=2, random_state=0)


def test_small_steps_are_computed_with_one_thread_and_others_with_all(threads, monkeypatch):
    with torch_threads(2):
        density().fit(X)
        assert threads == {1}
        assert torch.get_num_threads() == 2
        threads.clear()
        monkeypatch.setattr(_small_steps, "SMALL", 0)
        density().fit(X)
        assert threads == {2}


def test_the_threads_come_back_after_a_failure(monkeypatch):
    def fails(self, seed, progress):
        raise RuntimeError("no step")

    monkeypatch.setattr(FlowModel, "begin_step", fails)
    with torch_threads(2):
        with pytest.raises(RuntimeError, match="no step"):
            density().fit(X)
        assert torch.get_num_threads() == 2


def test_small_trainings_do_not_depend_on_the_number_of_threads():
    found = []
    for n in (1, 2):
        with torch_threads(n):
            found.append(density().fit(X).score_samples(X))
    np.testing.assert_array_equal(*found)

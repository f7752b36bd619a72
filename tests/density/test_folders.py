"""A folder as checkpoint: every training has a file of its own in it."""

import threading

import numpy as np
import pytest
from sklearn.base import clone

from flowdetect import EnsembleDensity, GlowDensity, RealNVPDensity
from flowdetect._files import Lock
from flowdetect.density import _training, base

X = np.random.default_rng(0).normal(size=(60, 4))


def flow(**parameters):
    return GlowDensity(**{"n_steps": 1, "hidden_channels": 4, "max_epochs": 1, "random_state": 0, **parameters})


@pytest.fixture
def steps(monkeypatch):
    """Collect the numbers of all steps."""
    taken = []
    step = _training.Training._step

    def counted(self, *arguments):
        taken.append(self.step)
        return step(self, *arguments)

    monkeypatch.setattr(_training.Training, "_step", counted)
    return taken


def names_in(folder):
    return sorted(path.name for path in folder.glob("*.checkpoint"))


def test_each_training_has_its_file(steps, tmp_path):
    others = [
        flow(),
        flow(random_state=1),
        flow(max_epochs=2),
        flow(hidden_channels=5),
        flow(random_state=None),
        flow(random_state=np.random.RandomState(0)),
        flow(random_state=np.random.RandomState(1)),
    ]
    fitted = [each.set_params(checkpoint=tmp_path).fit(X) for each in others]
    assert len(names_in(tmp_path)) == len(others)
    assert all(name.startswith("GlowDensity-") for name in names_in(tmp_path))
    others[0].set_params(device="cpu", verbose=0, checkpoint=str(tmp_path)).fit(X)
    assert len(names_in(tmp_path)) == len(others)
    flow(checkpoint=tmp_path).fit(X + 1)
    flow(checkpoint=tmp_path, conditional=True).fit(X, np.arange(60) % 2)
    assert len(names_in(tmp_path)) == len(others) + 2
    steps.clear()
    again = flow(checkpoint=tmp_path, random_state=None).fit(X)
    assert steps == []
    np.testing.assert_array_equal(again.score_samples(X), fitted[4].score_samples(X))
    plain = flow(random_state=np.random.RandomState(1)).fit(X)
    np.testing.assert_array_equal(plain.score_samples(X), fitted[6].score_samples(X))


def test_stages_have_theirs(tmp_path):
    density = RealNVPDensity(n_blocks=1, hidden_channels=4, max_epochs=2, factorization="likelihood", random_state=0)
    images = np.random.default_rng(0).integers(0, 4, (60, 4, 4))
    density.set_params(n_bins=4, checkpoint=tmp_path).fit(images)
    assert [name.split("-")[0] for name in names_in(tmp_path)] == ["RealNVPDensity"] * 2
    assert sum(name.endswith(".pretraining.checkpoint") for name in names_in(tmp_path)) == 1


def test_a_separator_makes_a_folder_and_none_a_file(tmp_path):
    flow(checkpoint=f"{tmp_path}/new/").fit(X)
    assert len(names_in(tmp_path / "new")) == 1
    flow(checkpoint=tmp_path / "file").fit(X)
    assert (tmp_path / "file").is_file()
    with pytest.raises(OSError, match="none/new' cannot be written: its folder does not exist or is not writable"):
        flow(checkpoint=f"{tmp_path}/none/new/").fit(X)
    with pytest.raises(ValueError, match="must be a folder here, but .*file' is a file"):
        flow(checkpoint=f"{tmp_path}/file/").fit(X)


def test_a_second_process_waits_for_the_same_training(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "BETWEEN_TRIES", 0.01)
    first = flow(checkpoint=tmp_path).fit(X)
    steps.clear()
    lock = Lock(tmp_path / names_in(tmp_path)[0], "checkpoint")
    lock.acquire()
    timer = threading.Timer(0.3, lock.release)
    timer.start()
    second = clone(first).fit(X)
    timer.join()
    assert steps == []
    np.testing.assert_array_equal(second.score_samples(X), first.score_samples(X))


def test_waiting_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "BETWEEN_TRIES", 0.01)
    monkeypatch.setattr(base, "QUIET_SECONDS", 0.05)
    first = flow(checkpoint=tmp_path).fit(X)
    lock = Lock(tmp_path / names_in(tmp_path)[0], "checkpoint")
    lock.acquire()
    timer = threading.Timer(0.3, lock.release)
    timer.start()
    with pytest.warns(UserWarning, match="is in use: another process runs the same training, and this fit waits"):
        clone(first).fit(X)
    timer.join()


class Rows:
    """A map-style dataset."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], 0


def test_an_ensemble_of_a_dataset_goes_on(steps, tmp_path):
    ensemble = EnsembleDensity(flow(checkpoint=tmp_path, random_state=None), 2)
    first = clone(ensemble).fit(Rows())
    steps.clear()
    second = clone(ensemble).fit(Rows())
    assert steps == []
    np.testing.assert_array_equal(second.score_samples(X), first.score_samples(X))

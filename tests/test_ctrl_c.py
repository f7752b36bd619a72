"""Ctrl-C: it waits for imports and for the end of a step, reaches its handler, and leaves nothing by half."""

import importlib.util
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from flowdetect import EnsembleDensity, LikelihoodDetector, NeighborsDensity, RealNVPDensity
from flowdetect._ctrl_c import CtrlC, whole_imports
from flowdetect._fitting import all_or_nothing
from flowdetect.density._training import Training

X = np.random.default_rng(0).normal(size=(60, 3))
STEP = Training._step


def density(**changes):
    return RealNVPDensity(n_steps=1, n_blocks=1, hidden_channels=8, max_epochs=4, random_state=0).set_params(**changes)


def press(times=1):
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def pressed_at_step_2(monkeypatch):
    """Press Ctrl-C so many times within the second step of a training."""

    def plan(times):
        def step(self, *args):
            if self.step == 1:
                press(times)
            return STEP(self, *args)

        monkeypatch.setattr(Training, "_step", step)

    return plan


@pytest.fixture
def handler():
    """Install a handler for the length of a test."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda new: signal.signal(signal.SIGINT, new)
    signal.signal(signal.SIGINT, before)


def test_once_ends_training_after_the_step_and_keeps_the_weights(pressed_at_step_2):
    pressed_at_step_2(1)
    fitted = density()
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(X)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert np.isfinite(fitted.score_samples(X)).all()
    assert fitted.n_iter_ < 4


@pytest.mark.parametrize("make", [density, lambda: LikelihoodDetector(density(), random_state=0)])
def test_twice_leaves_the_estimator_as_it_was(make, pressed_at_step_2):
    new, old = make(), make().fit(X)
    scores, before = old.score_samples(X), set(vars(new))
    pressed_at_step_2(2)
    for estimator in (new, old):
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(X + 1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert set(vars(new)) == before
    np.testing.assert_array_equal(old.score_samples(X), scores)


def test_after_the_last_step_it_is_not_lost(monkeypatch):
    end_epoch = Training._end_epoch
    monkeypatch.setattr(Training, "_end_epoch", lambda self, seconds: end_epoch(self, seconds) or press())
    fitted = density(max_epochs=1)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(X)
    assert fitted.n_iter_ == 1
    held = CtrlC()
    with held:
        press()
    assert isinstance(held.outcome(), KeyboardInterrupt)
    assert held.outcome() is None


def test_a_handler_that_raises_nothing_is_called_and_training_goes_on(pressed_at_step_2, handler):
    calls = []

    def count(number, frame):
        calls.append(number)

    handler(count)
    pressed_at_step_2(1)
    fitted = density().fit(X)
    assert calls == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is count
    assert fitted.n_iter_ == 4


def test_what_a_handler_raises_ends_training_and_goes_on(pressed_at_step_2, handler):
    class ShutDown(Exception):
        pass

    def shut_down(number, frame):
        raise ShutDown

    handler(shut_down)
    pressed_at_step_2(1)
    fitted = density()
    with pytest.raises(ShutDown):
        fitted.fit(X)
    assert signal.getsignal(signal.SIGINT) is shut_down
    assert np.isfinite(fitted.score_samples(X)).all()


def test_where_it_is_ignored_it_stays_so(pressed_at_step_2, handler):
    handler(signal.SIG_IGN)
    pressed_at_step_2(2)
    assert density().fit(X).n_iter_ == 4
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_handler_not_set_from_python_is_left_alone(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda number, action: pytest.fail("a handler was installed"))
    assert density().fit(X).n_iter_ == 4


def test_another_thread_installs_no_handler():
    found, steps = [], []

    def fit():
        step = Training._step
        try:
            Training._step = lambda self, *a: steps.append(signal.getsignal(signal.SIGINT)) or STEP(self, *a)
            found.append(density().fit(X).n_iter_)
        finally:
            Training._step = step

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert found == [4]
    assert set(steps) == {signal.default_int_handler}


@pytest.mark.parametrize("times", [1, 3])
def test_an_import_is_whole_before_it_goes_on(times, tmp_path, monkeypatch):
    name = f"heavy_library_{times}"
    code = f"import signal\nfor _ in range({times}):\n    signal.raise_signal(signal.SIGINT)\nwhole = True\n"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt), whole_imports(), whole_imports():
        importlib.import_module(name)
    assert sys.modules.pop(name).whole
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_import_that_fails_says_so_and_puts_the_handler_back():
    with pytest.raises(ModuleNotFoundError), whole_imports():
        importlib.import_module("no_such_library")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


IMPORTS = """
import signal, sys, tempfile, warnings
import numpy as np
import flowdetect
warnings.simplefilter("ignore")
X = np.random.default_rng(0).normal(size=(60, 3))
images = flowdetect.load_images("digits")[0][:60]
open_to_ctrl_c = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            open_to_ctrl_c.append(name)
sys.meta_path.insert(0, Finder())
small = {"Glow": {"n_steps": 1}, "RealNVP": {"n_steps": 1, "n_blocks": 1}, "MAF": {"n_transforms": 1}}
small = {**small, "VAE": {}, "PixelCNN": {"n_filters": 4}}
for name, sizes in small.items():
    density = getattr(flowdetect, name + "Density")(max_epochs=1, n_bins=17, **sizes).fit(images)
    density.sample(2), density.score_samples(images[:2])
flowdetect.ComplexityDetector(density).fit(images).predict(images)
maf = flowdetect.MAFDensity(max_epochs=1, n_transforms=1)
flowdetect.NeighborsDensity().fit(X).score_samples(X)
flowdetect.EnsembleDensity(maf, 2).fit(X).score_samples(X)
for detector in (flowdetect.OODDetector(), flowdetect.LikelihoodRatioDetector(maf)):
    detector.fit(X).predict(X)
with tempfile.TemporaryDirectory() as folder:
    detector.save(folder + "/file")
    flowdetect.load(folder + "/file").predict(X)
print(sorted(set(open_to_ctrl_c)))
"""


def test_nothing_is_imported_that_ctrl_c_could_leave_by_half():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("make", [NeighborsDensity, lambda: EnsembleDensity(density(), n_members=1)])
def test_no_fit_is_taken_over_by_half(make, monkeypatch):
    """Stop a fit at each attribute that it sets: nothing of it is seen, since it works on a twin."""
    new, old = make(), make().fit(X)
    scores = old.score_samples(X)
    learned = set(vars(old)) - set(vars(new))
    assert learned
    for name in learned:

        def stop(self, key, value, name=name):
            if key == name:
                raise KeyboardInterrupt
            object.__setattr__(self, key, value)

        with monkeypatch.context() as patch:
            patch.setattr(type(old), "__setattr__", stop)
            for estimator in (new, old):
                with pytest.raises(KeyboardInterrupt):
                    estimator.fit(X + 1)
        assert not set(vars(new)) & learned
        np.testing.assert_array_equal(old.score_samples(X), scores)


def test_a_fit_gives_back_the_estimator_itself():
    class Learner:
        @all_or_nothing
        def fit(self):
            self.learned_ = 1
            return self

    learner = Learner()
    assert learner.fit() is learner
    assert learner.learned_ == 1


@pytest.mark.parametrize(("word", "phase"), [("ready", "import"), ("fitting", "fit")])
def test_typed_in_a_terminal_the_process_can_fit_again(word, phase):
    """A seeded little version of examples/studies/interrupted.py."""
    path = Path(__file__).parent.parent / "examples" / "studies" / "interrupted.py"
    spec = importlib.util.spec_from_file_location("interrupted", path)
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    found = study.interrupted_at("MAF", "terminal", 0.3, after=word)
    assert "error" not in found, found["error"]
    assert found["interrupted"] == phase, json.dumps(found)
    assert study.wrong(found, "terminal", found["again"]) == ""

"""The life of an estimator, led at random: whatever happens to it, it is what its last fit made of it.

hypothesis draws the order of events. In `make test` the draws are fixed and few; `make test-long`, which sets
FLOWDETECT_LONG=1, draws many, new ones each time.
"""

import copy
import os
import pickle
import shutil
import signal
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import flowdetect
from flowdetect.density import _training

LONG = bool(os.environ.get("FLOWDETECT_LONG"))
SETTINGS = settings(
    max_examples=100 if LONG else 5,
    stateful_step_count=40 if LONG else 15,
    derandomize=not LONG,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
RNG = np.random.default_rng(0)
DATA = [RNG.normal(size=(60, n)) * (n, *(1,) * (n - 1)) for n in (2, 3, 4)]
N_STEPS = 4  # of the shortest training: two epochs of two batches of 16 rows, after a fifth, or more, is held out
CHANGES = st.sampled_from([("learning_rate", 2e-3), ("learning_rate", 5e-3), ("max_epochs", 2), ("max_epochs", 3)])
TINY = {"max_epochs": 2, "batch_size": 16, "learning_rate": 2e-3, "validation_fraction": 0.2}
DENSITIES = {
    "RealNVP": partial(flowdetect.RealNVPDensity, n_steps=1, n_blocks=1, hidden_channels=4, random_state=0, **TINY),
    "MAF": partial(flowdetect.MAFDensity, n_transforms=1, hidden_features=(4,), random_state=0, **TINY),
    "Glow": partial(flowdetect.GlowDensity, n_steps=1, hidden_channels=4, random_state=0, **TINY),
}
STEP = _training.Training._step


class Killed(BaseException):
    """What ends a process where it stands."""


@contextmanager
def at_step(number, event):
    """Let something happen before a step of every training; write checkpoints after each step."""

    def step(self, *args):
        if self.step == number:
            event()
        return STEP(self, *args)

    seconds = _training.CHECKPOINT_SECONDS
    _training.Training._step, _training.CHECKPOINT_SECONDS = step, -1.0
    try:
        yield
    finally:
        _training.Training._step, _training.CHECKPOINT_SECONDS = STEP, seconds


def killed():
    raise Killed


def interrupted():
    signal.raise_signal(signal.SIGINT)


class Life(RuleBasedStateMachine):
    """What may happen to a density; a detector differs by where its training's parameters are."""

    inside = ""  # before the names of what the training takes

    def make(self):
        raise NotImplementedError

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.estimator = self.make()
        self.changed = {}  # parameters that were set
        self.fitted = None  # the data, and the scores of its rows
        self.left = None  # data, parameters and checkpoint of a training that ended early
        self.n_files = 0

    def teardown(self):
        shutil.rmtree(self.folder)

    def named(self, **parameters):
        return {self.inside + name: value for name, value in parameters.items()}

    def undisturbed(self, number, changed):
        """Give the scores of a new estimator that is fitted once, in peace."""
        key = (type(self).__name__, number, tuple(sorted(changed.items())))
        if key not in KNOWN:
            KNOWN[key] = self.make().set_params(**self.named(**changed)).fit(DATA[number]).score_samples(DATA[number])
        return KNOWN[key]

    def remember(self, number):
        self.fitted = (number, self.estimator.score_samples(DATA[number]))

    # ---- what may happen

    @rule(number=st.integers(0, 2))
    def fit(self, number):
        assert self.estimator.fit(DATA[number]) is self.estimator
        self.remember(number)
        np.testing.assert_array_equal(self.fitted[1], self.undisturbed(number, self.changed))

    @rule(change=CHANGES)
    def set_params(self, change):
        self.estimator.set_params(**self.named(**dict([change])))
        self.changed = {**self.changed, **dict([change])}

    @rule(number=st.integers(0, 2), value=st.sampled_from([np.nan, np.inf]))
    def fit_to_what_is_no_data(self, number, value):
        broken = DATA[number].copy()
        broken[3, 1] = value
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            self.estimator.fit(broken)

    @rule(number=st.integers(0, 2), wrong=st.sampled_from([("learning_rate", -1.0), ("max_epochs", 0)]))
    def fit_with_a_wrong_parameter(self, number, wrong):
        name = self.inside + wrong[0]
        right = self.estimator.get_params()[name]
        self.estimator.set_params(**{name: wrong[1]})
        with pytest.raises(ValueError, match=wrong[0]):
            self.estimator.fit(DATA[number])
        self.estimator.set_params(**{name: right})

    @rule(number=st.integers(0, 2), step=st.integers(0, N_STEPS - 1), keeps=st.booleans())
    def fit_and_be_killed(self, number, step, keeps):
        with self.ending_early(number, keeps), at_step(step, killed), pytest.raises(Killed):
            self.estimator.fit(DATA[number])

    @rule(number=st.integers(0, 2), step=st.integers(0, N_STEPS - 1), keeps=st.booleans())
    def fit_and_be_interrupted(self, number, step, keeps):
        before = signal.getsignal(signal.SIGINT)
        with self.ending_early(number, keeps), at_step(step, interrupted), pytest.raises(KeyboardInterrupt):
            self.estimator.fit(DATA[number])
        assert signal.getsignal(signal.SIGINT) is before
        self.remember(number)  # the best weights so far
        assert np.isfinite(self.fitted[1]).all()

    @rule(number=st.integers(0, 2), step=st.integers(0, N_STEPS - 1))
    def fit_and_be_interrupted_twice(self, number, step):
        with at_step(step, lambda: (interrupted(), interrupted())), pytest.raises(KeyboardInterrupt):
            self.estimator.fit(DATA[number])

    @contextmanager
    def ending_early(self, number, keeps):
        """Train with a checkpoint, or without, and remember what is needed to go on."""
        path = self.folder / f"checkpoint{self.n_files}"
        self.n_files += 1
        self.estimator.set_params(**self.named(checkpoint=path if keeps else None))
        yield
        self.estimator.set_params(**self.named(checkpoint=None))
        if keeps:
            self.left = (number, self.changed, path)

    @precondition(lambda self: self.left is not None)
    @rule()
    def resume(self):
        number, changed, path = self.left
        self.left = None
        resumed = self.make().set_params(**self.named(**changed, checkpoint=path)).fit(DATA[number])
        np.testing.assert_array_equal(resumed.score_samples(DATA[number]), self.undisturbed(number, changed))

    @rule(
        way=st.sampled_from(["save", "pickle", "deepcopy"]),
        goes_on=st.booleans(),
    )
    @precondition(lambda self: self.fitted is not None)
    def come_back(self, way, goes_on):
        if way == "save":
            path = self.folder / "saved"
            self.estimator.save(path)
            other = flowdetect.load(path)
        else:
            other = pickle.loads(pickle.dumps(self.estimator)) if way == "pickle" else copy.deepcopy(self.estimator)
        number, scores = self.fitted
        np.testing.assert_array_equal(other.score_samples(DATA[number]), scores)
        if goes_on:
            self.estimator = other

    @rule(goes_on=st.booleans())
    def become_a_clone(self, goes_on):
        other = clone(self.estimator)
        with pytest.raises(NotFittedError):
            other.score_samples(DATA[0])
        if goes_on:
            self.estimator, self.fitted = other, None

    @precondition(lambda self: self.fitted is not None)
    @rule(row=st.integers(0, 59))
    def score_a_row_alone(self, row):
        number, scores = self.fitted
        assert self.estimator.score_samples(DATA[number][row : row + 1])[0] == scores[row]

    # ---- what holds all the time

    @invariant()
    def it_scores_as_its_last_fit_left_it(self):
        if self.fitted is None:
            with pytest.raises(NotFittedError):
                self.estimator.score_samples(DATA[0])
        else:
            number, scores = self.fitted
            np.testing.assert_array_equal(self.estimator.score_samples(DATA[number]), scores)

    @invariant()
    def its_parameters_are_those_that_were_set(self):
        found, expected = self.estimator.get_params(), self.make().set_params(**self.named(**self.changed)).get_params()
        assert {name: value for name, value in found.items() if name != "density"} == {
            name: value for name, value in expected.items() if name != "density"
        }


KNOWN = {}  # scores of fits in peace


def detector():
    return flowdetect.LikelihoodDetector(DENSITIES["MAF"](random_state=None), random_state=0)


@pytest.mark.parametrize("name", DENSITIES)
def test_life_of_a_density(name):
    life = type(name, (Life,), {"make": staticmethod(DENSITIES[name])})
    run_state_machine_as_test(life, settings=SETTINGS)


def test_life_of_a_detector():
    life = type("LikelihoodDetector", (Life,), {"make": staticmethod(detector), "inside": "density__"})
    run_state_machine_as_test(life, settings=SETTINGS)

"""time_limit: training ends within it, its schedule ended; killed and started again, it follows the same plan."""

import math
import time

import numpy as np
import pytest
import torch

from flowdetect import GlowDensity, MAFDensity, PixelCNNDensity, RealNVPDensity, _persistence, _tensor_file, load_images
from flowdetect.density import _progress, _time_plan, _training, base
from flowdetect.density._time_plan import TimePlan
from flowdetect.density._training import Training

DIGITS, _ = load_images("digits")
X = DIGITS[:320]  # 304 trained on, 4 batches an epoch
SMALL = {"n_bins": 17, "n_steps": 1, "hidden_channels": 8, "random_state": 0}
LCMA = {"factorization": "likelihood", "n_blocks": 1, "batch_size": 64, **SMALL}
TABLE = np.random.default_rng(0).normal(size=(300, 3))
ENDLESS = 10_000  # epochs
PLANNED = 19  # steps: 4 epochs and 3 steps
STARTING_SECONDS = 3.0  # imports, and a machine that is busy with other things


@pytest.fixture
def results(monkeypatch):
    """What the trainings of a test gave back."""
    found = []
    train = base.train
    monkeypatch.setattr(base, "train", lambda *args: found.append(train(*args)) or found[-1])
    return found


@pytest.fixture
def planned(monkeypatch):
    """Have PLANNED steps planned, after five, whatever the clock says."""
    monkeypatch.setattr(_time_plan, "MEASURED_SHARES", ((0.0, 1.0),))
    plan_steps = TimePlan.plan_steps

    def always_the_same(self, *args):
        plan_steps(self, *args)
        self.n_steps = PLANNED

    monkeypatch.setattr(TimePlan, "plan_steps", always_the_same)


class Clock:
    """A clock that moves as a training steps."""

    def __init__(self, monkeypatch):
        self.now, self.step_seconds = 1000.0, 1.0
        step, clock = Training._step, self

        def timed(self, *args):
            clock.now += clock.step_seconds
            return step(self, *args)

        monkeypatch.setattr(Training, "_step", timed)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def same_weights(a, b):
    ours, theirs = a.model_.state_dict(), b.model_.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def noted_rates(monkeypatch):
    rates = []
    learning_rate = Training._learning_rate
    monkeypatch.setattr(Training, "_learning_rate", lambda self: rates.append(learning_rate(self)) or rates[-1])
    return rates


# ---- the limit


@pytest.mark.parametrize(
    ("density", "data"),
    [
        (GlowDensity(max_epochs=ENDLESS, time_limit=1, **SMALL), X),
        (RealNVPDensity(max_epochs=ENDLESS, time_limit=2.0, **LCMA), X),
        (MAFDensity(max_epochs=ENDLESS, time_limit=1.0, n_iter_no_change=ENDLESS, random_state=0), TABLE),
    ],
    ids=["Glow", "RealNVP in two stages", "MAF on a table"],
)
def test_training_ends_within_the_limit(density, data, results):
    started = time.monotonic()
    density.fit(data)
    assert time.monotonic() - started < 1.5 * density.time_limit + STARTING_SECONDS
    assert {result.reason for result in results} == {"time_limit"}
    assert np.isfinite(density.score_samples(data)).all()
    assert density.n_iter_ == len(density.history_["bits_per_dim"]) == len(density.history_["validation_bits_per_dim"])


def test_the_schedule_is_laid_over_the_steps_that_fit(clock, monkeypatch, results):
    rates = noted_rates(monkeypatch)
    density = GlowDensity(max_epochs=ENDLESS, time_limit=100, **SMALL).fit(X)
    assert len(rates) == 95  # of one second each; the rest is left for slower ones
    assert results[0].reason == "time_limit"
    assert results[0].seconds == 95
    assert density.n_iter_ == math.ceil(95 / 4)
    assert np.argmax(rates) in range(20)
    assert rates[-1] < 1e-3 * density.learning_rate
    assert density.history_["validation_bits_per_dim"][-1] < density.history_["validation_bits_per_dim"][0]


def test_less_than_an_epoch_is_a_training_too(clock, results):
    density = GlowDensity(max_epochs=ENDLESS, time_limit=30, batch_size=4, **SMALL).fit(X)
    assert density.n_iter_ == len(density.history_["validation_bits_per_dim"]) == 1
    assert results[0].seconds == pytest.approx(30, abs=3)
    assert density.history_["bits_per_dim"][0] < 5


def test_max_epochs_that_end_sooner_count(clock, results):
    limited = GlowDensity(max_epochs=8, time_limit=1e6, **SMALL).fit(X)
    assert results[0].reason == "max_epochs"
    assert same_weights(limited, GlowDensity(max_epochs=8, **SMALL).fit(X))


def test_steps_that_get_slower_are_stopped_soon_after_the_limit(clock, monkeypatch, results):
    end_epoch = Training._end_epoch

    def slower(self, seconds):
        clock.step_seconds = 3.0
        end_epoch(self, seconds)

    monkeypatch.setattr(Training, "_end_epoch", slower)
    density = GlowDensity(max_epochs=ENDLESS, time_limit=100, batch_size=8, **SMALL).fit(X)  # 38 batches an epoch
    assert results[0].reason == "time_limit"
    assert 110 < results[0].seconds <= 110 + 3
    assert density.n_iter_ == 2
    assert np.isfinite(density.score_samples(X)).all()


@pytest.mark.parametrize("step_seconds", [20.0, 1000.0])
def test_a_limit_of_few_steps_or_none_is_kept_as_well_as_can_be(clock, step_seconds, results):
    clock.step_seconds = step_seconds
    GlowDensity(max_epochs=ENDLESS, time_limit=100, **SMALL).fit(X)
    assert results[0].seconds == max(80, step_seconds)


def test_the_stages_of_a_likelihood_factorization_share_the_limit(clock, results):
    RealNVPDensity(max_epochs=ENDLESS, time_limit=60, **LCMA).fit(X)
    pretraining, main = results
    assert pretraining.seconds == pytest.approx(14, abs=2)
    assert main.seconds == pytest.approx(57, abs=2)
    assert {pretraining.reason, main.reason} == {"time_limit"}


def test_a_validation_pass_that_takes_too_long_has_fewer_rows(clock):
    def evaluate(n_rows):
        clock.now += n_rows / 64

    plan = TimePlan(60.0, clock.now)
    plan.time_validation(evaluate, 50_000, 64)
    assert plan.n_held_out == 3 * 64  # 5 % of a minute
    plan.time_validation(evaluate, 100, 64)
    assert plan.n_held_out == 100


# ---- killed and started again


class KilledError(Exception):
    pass


def killed_at(monkeypatch, steps):
    """Have trainings die before these steps, each once; a checkpoint is written after every step."""
    left = list(steps)
    step = Training._step

    def mortal(self, *args):
        if left and self.step == left[0]:
            del left[0]
            raise KilledError
        return step(self, *args)

    monkeypatch.setattr(Training, "_step", mortal)
    monkeypatch.setattr(_training, "CHECKPOINT_SECONDS", -1.0)


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize(
    ("density_class", "settings"), [(GlowDensity, SMALL), (RealNVPDensity, LCMA)], ids=["one stage", "two stages"]
)
def test_a_killed_training_follows_the_same_plan(density_class, settings, tmp_path, monkeypatch):
    settings = {"max_epochs": ENDLESS, "time_limit": 1e4, **settings}
    straight = density_class(**settings).fit(X)
    assert straight.n_iter_ == 5
    density = density_class(checkpoint=tmp_path / "training", **settings)
    stages = len(density._stages)
    killed_at(monkeypatch, [6, 11, 18] * stages)
    for _ in range(3 * stages):
        with pytest.raises(KilledError):
            density.fit(X)
    assert same_weights(straight, density.fit(X))
    assert density.history_["validation_bits_per_dim"] == straight.history_["validation_bits_per_dim"]
    monkeypatch.setattr(Training, "_step", None)  # finished: restored, not trained
    assert same_weights(straight, density_class(checkpoint=tmp_path / "training", **settings).fit(X))


def test_seconds_of_earlier_runs_count(clock, tmp_path, monkeypatch, results):
    density = GlowDensity(max_epochs=ENDLESS, time_limit=100, checkpoint=tmp_path / "training", **SMALL)
    killed_at(monkeypatch, [30])
    with pytest.raises(KilledError):
        density.fit(X)
    plan = _tensor_file.read(tmp_path / "training", "checkpoint")[0]["time_plan"]
    assert plan["n_steps"] == 95
    assert plan["seconds"] == 30
    clock.now += 1e6  # between the runs
    density.fit(X)
    assert results[0].seconds == 95


def test_ctrl_c_at_the_last_step_loses_no_epoch(planned, tmp_path, monkeypatch):
    settings = {"max_epochs": ENDLESS, "time_limit": 1e4, **SMALL}
    straight = GlowDensity(**settings).fit(X)
    density = GlowDensity(checkpoint=tmp_path / "training", **settings)
    step = Training._step
    with monkeypatch.context() as patch:
        patch.setattr(
            Training, "_step", lambda self, *a: step(self, *a) or (KeyboardInterrupt() if self.step == 19 else None)
        )
        with pytest.raises(KeyboardInterrupt):
            density.fit(X)
    assert same_weights(straight, density.fit(X))
    assert density.history_["bits_per_dim"] == straight.history_["bits_per_dim"]


def test_another_limit_is_another_training(planned, tmp_path):
    GlowDensity(max_epochs=2, time_limit=1e4, checkpoint=tmp_path / "training", **SMALL).fit(X)
    with pytest.raises(ValueError, match=r"time_limit: 10000\.0 in the file, 5 now"):
        GlowDensity(max_epochs=2, time_limit=5, checkpoint=tmp_path / "training", **SMALL).fit(X)


# ---- errors


@pytest.mark.parametrize("value", [0, -1.5, True, np.True_, "60", math.nan, math.inf, [60]], ids=repr)
def test_what_is_no_limit_is_refused(value, monkeypatch):
    monkeypatch.setattr(Training, "run", None)
    with pytest.raises(ValueError, match=r"time_limit must be a finite number of seconds > 0.*got .*time_limit=600"):
        GlowDensity(time_limit=value).fit(X)


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(1)], ids=repr)
def test_numbers_of_numpy_are_limits(value):
    GlowDensity(max_epochs=1, time_limit=value, **SMALL).fit(X)


# ---- progress


def test_where_stderr_is_no_terminal_there_is_a_line_an_epoch(capsys):
    density = GlowDensity(max_epochs=3, verbose=1, **SMALL)
    density.progress_prefix = "density 1 of 2, "
    density.fit(X)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\r" not in captured.err
    lines = captured.err.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines, 1):
        assert line.startswith(f"density 1 of 2, GlowDensity: epoch {number}/3, step {4 * number}/12, ")
        bits = density.history_["bits_per_dim"][number - 1]
        held_out = density.history_["validation_bits_per_dim"][number - 1]
        assert f"{bits:.4f} bits/dim, held out {held_out:.4f} [" in line
    assert lines[-1].endswith("<00:00]")


def test_a_long_epoch_has_a_line_every_ten_seconds(clock, capsys):
    clock.step_seconds = 4.0
    GlowDensity(max_epochs=1, batch_size=16, verbose=1, early_stopping=False, **SMALL).fit(X)  # 20 steps, 80 s
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 7
    assert "step 3/20" in lines[0]
    assert "[00:12<01:08]" in lines[0]


def test_a_terminal_shows_a_bar_whose_total_is_the_plan(clock, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "redraws", lambda: True)
    GlowDensity(max_epochs=ENDLESS, time_limit=100, verbose=1, **SMALL).fit(X)
    shown = capsys.readouterr().err
    assert "\r" in shown
    assert "bits/dim" in shown
    assert "95/95" in shown


def test_silence_builds_no_bar(capsys, monkeypatch):
    import tqdm.auto

    monkeypatch.setattr(tqdm.auto, "tqdm", None)
    GlowDensity(max_epochs=1, **SMALL).fit(X)
    GlowDensity(max_epochs=1, verbose=1, **SMALL).fit(X)  # lines
    assert capsys.readouterr().err.count("\n") == 1


def test_sampling_that_takes_long_writes_lines(capsys, monkeypatch):
    density = PixelCNNDensity(n_bins=17, n_filters=4, n_blocks=1, max_epochs=1, random_state=0).fit(X[:40])
    density.set_params(verbose=1).sample(2, random_state=0)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(_progress, "LINE_SECONDS", 0.0)
    density.sample(2, random_state=0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 64
    assert lines[-1].startswith("sampling: pixel 64/64 [")


def test_the_prefix_is_no_parameter_and_survives_a_file(tmp_path):
    density = GlowDensity(max_epochs=1, **SMALL)
    density.progress_prefix = "density, "
    density.fit(X).save(tmp_path / "density")
    assert "progress_prefix" not in density.get_params()
    np.testing.assert_array_equal(_persistence.load(tmp_path / "density").score_samples(X), density.score_samples(X))

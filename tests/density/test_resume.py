"""Killed trainings: started again, they end bit for bit where an uninterrupted one does."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from flowdetect import GlowDensity, PixelCNNDensity, RealNVPDensity, load_images
from flowdetect.density import _training
from flowdetect.density.base import BaseDensity

SHARED = {"n_bins": 17, "max_epochs": 8, "batch_size": 64, "random_state": 0}
SETTINGS = {"n_steps": 1, "hidden_channels": 8, **SHARED}
PRETRAINED = {"factorization": "likelihood", "n_blocks": 1, **SETTINGS}  # 8 of the 32 steps, 2 of the 8 epochs
WITH_DROPOUT = {"variant": "pixelcnn++", "n_filters": 4, "n_blocks": 1, "dropout": 0.5, **SHARED}
N_ROWS = 320
STEPS = 8 * (304 // 64)  # 304 of 320 rows are trained on
INTERVAL = 2  # steps between checkpoints within an epoch, forced by a clock that runs fast

CHILD = """
import os, signal, sys, torch
from flowdetect import GlowDensity, PixelCNNDensity, RealNVPDensity, load_images
from flowdetect.density import _training
path, kind, at, log = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
settings = {settings}
torch.set_num_threads(1)
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
step = _training.Training._step
def counted(self, *args):
    failure = step(self, *args)
    with open(log, "a") as file:
        file.write(f"{{self.step}}\\n")
    if self.step % {interval} == 0:
        _training.CHECKPOINT_SECONDS = -1.0
    else:
        _training.CHECKPOINT_SECONDS = 1e9
    if kind == "step" and self.step == at:
        die()
    return failure
_training.Training._step = counted
fsync = os.fsync
writes = [0]
def torn(fd):
    writes[0] += 1
    if kind == "write" and writes[0] == at:
        os.ftruncate(fd, os.fstat(fd).st_size // 2)
        die()
    fsync(fd)
os.fsync = torn
X, _ = load_images("digits")
{name}(checkpoint=path, **settings).fit(X[:{rows}])
"""


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run_child(density: BaseDensity, settings: dict[str, object], *args: str) -> int:
    script = CHILD.format(name=type(density).__name__, settings=settings, rows=N_ROWS, interval=INTERVAL)
    done = subprocess.run(
        [sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def same_weights(a: BaseDensity, b: BaseDensity) -> bool:
    ours, theirs = a.model_.state_dict(), b.model_.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("density_class", "settings", "steps"),
    [
        (GlowDensity, SETTINGS, [2, 6, 10, 14, 18, 22, 26, 30]),
        (PixelCNNDensity, WITH_DROPOUT, [2, 30]),
        (RealNVPDensity, PRETRAINED, [3, 6, 11, 21]),
    ],
    ids=["glow", "pixelcnn++ with dropout", "realnvp, twice within the pre-training"],
)
def test_a_training_killed_many_times_ends_where_an_uninterrupted_one_does(
    density_class: type[BaseDensity], settings: dict[str, object], steps: list[int], tmp_path: Path
) -> None:
    X, _ = load_images("digits")
    straight = density_class(**settings).fit(X[:N_ROWS])
    path, log = str(tmp_path / "training.ckpt"), str(tmp_path / "steps")
    kills = [("step", step) for step in steps]
    kills.insert(1, ("write", 2))
    kills.insert(len(kills) // 2 + 1, ("write", 1))
    for kind, at in kills:
        assert run_child(straight, settings, path, kind, str(at), log) == -signal.SIGKILL
    assert run_child(straight, settings, path, "none", "0", log) == 0
    done = [int(line) for line in Path(log).read_text().split()]
    assert len(done) <= STEPS + len(kills) * INTERVAL
    resumed = density_class(checkpoint=path, **settings).fit(X[:N_ROWS])  # finished: restored, not trained
    assert same_weights(straight, resumed)
    assert resumed.n_iter_ == straight.n_iter_
    np.testing.assert_array_equal(resumed.score_samples(X), straight.score_samples(X))


@pytest.mark.usefixtures("one_thread")
def test_finished_training_is_restored_without_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = load_images("digits")
    path = tmp_path / "training.ckpt"
    first = GlowDensity(checkpoint=path, **SETTINGS).fit(X[:N_ROWS])

    def no_step(*args: object) -> None:
        raise AssertionError("a finished training was trained again")

    monkeypatch.setattr(_training.Training, "_step", no_step)
    again = GlowDensity(checkpoint=path, **{**SETTINGS, "verbose": 0}).fit(X[:N_ROWS])
    assert same_weights(first, again)
    assert first.history_["bits_per_dim"] == again.history_["bits_per_dim"]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("memory_efficient", [False, True])
def test_ctrl_c_keeps_the_best_weights_and_a_second_fit_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_efficient: bool
) -> None:
    X, _ = load_images("digits")
    settings = {**SETTINGS, "memory_efficient": memory_efficient}
    straight = GlowDensity(**settings).fit(X[:N_ROWS])
    step = _training.Training._step

    def interrupted(self: _training.Training, *args: object) -> BaseException | None:
        if self.step == STEPS // 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    path = tmp_path / "training.ckpt"
    density = GlowDensity(checkpoint=path, **settings)
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(_training.Training, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            density.fit(X[:N_ROWS])
    assert signal.getsignal(signal.SIGINT) is before
    assert np.isfinite(density.score_samples(X)).all()
    best = min(density.history_["validation_bits_per_dim"])
    assert density.history_["validation_bits_per_dim"][-1] >= best
    assert same_weights(straight, density.fit(X[:N_ROWS]))


def test_a_run_of_non_finite_steps_names_the_layer_and_keeps_the_best_weights() -> None:
    X, _ = load_images("digits")
    density = GlowDensity(**{**SETTINGS, "max_epochs": 30})
    step = _training.Training._step

    def poisoned(self: _training.Training, *args: object) -> BaseException | None:
        if self.step == STEPS // 2:
            with torch.no_grad():
                self.model.flow.levels[0].bijections[2].net.biases[0].fill_(float("nan"))
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_training.Training, "_step", poisoned)
        with pytest.raises(FloatingPointError, match=r"levels\.0.*biases\.0.*learning_rate"):
            density.fit(X[:N_ROWS])
    assert np.isfinite(density.score_samples(X)).all()


def test_a_single_non_finite_step_is_skipped_and_counted() -> None:
    X, _ = load_images("digits")
    density = GlowDensity(**SETTINGS)
    batch = _training.Training._batch

    def broken(self: _training.Training, *args: object) -> tuple[torch.Tensor | None, ...]:
        x, context, noise = batch(self, *args)
        return (x * float("nan") if self.step == 3 else x), context, noise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_training.Training, "_batch", broken)
        density.fit(X[:N_ROWS])
    assert density.history_["skipped_steps"][-1] == 1
    assert np.isfinite(density.history_["bits_per_dim"]).all()


def test_warm_start_goes_on_from_the_present_weights() -> None:
    X, _ = load_images("digits")
    density = GlowDensity(**{**SETTINGS, "warm_start": True, "early_stopping": False}).fit(X[:N_ROWS])
    first = density.history_["bits_per_dim"]
    second = density.fit(X[:N_ROWS]).history_["bits_per_dim"]
    assert second[0] < first[0]


def test_verbose_shows_bits_and_time_left_and_zero_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    X, _ = load_images("digits")
    settings = {**SETTINGS, "max_epochs": 1}
    GlowDensity(**settings).fit(X[:N_ROWS])
    quiet = capsys.readouterr()
    assert quiet.out + quiet.err == ""
    GlowDensity(**settings, **{"verbose": 1}).fit(X[:N_ROWS])
    shown = capsys.readouterr().err
    assert "bits/dim" in shown
    assert "<" in shown  # elapsed<left


def test_a_history_with_nan_is_gone_on_from(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(200, 3)) * 1e-9
    X[17] = 1e30  # held out
    settings = {"n_steps": 1, "n_blocks": 1, "hidden_channels": 4, "random_state": 2, "checkpoint": tmp_path / "file"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = RealNVPDensity(max_epochs=1, **settings).fit(X)
        second = RealNVPDensity(max_epochs=2, **settings).fit(X)
    assert not np.isfinite(first.history_["validation_bits_per_dim"]).all()
    assert len(second.history_["bits_per_dim"]) == 2

"""n_devices=2: one model however the processes are started; they end with each other, and with the caller."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from shared_training import ENVIRONMENT, HEAD, N_ROWS, SECONDS, SETTINGS, run
from torch import distributed

from flowdetect import GlowDensity, load_images
from flowdetect.density import _launched as launching
from flowdetect.density import _ranks, _training

# none of the scripts has a main guard
ENDED = """
path = Path(sys.argv[1])
density = GlowDensity(n_devices=2, verbose=1, checkpoint=path, random_state=0, **{**settings, "max_epochs": 10_000})
start = _ranks.subprocess.Popen
def started(*args, **kwargs):
    process = start(*args, **kwargs)
    ranks.append(process)
    return process
_ranks.subprocess.Popen = started
def after_an_epoch(action):
    def act():
        before = path.read_bytes() if path.exists() else b""
        while not path.exists() or path.read_bytes() == before:
            time.sleep(0.02)
        global since
        since = time.monotonic()
        action()
    threading.Thread(target=act).start()
def fit(error):
    try:
        density.fit(X)
    except error as caught:
        seconds, left = time.monotonic() - since, [process.pid for process in ranks if process.poll() is None]
        return {"text": str(caught), "seconds": seconds, "left": left}
ranks = []
after_an_epoch(lambda: ranks[1].kill())
killed = fit(RuntimeError)
killed["is_fitted"] = hasattr(density, "model_")
print("now interrupted", file=sys.stderr, flush=True)
ranks = []
after_an_epoch(lambda: os.killpg(0, signal.SIGINT))  # as a terminal does
interrupted = fit(KeyboardInterrupt)
interrupted.update(told(density), lengths=[len(values) for values in density.history_.values()])
print(json.dumps([killed, interrupted]))
"""

CALLER = """
import sys, time
from pathlib import Path
from flowdetect.density import _ranks
def spin(processes, path):
    while True:
        path.with_name(f"rank{processes.rank}").write_text(f"{time.time()}")
        time.sleep(0.01)
_ranks.run_in_processes("spin", spin, (Path(sys.argv[1]) / "rank",), "cpu", 2)
"""


# ---- one model


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_share_the_batch_of_one(rank, monkeypatch):
    X, _ = load_images("digits")
    shares = []
    batch = _training.Training._batch

    def compare(self, order, *place):
        whole = batch(self, order, 0, 1)
        share = batch(self, order, rank, 2)
        shares.append([torch.equal(whole[i][rank::2], share[i]) for i in (0, 2)])
        return whole

    monkeypatch.setattr(_training.Training, "_batch", compare)
    GlowDensity(**{**SETTINGS, "max_epochs": 1}).fit(X[:N_ROWS])
    assert shares
    assert all(all(pair) for pair in shares)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_the_model_of_one():
    X, _ = load_images("digits")
    settings = {**SETTINGS, "device": "cuda", "precision": "float32", "random_state": 0}
    one, two = (GlowDensity(n_devices=n, **settings).fit(X[:N_ROWS]) for n in (1, 2))
    assert abs(two.bits_per_dim(X).mean() - one.bits_per_dim(X).mean()) < 0.01


# ---- processes that end


@pytest.mark.slow
def test_a_killed_process_is_named_and_ctrl_c_keeps_what_there_is(tmp_path):
    done = run(HEAD + ENDED, tmp_path / "checkpoint", start_new_session=True)
    killed, interrupted = json.loads(done.stdout)
    assert "process 1 of 0..1 was killed by SIGKILL" in killed["text"]
    assert killed["seconds"] < 10
    assert not killed["is_fitted"]
    assert interrupted["seconds"] < 10
    assert killed["left"] == interrupted["left"] == []
    first, second = done.stderr.split("now interrupted")
    n_epochs = interrupted["lengths"][0]
    assert set(interrupted["lengths"]) == {n_epochs}
    last_of_first = max(int(line.split("epoch ")[1].split("/")[0]) for line in first.splitlines() if "epoch" in line)
    resumed = [int(line.split("epoch ")[1].split("/")[0]) for line in second.splitlines() if "epoch" in line]
    assert resumed == list(range(resumed[0], n_epochs + 1))
    assert 2 <= resumed[0] <= last_of_first + 1  # not from the start


@pytest.mark.slow
def test_processes_end_with_a_caller_that_is_killed(tmp_path):
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path)], env={**ENVIRONMENT, "TMPDIR": str(tmp_path)}
    )
    marks = [tmp_path / f"rank{rank}" for rank in range(2)]
    try:
        deadline = time.monotonic() + SECONDS
        while not all(mark.exists() for mark in marks):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        caller.kill()
        caller.wait()
    time.sleep(1.0)
    last = [mark.read_text() for mark in marks]
    time.sleep(0.5)
    assert [mark.read_text() for mark in marks] == last
    assert not list(tmp_path.glob("flowdetect-*"))  # nor is the folder left that they shared


def fail_in_one(processes):
    if processes.rank == 1:
        raise LookupError("no row 17")
    processes.wait()  # in which the connection breaks


@pytest.mark.slow
def test_an_exception_in_a_process_is_raised_as_it_is():
    with pytest.raises(LookupError, match="no row 17") as caught:
        _ranks.run_in_processes("Density", fail_in_one, (), "cpu", 2)
    (note,) = caught.value.__notes__
    assert note.startswith("In process 1 of 0..1 of Density(n_devices=2)")
    assert "fail_in_one" in note


class StubbornError(Exception):
    """It holds what cannot be pickled, whoever pickles it."""

    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("codes", "errors", "message"),
    [
        ([1, -9], {0: RuntimeError("Connection closed by peer")}, "process 1 of 0..1 was killed by SIGKILL"),
        ([None, 3], {}, "process 1 of 0..1 ended with exit code 3"),
        ([1, 1], {1: OSError("disk full"), 0: RuntimeError("Connection closed")}, "disk full"),
        ([1, None], {0: StubbornError("stubborn")}, r"process 0 of 0..1 failed: (?s:.)*StubbornError: stubborn"),
    ],
    ids=["killed", "exited", "first of two", "not pickled"],
)
def test_the_first_cause_is_told(codes, errors, message, tmp_path):
    for rank, error in errors.items():
        _ranks._tell(error, tmp_path / f"error{rank}")
    with pytest.raises((RuntimeError, OSError), match=message):
        raise _ranks._failure("Density", codes, tmp_path)


def test_ctrl_c_before_training_has_begun_ends_the_processes_at_once(monkeypatch):
    started = []
    popen = subprocess.Popen

    def start(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        os.kill(os.getpid(), signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(_ranks.subprocess, "Popen", start)
    X, _ = load_images("digits")
    density = GlowDensity(n_devices=2, **SETTINGS)
    since = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        density.fit(X[:N_ROWS])
    assert time.monotonic() - since < 10
    assert [process.poll() for process in started] == [-signal.SIGKILL] * len(started)
    assert not hasattr(density, "model_")


# ---- what is refused before training


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(_training.Training, "run", None)
    monkeypatch.setattr(_ranks.subprocess, "Popen", None)


@pytest.fixture
def torchrun_of_two(monkeypatch):
    there = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in there.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_devices": True}, "'n_devices' parameter.*Got the boolean True instead"),
        ({"n_devices": 10_000}, "n_devices=10000, but this machine has .* pass n_devices="),
        ({"n_devices": 2, "batch_size": 1}, "batch_size must be at least n_devices, 2, got batches of 1 rows; raise"),
        ({"n_devices": 2, "device": "cpu:0"}, "device='cpu:0' is one device, .*; pass device=\"cpu\""),
    ],
)
def test_what_cannot_be_trained_on_is_refused(parameters, message):
    X, _ = load_images("digits")
    with pytest.raises(ValueError, match=message):
        GlowDensity(**{**SETTINGS, **parameters}).fit(X[:N_ROWS])


@pytest.mark.usefixtures("no_training", "torchrun_of_two")
def test_workers_of_torchruns_processes_are_refused(monkeypatch):
    monkeypatch.setattr(launching.multiprocessing, "parent_process", object)
    with pytest.raises(ValueError, match="pass n_jobs=1, or n_devices=1"):
        GlowDensity(n_devices=2, **SETTINGS).fit(np.zeros((4, 4)))


@pytest.mark.usefixtures("no_training", "torchrun_of_two")
def test_fits_side_by_side_under_torchrun_are_refused():
    with launching._ONE_AT_A_TIME, pytest.raises(ValueError, match="another fit is running"):
        GlowDensity(n_devices=2, **SETTINGS).fit(np.zeros((4, 4)))
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("no_training")
def test_rows_that_cannot_be_pickled_are_refused():
    class Guarded:
        def __init__(self):
            self.lock = threading.Lock()

        def __len__(self):
            return N_ROWS

        def __getitem__(self, i):
            return np.arange(4.0) + i

    with pytest.raises(TypeError, match="passes X to other processes, .*lock.*Pass an array, or"):
        GlowDensity(**{**SETTINGS, "n_devices": 2, "n_bins": None}).fit(Guarded())


# ---- what processes hand over


def test_arrays_are_handed_over_by_mapping_them_and_changes_stay_here(tmp_path):
    arrays = {"values": np.arange(1000.0).reshape(10, 100), "none": np.zeros((0, 3)), "text": np.array(["a", "bc"])}
    np.save(tmp_path / "mapped.npy", arrays["values"])
    mapped = np.load(tmp_path / "mapped.npy", mmap_mode="r")[2:5]
    _ranks.dump({**arrays, "weights": torch.ones(3), "mapped": mapped}, tmp_path / "file")
    first, second = _ranks.load(tmp_path / "file"), _ranks.load(tmp_path / "file")
    first["values"][:] = -1
    first["weights"][:] = -1
    for name, value in arrays.items():
        np.testing.assert_array_equal(second[name], value)
    assert bool((second["weights"] == 1).all())
    np.testing.assert_array_equal(second["mapped"], mapped)
    assert not any(first[name].flags.owndata for name in ("values", "mapped"))


def test_a_full_disk_is_told_with_the_folder(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_ranks, "dump", full)
    with pytest.raises(OSError, match=r"No space left on device: Density\(n_devices=2\) .*set TMPDIR: '.*flowdetect-"):
        _ranks.run_in_processes("Density", fail_in_one, (), "cpu", 2)

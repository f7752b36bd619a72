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
from torch import distributed

from flowdetect import EnsembleDensity, GlowDensity, load_images
from flowdetect.density import _processes, _ranks, _training

# batches of 63: one process has 32 rows of each, the other 31
SETTINGS = {"n_bins": 17, "n_steps": 1, "hidden_channels": 8, "max_epochs": 2, "batch_size": 63, "device": "cpu"}
N_ROWS = 320
SECONDS = 120  # a process imports for three, and a busy machine is slower
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]

# none of the scripts has a main guard
HEAD = f"""
import hashlib, json, os, signal, sys, threading, time
from pathlib import Path
from flowdetect import EnsembleDensity, GlowDensity, load_images
from flowdetect.density import _checkpoint, _ranks, base
settings = {SETTINGS}
X = load_images("digits")[0][:{N_ROWS}]
class Rows:  # known to this script alone
    def __len__(self):
        return len(X)
    def __getitem__(self, i):
        return X[i]
def told(density):
    weights = b"".join(value.numpy().tobytes() for value in density.model_.state_dict().values())
    return {{"weights": hashlib.sha256(weights).hexdigest(), "bits": density.history_["validation_bits_per_dim"]}}
def ensemble(n_jobs):  # of one member: a density whose fit runs in a worker
    density = GlowDensity(n_devices=2, **settings)
    return EnsembleDensity(density, n_members=1, n_jobs=n_jobs, random_state=0).fit(Rows()).members_[0]
"""

ALONE = """
print(json.dumps(told(ensemble(n_jobs=2))))
"""

UNDER_TORCHRUN = """
rank = int(os.environ["RANK"])
folder = Path(sys.argv[1])
found = {"ensemble": told(ensemble(n_jobs=None))}
write, writers = _checkpoint.Checkpoint.write, []
_checkpoint.Checkpoint.write = lambda self, *args: writers.append(rank) or write(self, *args)
path = folder / "checkpoint"
density = GlowDensity(n_devices=2, checkpoint=path, **settings).fit(X)  # random_state=None
found["drawn"] = {**told(density), "seed": density.seed_, "history": density.history_}
restored = GlowDensity(n_devices=2, checkpoint=path, **settings).fit(X)
found["restored"] = {**told(restored), "seed": restored.seed_, "history": restored.history_}
found["n_written"] = len(writers)
def refused(rows, **parameters):
    try:
        GlowDensity(**{**settings, **parameters}).fit(rows)
    except ValueError as error:
        return str(error)
found["refusals"] = [
    refused(X, n_devices=3),
    refused(X[rank:], n_devices=2),
    refused(X, n_devices=2, random_state=1, checkpoint=path),
]
train, reasons = base.train, []
base.train = lambda *args: reasons.append(train(*args)) or reasons[-1]
GlowDensity(**{**settings, "n_devices": 2, "max_epochs": 10_000, "time_limit": 1.0}).fit(X)
found["reason"] = reasons[0].reason
if rank == 0:  # the others have no part in it
    found["alone"] = told(GlowDensity(**{**settings, "random_state": 0, "max_epochs": 1}).fit(X))
(folder / f"found{rank}").write_text(json.dumps(found))
"""

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


def run(script, *args, command=(sys.executable, "-"), **kwargs):
    """Run a script from stdin, which has no file: as in a notebook, it cannot be run again."""
    done = subprocess.run(
        [*command, *map(str, args)], input=script, capture_output=True, text=True, timeout=SECONDS, env=ENVIRONMENT,
        **kwargs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def agents(n, folder):
    """Run the script in two processes, of n agents of torchrun: what each process found."""
    script = folder / "script.py"
    script.write_text(HEAD + UNDER_TORCHRUN)
    where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    if n > 1:
        where[-1] = f"localhost:{_free_port()}"
    command = [*TORCHRUN, "--nnodes", str(n), "--nproc-per-node", str(2 // n), *where, str(script), str(folder)]
    with open(folder / "log", "w") as log:
        started = [subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log) for _ in range(n)]
        try:
            codes = [agent.wait(SECONDS) for agent in started]
        finally:
            for agent in started:
                agent.kill()
    assert codes == [0] * n, (folder / "log").read_text()
    return [json.loads((folder / f"found{rank}").read_text()) for rank in range(2)]


def _free_port():
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory):
    return agents(1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module", params=[1, 2], ids=["one agent", "two agents"])
def found(request, tmp_path_factory):
    if request.param == 1:
        return request.getfixturevalue("one_machine")
    return agents(2, tmp_path_factory.mktemp("two"))


# ---- one model


@pytest.mark.slow
def test_two_processes_train_the_model_of_one_bit_for_bit_each_time(one_machine):
    two = json.loads(run(HEAD + ALONE).stdout)
    assert two == one_machine[0]["ensemble"]  # a second run, in processes that torchrun started
    X, _ = load_images("digits")
    one = EnsembleDensity(GlowDensity(**SETTINGS), n_members=1, random_state=0).fit(X[:N_ROWS]).members_[0]
    np.testing.assert_allclose(two["bits"], one.history_["validation_bits_per_dim"], atol=1e-3)  # bits/dim


@pytest.mark.slow
class TestUnderTorchrun:
    def test_all_processes_have_one_model(self, found):
        assert found[0]["ensemble"] == found[1]["ensemble"]
        assert found[0]["drawn"] == found[1]["drawn"]  # the seed of random_state=None with it

    def test_several_agents_train_the_model_of_one(self, found, one_machine):
        assert found[0]["ensemble"] == one_machine[0]["ensemble"]

    def test_the_first_process_writes_the_checkpoint_and_all_are_restored(self, found):
        assert found[0]["n_written"] > 0
        assert found[1]["n_written"] == 0
        assert found[0]["restored"] == found[1]["restored"] == found[0]["drawn"]

    def test_what_disagrees_is_refused_in_all(self, found):
        assert found[0]["refusals"] == found[1]["refusals"]
        n_devices, X, checkpoint = found[0]["refusals"]
        assert "torchrun started, 2, got 3; pass n_devices=2" in n_devices
        assert "X of process 1 and of process 0 differ" in X
        assert "random_state: None there, 1 here" in checkpoint

    def test_a_time_limit_is_one_plan(self, found):
        assert found[0]["reason"] == found[1]["reason"] == "time_limit"

    def test_one_device_trains_alone(self, found):
        X, _ = load_images("digits")
        alone = GlowDensity(**{**SETTINGS, "random_state": 0, "max_epochs": 1}).fit(X[:N_ROWS])
        assert found[0]["alone"]["bits"] == alone.history_["validation_bits_per_dim"]


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
    assert "process 1 of 0..1 was ended by SIGKILL" in killed["text"]
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
        ([1, -9], {0: RuntimeError("Connection closed by peer")}, "process 1 of 0..1 was ended by SIGKILL"),
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
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_devices": True}, "'n_devices' parameter.*Got True instead, a boolean"),
        ({"n_devices": 10_000}, "n_devices=10000, but there are .* pass n_devices="),
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
    monkeypatch.setattr(_processes.multiprocessing, "parent_process", object)
    with pytest.raises(ValueError, match="pass n_jobs=1, or n_devices=1"):
        GlowDensity(n_devices=2, **SETTINGS).fit(np.zeros((4, 4)))


@pytest.mark.usefixtures("no_training", "torchrun_of_two")
def test_fits_side_by_side_under_torchrun_are_refused():
    with _processes._ONE_AT_A_TIME, pytest.raises(ValueError, match="another fit is under way"):
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

    with pytest.raises(TypeError, match="hands X to other processes, .*lock.*Pass an array, or"):
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

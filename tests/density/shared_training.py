"""The script whose training is shared by two processes, and the ways of starting them."""

import json
import os
import subprocess
import sys

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
def ensemble(n_jobs, n_devices=2):  # of one member: a density whose fit runs in a worker
    density = GlowDensity(n_devices=n_devices, **settings)
    return EnsembleDensity(density, n_members=1, n_jobs=n_jobs, random_state=0).fit(Rows()).members_[0]
"""

LAUNCHED = """
rank = int(os.environ.get("RANK") or os.environ["SLURM_PROCID"])
folder, is_whole = Path(sys.argv[1]), sys.argv[2] == "whole"
found = {"ensemble": told(ensemble(n_jobs=None, n_devices="auto"))}
write, writers = _checkpoint.Checkpoint.write, []
_checkpoint.Checkpoint.write = lambda self, *args: writers.append(rank) or write(self, *args)
path = folder / "checkpoint"
density = GlowDensity(n_devices="auto", checkpoint=path, **settings).fit(X)  # random_state=None
found["drawn"] = {**told(density), "seed": density.seed_, "history": density.history_}
restored = GlowDensity(n_devices=2 if is_whole else "auto", checkpoint=path, **settings).fit(X)
found["restored"] = {**told(restored), "seed": restored.seed_, "history": restored.history_}
found["n_written"] = len(writers)
def refused(rows, **parameters):
    try:
        GlowDensity(**{**settings, **parameters}).fit(rows)
    except ValueError as error:
        return str(error)
if is_whole:
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
    where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    if n > 1:
        where[-1] = f"localhost:{free_port()}"
    command = [*TORCHRUN, "--nnodes", str(n), "--nproc-per-node", str(2 // n), *where]
    return _launched(folder, [command] * n, [{}] * n, "whole" if n == 1 else "part")


def tasks(folder):
    """Run the script in two processes that look to themselves like tasks of a step of SLURM."""
    step = {
        **{"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"},
        **{"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0"},
        "MASTER_PORT": str(free_port()),
    }
    each = [{**step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    return _launched(folder, [[sys.executable]] * 2, each, "part")


def _launched(folder, commands, environments, how_much):
    script = folder / "script.py"
    script.write_text(HEAD + LAUNCHED)
    with open(folder / "log", "w") as log:
        started = [
            subprocess.Popen([*command, script, folder, how_much], env={**ENVIRONMENT, **more}, stdout=log, stderr=log)
            for command, more in zip(commands, environments, strict=True)
        ]
        try:
            codes = [process.wait(SECONDS) for process in started]
        finally:
            for process in started:
                process.kill()
    assert codes == [0] * len(started), (folder / "log").read_text()
    return [json.loads((folder / f"found{rank}").read_text()) for rank in range(2)]


def free_port():
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]

"""Processes started by torchrun or SLURM's srun on one or more machines, and how a fit joins them."""

from __future__ import annotations

import multiprocessing
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import NamedTuple

import torch
from torch import distributed

from flowdetect._ctrl_c import CtrlC
from flowdetect.density._processes import Position, Processes, group, joined_as

FIRST_PORT, N_PORTS, PORTS_A_JOB = 20000, 10000, 100  # below the range that systems assign automatically
MEET_SECONDS = 300.0  # limit for all processes of a step to connect
_ONE_AT_A_TIME = threading.Lock()
_count = iter(range(2**62))  # counts the groups of this process: each has its own prefix in the store


class Launched(NamedTuple):
    """The launcher of the processes, and the position of this one."""

    by: str
    position: Position


def started_by_torchrun() -> bool:
    """Whether torchrun started this process or its parent."""
    return distributed.is_available() and distributed.is_torchelastic_launched()


def _launched() -> Launched | None:
    """Return the launcher and position of this process; None if no launcher started it."""
    if started_by_torchrun():
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        found = Launched("torchrun", Position(*(int(os.environ.get(name, 0)) for name in names)))
    elif distributed.is_available() and "SLURM_STEP_NUM_TASKS" in os.environ:  # not set by sbatch or salloc
        found = Launched("srun", _position_in_step())
    else:
        return None
    return found if found.position.n > 1 else None


def _joins(n_devices: int | str) -> Launched | None:
    """Return the launched processes that a fit joins; a number counts this machine's devices, except under torchrun."""
    found = None if n_devices == 1 else _launched()
    return None if found is None or (found.by == "srun" and n_devices != "auto") else found


def resolve_n_devices(n_devices: int | str, device: str) -> int:
    """Turn "auto" into the number of launched processes, else of all CUDA devices if CUDA is used, else 1."""
    if n_devices != "auto":
        return int(n_devices)
    launched = _joins(n_devices)
    if launched is not None:
        return launched.position.n
    return max(1, torch.cuda.device_count()) if device == "cuda" and not started_by_torchrun() else 1


def check_n_devices(n_devices: int | str, device: str) -> None:
    """Refuse a number of devices that this process cannot train on."""
    if n_devices is True:
        raise ValueError("n_devices must be a whole number >= 1, got True; pass the number of devices.")
    launched, n = _joins(n_devices), resolve_n_devices(n_devices, device)
    if n == 1:
        return
    kind, _, index = device.partition(":")
    if index:
        raise ValueError(f'device={device!r} is one device, got n_devices={n_devices!r}; pass device="{kind}".')
    n_here = n if launched is None else launched.position.n_here
    if launched is not None:
        n_started = launched.position.n
        if n != n_started:
            raise ValueError(
                f"n_devices must be the number of processes that {launched.by} started, {n_started}, got {n}; pass "
                f'n_devices={n_started} or "auto", or n_devices=1 to train in each process alone.'
            )
        if multiprocessing.parent_process() is not None:
            raise ValueError(
                f"n_devices={n_devices!r} trains in the processes that {launched.by} started, but this is a worker "
                "process of one of them; pass n_jobs=1, or n_devices=1."
            )
    there = {"cuda": torch.cuda.device_count(), "cpu": os.cpu_count() or 1}.get(kind, 1)
    if n_here > there:
        raise ValueError(
            f"n_devices={n_here}, but this machine has {there} device(s) of type {kind!r}; pass n_devices={there}."
        )


def writes_checkpoints(n_devices: int | str) -> bool:
    """Whether this process writes the checkpoints of a fit; of several processes, only the first does."""
    launched = _joins(n_devices)
    return launched is None or launched.position.rank == 0


@contextmanager
def joined(n_devices: int | str, device: str) -> Iterator[Processes | None]:
    """Join the launched processes; yield None if there are none or n_devices is 1."""
    launched = _joins(n_devices)
    if launched is None:
        yield None
        return
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise ValueError(
            f"n_devices={n_devices!r} under {launched.by} fits one estimator at a time, and another fit is running in "
            "this process; pass n_jobs=1, or run the fits one after the other."
        )
    position = launched.position
    try:
        store = distributed.PrefixStore(f"flowdetect/{next(_count)}", _store(launched))
        # the launcher repeats the Ctrl-C that its processes already received from the terminal
        with group(store, position, device, CtrlC(second="waits")) as processes, joined_as(processes):
            yield processes
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise RuntimeError(
                f"Process {position.rank} of 0..{position.n - 1} lost the connection to another process, which failed "
                "or was killed; see that process's output. Call fit again; with checkpoint=path, training resumes "
                "from the file."
            ) from error
        raise
    finally:
        _ONE_AT_A_TIME.release()


@cache
def _store(launched: Launched) -> distributed.Store:
    """Return the store through which the processes connect."""
    if launched.by == "torchrun":
        store: distributed.Store = next(distributed.rendezvous("env://"))[0]
        return store
    host, port, position = *_meeting_point(), launched.position
    try:
        return distributed.TCPStore(host, port, position.n, position.rank == 0, timedelta(seconds=MEET_SECONDS))
    except RuntimeError as error:
        raise RuntimeError(
            f"The {position.n} tasks of this SLURM step must connect to {host}:{port} within {MEET_SECONDS:g} s, but "
            f"task {position.rank} could not; make sure that all of them call fit, or set MASTER_ADDR to the machine "
            "of task 0 and MASTER_PORT to a free port there."
        ) from error


# ---- srun


def _position_in_step() -> Position:
    """Return the position of this task in its SLURM step."""
    rank, n, rank_here = (int(os.environ[f"SLURM_{name}"]) for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID"))
    if torch.cuda.device_count() == 1:  # as with --gpus-per-task: each task has access to its own device only
        return Position(rank, n, 0, 1)
    counts = _tasks_per_node(_first_of("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE") or str(n))
    node = int(os.environ.get("SLURM_NODEID", 0))
    return Position(rank, n, rank_here, counts[node] if node < len(counts) else n)


def _tasks_per_node(text: str) -> list[int]:
    """Parse numbers of tasks, such as "2(x3),1": 2, 2, 2, 1."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in parts for _ in range(int(times or 1))]


def _meeting_point() -> tuple[str, int]:
    """Return host and port for a step's tasks: the first machine of its list, a port from job and step numbers."""
    nodes = _first_of("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    host = os.environ.get("MASTER_ADDR") or first_host(nodes or "localhost")
    job, step = (re.sub(r"\D", "", os.environ.get(f"SLURM_{name}", "")) or "0" for name in ("JOB_ID", "STEP_ID"))
    port = FIRST_PORT + (PORTS_A_JOB * int(job) + int(step)) % N_PORTS
    return host, int(os.environ.get("MASTER_PORT", port))


def first_host(nodes: str) -> str:
    """Return the first machine of a SLURM node list, such as "node[03-05,9],login": node03."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first is not None  # the pattern also matches the empty text
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0].strip())


def _first_of(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)

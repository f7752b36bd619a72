"""Processes that torchrun or SLURM's srun started, on one machine or more, and how many of them a fit joins."""

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

FIRST_PORT, N_PORTS, PORTS_A_JOB = 20000, 10000, 100  # below those that systems hand out by themselves
MEET_SECONDS = 300.0  # for all processes of a step to come
_ONE_AT_A_TIME = threading.Lock()
_count = iter(range(2**62))  # groups that this process was in: each has a place of its own in the store


class Launched(NamedTuple):
    """Who started the processes, and which one this is."""

    by: str
    position: Position


def started_by_torchrun() -> bool:
    """Whether torchrun started this process, or one that this is a worker of."""
    return distributed.is_available() and distributed.is_torchelastic_launched()


def _launched() -> Launched | None:
    """Say which of several processes this is; None: it is one for itself."""
    if started_by_torchrun():
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        found = Launched("torchrun", Position(*(int(os.environ.get(name, 0)) for name in names)))
    elif distributed.is_available() and "SLURM_STEP_NUM_TASKS" in os.environ:  # which sbatch and salloc do not set
        found = Launched("srun", _position_in_step())
    else:
        return None
    return found if found.position.n > 1 else None


def _joins(n_devices: int | str) -> Launched | None:
    """Say which processes a fit to so many devices joins; a number is of this machine's devices, but under torchrun."""
    found = None if n_devices == 1 else _launched()
    return None if found is None or (found.by == "srun" and n_devices != "auto") else found


def resolve_n_devices(n_devices: int | str, device: str) -> int:
    """Turn "auto" into the processes that were started, else all CUDA devices where CUDA is used, else 1."""
    if n_devices != "auto":
        return int(n_devices)
    launched = _joins(n_devices)
    if launched is not None:
        return launched.position.n
    return max(1, torch.cuda.device_count()) if device == "cuda" and not started_by_torchrun() else 1


def check_n_devices(n_devices: int | str, device: str) -> None:
    """Refuse a number of devices that cannot be trained on from here."""
    if n_devices is True:
        raise ValueError("n_devices must be a whole number >= 1, got True; pass how many devices to train on.")
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
                f"n_devices={n_devices!r} trains in the processes that {launched.by} started, and this is a worker "
                f"process of one of them; pass n_jobs=1, or n_devices=1."
            )
    there = {"cuda": torch.cuda.device_count(), "cpu": os.cpu_count() or 1}.get(kind, 1)
    if n_here > there:
        raise ValueError(f"n_devices={n_here}, but there are {there} of device {kind!r}; pass n_devices={there}.")


def writes_checkpoints(n_devices: int | str) -> bool:
    """Whether a fit to so many devices writes checkpoints from here: of several processes, only the first does."""
    launched = _joins(n_devices)
    return launched is None or launched.position.rank == 0


@contextmanager
def joined(n_devices: int | str, device: str) -> Iterator[Processes | None]:
    """Join the processes that were started; give None where there are none, or one device is asked for."""
    launched = _joins(n_devices)
    if launched is None:
        yield None
        return
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise ValueError(
            f"n_devices={n_devices!r} under {launched.by} fits one estimator at a time, and another fit is under way "
            f"in this process; pass n_jobs=1, or call fit one after the other."
        )
    position = launched.position
    try:
        store = distributed.PrefixStore(f"flowdetect/{next(_count)}", _store(launched))
        # the launcher sends its processes the Ctrl-C that they had from the terminal already
        with group(store, position, device, CtrlC(second="waits")) as processes, joined_as(processes):
            yield processes
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise RuntimeError(
                f"Process {position.rank} of 0..{position.n - 1} lost another one, which failed or was ended; see what "
                f"that one says. Fit again; with checkpoint=path, training goes on from where the file stands."
            ) from error
        raise
    finally:
        _ONE_AT_A_TIME.release()


@cache
def _store(launched: Launched) -> distributed.Store:
    """Give the place where the processes meet."""
    if launched.by == "torchrun":
        store: distributed.Store = next(distributed.rendezvous("env://"))[0]
        return store
    host, port, position = *_meeting_point(), launched.position
    try:
        return distributed.TCPStore(host, port, position.n, position.rank == 0, timedelta(seconds=MEET_SECONDS))
    except RuntimeError as error:
        raise RuntimeError(
            f"The {position.n} tasks of this step of SLURM must meet at {host}:{port} within {MEET_SECONDS:g} s, and "
            f"task {position.rank} could not; have all of them call fit, or set MASTER_ADDR to the machine of task 0 "
            f"and MASTER_PORT to a free port there."
        ) from error


# ---- srun's


def _position_in_step() -> Position:
    """Say which task of a step of SLURM this is."""
    rank, n, rank_here = (int(os.environ[f"SLURM_{name}"]) for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID"))
    if torch.cuda.device_count() == 1:  # as with --gpus-per-task: each task sees the device that is its own
        return Position(rank, n, 0, 1)
    counts = _tasks_per_node(_first_of("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE") or str(n))
    node = int(os.environ.get("SLURM_NODEID", 0))
    return Position(rank, n, rank_here, counts[node] if node < len(counts) else n)


def _tasks_per_node(text: str) -> list[int]:
    """Read numbers of tasks, such as "2(x3),1": 2, 2, 2, 1."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in parts for _ in range(int(times or 1))]


def _meeting_point() -> tuple[str, int]:
    """Say where the tasks of a step meet: on the first machine of its list, at a port that its numbers choose."""
    nodes = _first_of("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    host = os.environ.get("MASTER_ADDR") or first_host(nodes or "localhost")
    job, step = (re.sub(r"\D", "", os.environ.get(f"SLURM_{name}", "")) or "0" for name in ("JOB_ID", "STEP_ID"))
    port = FIRST_PORT + (PORTS_A_JOB * int(job) + int(step)) % N_PORTS
    return host, int(os.environ.get("MASTER_PORT", port))


def first_host(nodes: str) -> str:
    """Give the first machine of a list of SLURM's, such as "node[03-05,9],login": node03."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first is not None  # it matches the empty text too
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0].strip())


def _first_of(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)

"""Processes that flowdetect starts, one per device: the caller's side and the process's side.

They share a temporary folder for the task, the request to stop, and the result. No process runs the caller's script
again, so a script needs no main guard, and a notebook works too.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import distributed

from flowdetect._ctrl_c import CtrlC, whole_imports
from flowdetect.density._interruption import Interruption
from flowdetect.density._processes import Position, group

POLL_SECONDS = 0.05
GRACE_SECONDS = 1.0  # wait after a process ended: others may end for the same reason, and the first is reported
START = "import sys; from flowdetect.density._ranks import main; main(sys.argv[1], int(sys.argv[2]))"


class Task(NamedTuple):
    """The task of each process: call function(processes, *args)."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    device: str
    n: int


# ---- the caller's side


def run_in_processes(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], device: str, n: int
) -> tuple[Any, BaseException | None]:
    """Call function(processes, *args) in n new processes of this machine.

    Parameters
    ----------
    name : str, for messages
    function : importable; must end in all processes at the same step after an interruption
    args : tuple
    device : str, such as "cuda"
    n : int

    Returns
    -------
    result : result of the call in the first process
    raised : KeyboardInterrupt (or another exception of the caller's Ctrl-C handler), or None

    Raises
    ------
    RuntimeError
        If a process ended early.
    Exception
        An exception raised in a process, with a note that names the process.
    """
    with tempfile.TemporaryDirectory(prefix="flowdetect-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        try:
            dump(Task(function, args, device, n), folder / "task")
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise TypeError(
                f"{name}(n_devices={n}) passes X to other processes, but X cannot be pickled: {error}. Pass an array, "
                "or a dataset that can be pickled, or n_devices=1."
            ) from error
        except OSError as error:
            told = f"{error.strerror}: {name}(n_devices={n}) passes X to other processes in this folder; set TMPDIR"
            raise OSError(error.errno, told, text) from error
        with Interruption() as interruption, _started(folder, n) as processes:
            raised = _wait(name, processes, folder, interruption) or interruption.outcome()
        return load(folder / "result"), raised


@contextmanager
def _started(folder: Path, n: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start processes; none is left running at the end of this context."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // n)),
    }
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(n):
            command = [os.fsdecode(get_executable()), "-P", "-c", START, str(folder), str(rank)]
            with _ctrl_c_blocked():
                # the pipe closes when the caller ends, and the process then ends too
                processes.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Block Ctrl-C in processes started here; a terminal would send it to all of them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(
    name: str, processes: list[subprocess.Popen[bytes]], folder: Path, interruption: CtrlC
) -> BaseException | None:
    """Wait for all processes, and stop them at Ctrl-C, whose exception is returned; raise if one fails."""
    raised: BaseException | None = None
    failed_since: float | None = None
    while True:
        codes = [process.poll() for process in processes]
        if all(code == 0 for code in codes):
            return raised
        if failed_since is None and any(codes):
            failed_since = time.monotonic()
        if failed_since is not None and (None not in codes or time.monotonic() - failed_since > GRACE_SECONDS):
            raise _failure(name, codes, folder)
        if (outcome := interruption.outcome()) is not None:
            if not (folder / "begun").exists():
                raise outcome  # no result is lost
            (folder / "stop").touch()
            raised = outcome
        time.sleep(POLL_SECONDS)


def _failure(name: str, codes: list[int | None], folder: Path) -> BaseException:
    """Return an error that names the process that failed first, and how."""
    n = len(codes)
    told = {rank: load(folder / f"error{rank}") for rank in range(n) if (folder / f"error{rank}").exists()}
    for rank, code in enumerate(codes):
        if code and rank not in told:
            how = f"ended with exit code {code}" if code > 0 else f"was killed by {_signal_name(-code)}"
            return RuntimeError(
                f"{name}(n_devices={n}): process {rank} of 0..{n - 1} {how}, so training ended. Call fit again; with "
                "checkpoint=path, training resumes from the file."
            )
    rank = min(told, key=lambda rank: told[rank][0])
    _, raised, text = told[rank]
    error: BaseException = raised or RuntimeError(f"{name}(n_devices={n}): process {rank} of 0..{n - 1} failed: {text}")
    error.add_note(f"In process {rank} of 0..{n - 1} of {name}(n_devices={n}):\n{text}")
    return error


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name}, the usual signal when memory runs out" if name == "SIGKILL" else name


# ---- a process's side


class StopFile:
    """The caller's request to stop; the caller may make it after training has begun."""

    def __init__(self, folder: Path) -> None:
        self.stop, self.begun = folder / "stop", folder / "begun"

    @property
    def pending(self) -> bool:
        """Whether the request was made."""
        return self.stop.exists()

    def outcome(self) -> BaseException | None:
        """Return KeyboardInterrupt as a stand-in; the caller raises its own exception."""
        return KeyboardInterrupt() if self.pending else None

    def __enter__(self) -> StopFile:
        self.begun.touch()
        return self

    def __exit__(self, *error: object) -> None:
        pass


def main(text: str, rank: int) -> NoReturn:
    """Run one of the processes."""
    folder = Path(text)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_caller, args=(folder,), daemon=True).start()
    try:
        task: Task = load(folder / "task")
        store = distributed.FileStore(str(folder / "store"), task.n)
        position = Position(rank, task.n, rank, task.n)
        with group(store, position, task.device, StopFile(folder)) as processes:
            try:
                result = task.function(processes, *task.args)
                if rank == 0:
                    dump(result, folder / "result")
                processes.wait()  # no process ends while another still communicates with it
            except BaseException as error:  # reported before the others notice the loss
                _tell(error, folder / f"error{rank}")
                _exit(1)
    except BaseException as error:
        _tell(error, folder / f"error{rank}")
        _exit(1)
    _exit(0)


def _exit(code: int) -> NoReturn:
    """Exit at once: a normal shutdown of torch takes seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_caller(folder: Path) -> None:
    """End this process when the caller ends: it must not write the caller's files any more."""
    os.read(0, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _tell(error: BaseException, path: Path) -> None:
    """Write an error and its time for the caller."""
    now, text = time.time(), "".join(traceback.format_exception(error))
    try:
        dump((now, error, text), path)
        load(path)
    except Exception:  # some exceptions cannot be pickled or unpickled
        dump((now, None, text), path)


# ---- data between processes


def dump(value: Any, path: Path) -> None:
    """Write a value to a file, and its arrays to files beside it, without copying them in memory."""
    with whole_imports():
        import cloudpickle  # pickles classes of a notebook or script by value

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, np.memmap):  # by default it would be copied into memory
                return value.view(np.ndarray).__reduce_ex__(5)
            return super().reducer_override(value)

    buffers: list[pickle.PickleBuffer] = []
    content = io.BytesIO()
    Pickler(content, protocol=5, buffer_callback=buffers.append).dump(value)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        places = []
        for buffer in buffers:
            file.write(b"\0" * (-file.tell() % 64))
            places.append((file.tell(), file.write(buffer.raw())))
        pickle.dump((content.getvalue(), places), file)
        end = sum(places[-1]) if places else 0
        file.write(end.to_bytes(8, "little"))
    os.replace(temporary, path)


def load(path: Path) -> Any:
    """Read a value that `dump` wrote; arrays are memory maps, and changes to them stay in this process."""
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        end = int.from_bytes(file.read(), "little")
        file.seek(end)
        content, places = pickle.load(file)
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    return pickle.loads(content, buffers=[memory[start : start + length] for start, length in places])

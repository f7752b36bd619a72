"""Processes that we start, one a device: what the caller does, and what each of them does.

They share a temporary folder: the task, the request to stop, and what came of it. None of them runs the caller's script
again, so it needs no main guard, and a notebook will do.
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
GRACE_SECONDS = 1.0  # after a process ended: others may end by the same cause, and the first cause is told
START = "import sys; from flowdetect.density._ranks import main; main(sys.argv[1], int(sys.argv[2]))"


class Task(NamedTuple):
    """What each process is to do: call function(processes, *args)."""

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
    name : str, in messages
    function : importable; ends all processes at the same step once their interruption is pending
    args : tuple
    device : str, such as "cuda"
    n : int

    Returns
    -------
    result : what the call in the first process gave
    raised : KeyboardInterrupt or whatever else the caller's handler of Ctrl-C raised meanwhile, or None

    Raises
    ------
    RuntimeError
        If a process ended before its time.
    Exception
        What was raised in a process, with a note that says in which.
    """
    with tempfile.TemporaryDirectory(prefix="flowdetect-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        try:
            dump(Task(function, args, device, n), folder / "task")
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise TypeError(
                f"{name}(n_devices={n}) hands X to other processes, and it cannot be pickled: {error}. Pass an array, "
                f"or a dataset that can be pickled, or n_devices=1."
            ) from error
        except OSError as error:
            told = f"{error.strerror}: {name}(n_devices={n}) hands X to other processes here; set TMPDIR"
            raise OSError(error.errno, told, text) from error
        with Interruption() as interruption, _started(folder, n) as processes:
            raised = _wait(name, processes, folder, interruption) or interruption.outcome()
        return load(folder / "result"), raised


@contextmanager
def _started(folder: Path, n: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start processes; none is left when this context is."""
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
                # the pipe ends with us, and the process with it
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
    """Have processes that are started here know nothing of Ctrl-C, of which a terminal tells all."""
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
    """Wait until all processes are done, and have them stop at Ctrl-C, whose exception is given; raise if one fails."""
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
                raise outcome  # nothing is lost
            (folder / "stop").touch()
            raised = outcome
        time.sleep(POLL_SECONDS)


def _failure(name: str, codes: list[int | None], folder: Path) -> BaseException:
    """Say which process failed first, and how."""
    n = len(codes)
    told = {rank: load(folder / f"error{rank}") for rank in range(n) if (folder / f"error{rank}").exists()}
    for rank, code in enumerate(codes):
        if code and rank not in told:
            how = f"ended with exit code {code}" if code > 0 else f"was ended by {_signal_name(-code)}"
            return RuntimeError(
                f"{name}(n_devices={n}): process {rank} of 0..{n - 1} {how}, so training ended. Fit again; with "
                f"checkpoint=path, training goes on from where the file stands."
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
    return f"{name}, as happens where memory runs out" if name == "SIGKILL" else name


# ---- a process's side


class StopFile:
    """The caller's request to stop, which it makes once it is told that training has begun."""

    def __init__(self, folder: Path) -> None:
        self.stop, self.begun = folder / "stop", folder / "begun"

    @property
    def pending(self) -> bool:
        """Whether it has been made."""
        return self.stop.exists()

    def outcome(self) -> BaseException | None:
        """Give what the caller's handler of Ctrl-C raises, as a rule; the caller knows."""
        return KeyboardInterrupt() if self.pending else None

    def __enter__(self) -> StopFile:
        self.begun.touch()
        return self

    def __exit__(self, *error: object) -> None:
        pass


def main(text: str, rank: int) -> NoReturn:
    """Be one of the processes."""
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
                processes.wait()  # nobody leaves while another still speaks to it
            except BaseException as error:  # told before the others can miss us
                _tell(error, folder / f"error{rank}")
                _exit(1)
    except BaseException as error:
        _tell(error, folder / f"error{rank}")
        _exit(1)
    _exit(0)


def _exit(code: int) -> NoReturn:
    """End at once: taking torch down would take seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_caller(folder: Path) -> None:
    """End this process as soon as the caller has ended, whatever it is doing: the caller's files are no longer its."""
    os.read(0, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _tell(error: BaseException, path: Path) -> None:
    """Leave an error, and when it was raised, to the caller."""
    now, text = time.time(), "".join(traceback.format_exception(error))
    try:
        dump((now, error, text), path)
        load(path)
    except Exception:  # some exceptions cannot be pickled, or not be built again
        dump((now, None, text), path)


# ---- what they hand over


def dump(value: Any, path: Path) -> None:
    """Write a value to a file; arrays beside it, as they are, so that they are not copied in memory."""
    with whole_imports():
        import cloudpickle  # which takes classes of a notebook or of the script along

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, np.memmap):  # of itself, it would be copied into memory
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
    """Read what `dump` wrote: arrays are mapped to memory, changes to which remain in this process."""
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        end = int.from_bytes(file.read(), "little")
        file.seek(end)
        content, places = pickle.load(file)
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    return pickle.loads(content, buffers=[memory[start : start + length] for start, length in places])

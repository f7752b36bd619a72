"""The processes of a training: usually one, or several that share every batch.

Several processes are started by `_ranks.py` on one machine, or by torchrun or srun on one or more machines
(`_launched.py`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, distributed

from flowdetect._ctrl_c import whole_imports
from flowdetect.density._devices import hints_unheard, new_fabric
from flowdetect.density._interruption import Interruption

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class MayStop(Protocol):
    """A context that tells whether training should stop at the end of a step."""

    @property
    def pending(self) -> bool:
        """Whether training should stop."""

    def outcome(self) -> BaseException | None:
        """Return the exception to raise after training has stopped; None if it should continue."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> None: ...


class Position(NamedTuple):
    """Rank and number of processes, in all and on this machine."""

    rank: int
    n: int
    rank_here: int
    n_here: int


class Processes:
    """The processes of a training, from the point of view of one of them.

    Parameters
    ----------
    position : Position
    device : str
        Device of this process.
    new_fabric : callable
        Builds the Fabric for training.
    interruption : MayStop

    Attributes
    ----------
    rank, n : int
        Index of this process, and number of processes.
    """

    def __init__(
        self, position: Position, device: str, new_fabric: Callable[[], Fabric], interruption: MayStop
    ) -> None:
        self.rank, self.n, self.device = position.rank, position.n, device
        self.interruption = interruption
        self._new_fabric = new_fabric

    @cached_property
    def fabric(self) -> Fabric:
        """Fabric, built on first use because its import is slow."""
        return self._new_fabric()

    def means(self, *values: Tensor | float) -> list[float]:
        """Return the mean of each of some scalars over the processes."""
        return self.begin_means(*values)()

    def begin_means(self, *values: Tensor | float) -> Callable[[], list[float]]:
        """Start to compute the means of some scalars over the processes; the returned function waits for them."""
        if self.n == 1:
            return lambda: [float(value) for value in values]
        together = torch.stack([torch.as_tensor(value, dtype=torch.float32, device=self.device) for value in values])
        work = distributed.all_reduce(together, async_op=True)

        def wait() -> list[float]:
            work.wait()
            return (together / self.n).tolist()

        return wait

    def total(self, value: float) -> float:
        """Return the sum of a number over the processes."""
        if self.n == 1:
            return value
        together = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(together)
        return together.item()

    def of_first(self, value: T) -> T:
        """Return the first process's value in all of them."""
        if self.n == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def copy_first(self, tensors: dict[str, Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.n > 1:
            for tensor in tensors.values():
                distributed.broadcast(tensor, src=0)

    def in_first(self, function: Callable[[], T]) -> T:
        """Call a function in the first process, and return its result or raise its exception in all processes."""
        if self.n == 1:
            return function()
        results: list[T] = []
        failure: Exception | None = None
        if self.rank == 0:
            try:
                results.append(function())
            except Exception as error:
                failure = error
        results, failure = self.of_first((results, failure))
        if failure is not None:
            raise failure
        return results[0]

    def outcome(self) -> BaseException | None:
        """Return the exception to raise after all processes agreed to stop; None if the single process continues."""
        raised = self.interruption.outcome()
        return raised if self.n == 1 else raised or KeyboardInterrupt()

    def wait(self) -> None:
        """Wait until all processes reach this point."""
        self.total(0.0)

    def of_all(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        values: list[Any] = [None] * self.n
        distributed.all_gather_object(values, value)
        return values


# ---- one process


def alone(device: str) -> Processes:
    """Return a training's single process."""
    return Processes(Position(0, 1, 0, 1), device, lambda: new_fabric(device), Interruption())


# ---- one of several


@contextmanager
def group(store: distributed.Store, position: Position, device: str, interruption: MayStop) -> Iterator[Processes]:
    """Join a group of several processes, each with a device of the same type.

    Parameters
    ----------
    store : store through which the processes connect
    position : Position
    device : str, such as "cuda"
    interruption : MayStop
    """
    backend = distributed.get_default_backend_for_device(device)
    own = device
    if device == "cuda":
        torch.cuda.set_device(position.rank_here)
        own = f"cuda:{position.rank_here}"
    own_group = not distributed.is_initialized()
    if not own_group and f"{device}:{backend}" not in distributed.get_backend_config():
        raise ValueError(
            f"The process group of this program must have the backend {backend!r} for {device!r}, got "
            f'{distributed.get_backend_config()!r}; call init_process_group("cpu:gloo,cuda:nccl"), or let fit create '
            "the group."
        )
    if own_group:
        distributed.init_process_group(backend, store=store, rank=position.rank, world_size=position.n)
    try:
        with warnings.catch_warnings():
            # the gradient of a 1x1 convolution may have another, equivalent memory format
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield Processes(position, own, lambda: _distributed_fabric(position, device, backend), interruption)
    finally:
        if own_group:
            distributed.destroy_process_group()


def _distributed_fabric(position: Position, device: str, backend: str) -> Fabric:
    with whole_imports():
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import LightningEnvironment
        from lightning_fabric.strategies import DDPStrategy

    class Placed(LightningEnvironment):
        """Report the known position, and start no processes."""

        creates_processes_externally = True

        def world_size(self) -> int:
            return position.n

        def global_rank(self) -> int:
            return position.rank

        def local_rank(self) -> int:
            return position.rank_here

        def set_world_size(self, size: int) -> None:
            pass

        def set_global_rank(self, rank: int) -> None:
            pass

    strategy = DDPStrategy(cluster_environment=Placed(), process_group_backend=backend, gradient_as_bucket_view=True)
    with _threads_kept(), hints_unheard():
        fabric = Fabric(accelerator=device, devices=position.n_here, strategy=strategy, precision="32-true")
        fabric.launch()
    return fabric


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Prevent Fabric from changing the number of threads."""
    chosen = "OMP_NUM_THREADS" in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    try:
        yield
    finally:
        if not chosen:
            del os.environ["OMP_NUM_THREADS"]


# ---- the processes that a fit has joined


_JOINED: ContextVar[Processes | None] = ContextVar("_JOINED", default=None)  # during a fit in several processes


@contextmanager
def joined_as(processes: Processes) -> Iterator[None]:
    """Run a fit as one of these processes."""
    token = _JOINED.set(processes)
    try:
        yield
    finally:
        _JOINED.reset(token)


def present() -> Processes | None:
    """Return the processes that a fit has joined."""
    return _JOINED.get()


def in_first(function: Callable[[], T]) -> T:
    """Call a function in the first of the joined processes, or here if none are joined."""
    processes = present()
    return function() if processes is None else processes.in_first(function)


def check_same(told: Callable[[], dict[str, Any]]) -> None:
    """Refuse a fit whose processes received different data or parameters."""
    processes = present()
    if processes is None:
        return
    marks = processes.of_all(told())
    for rank, other in enumerate(marks):
        differ = [name for name in other if other[name] != marks[0][name]]
        if differ:
            raise ValueError(
                f"The processes of a training must receive the same data and parameters, but {', '.join(differ)} of "
                f"process {rank} differs from that of process 0; read the same X in all processes, and set every "
                "random_state."
            )

"""Choice of device and precision, and the state of torch in which the library computes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

import torch
import torch.utils._device  # get_default_device imports it

from flowdetect._ctrl_c import whole_imports

if TYPE_CHECKING:
    from lightning_fabric import Fabric

P = ParamSpec("P")
R = TypeVar("R")


def resolve_device(device: str) -> str:
    """Turn "auto" into CUDA, MPS or CPU, whichever is available; refuse an unavailable device."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
        found = torch.device(device)
        if found.type == "meta" or (found.type == "cpu" and found.index):
            raise RuntimeError("it cannot compute" if found.type == "meta" else "the CPU has no numbered devices")
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device={device!r} cannot be used here; pass "auto" or "cpu". Torch says: {error}') from error
    return device


def resolve_precision(precision: str, device: str) -> Literal["float32", "bfloat16"]:
    """Turn "auto" into bfloat16 if the device multiplies bfloat16 matrices natively, else float32."""
    if precision != "auto":
        return "bfloat16" if precision == "bfloat16" else "float32"
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    told = getattr(torch.cpu, "get_capabilities", None)  # torch 2.8 lacks it: float32
    capabilities = told() if told is not None and device == "cpu" else {}
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bfloat16" if native else "float32"


def import_for_training() -> None:
    """Import everything that training imports later, so that Ctrl-C never interrupts an import."""
    with whole_imports():
        import lightning_fabric  # noqa: F401

        torch.optim.SGD([torch.zeros(1)]).step()  # its first optimizer step makes torch import its compiler
        for make in (torch.eye, torch.arange):  # the first meta tensor makes it import its symbolic shapes
            make(1, device="meta")


@contextmanager
def hints_unheard() -> Iterator[None]:
    """Suppress Fabric's hints on standard error, e.g. on the precision of each CUDA device."""
    logger = logging.getLogger("lightning_fabric.utilities.rank_zero")

    def is_warning(record: logging.LogRecord) -> bool:  # a new filter per call, so that calls can be nested
        return record.levelno >= logging.WARNING

    logger.addFilter(is_warning)
    try:
        yield
    finally:
        logger.removeFilter(is_warning)


def new_fabric(device: str) -> Fabric:
    """Lightning Fabric on a resolved device, in this process alone."""
    with whole_imports():
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import LightningEnvironment

    kind, _, index = device.partition(":")
    # its own environment: otherwise Fabric looks for other processes of a SLURM, LSF or torchrun job
    devices = [int(index)] if index else 1
    with hints_unheard():
        return Fabric(accelerator=kind, devices=devices, precision="32-true", plugins=[LightningEnvironment()])


@contextmanager
def torch_state(gradients: bool = False) -> Iterator[None]:
    """Compute in torch's initial state: no autocast, no inference mode, the CPU as default device.

    All of these belong to the calling thread; nothing global changes. The default dtype is global and left unchanged:
    the library always names its dtypes.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.set_grad_enabled(gradients))
        yield


def in_torch_state(gradients: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a public method so that it runs in `torch_state`."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @wraps(method)
        def within(*args: P.args, **kwargs: P.kwargs) -> R:
            with torch_state(gradients):
                return method(*args, **kwargs)

        return within

    return decorate

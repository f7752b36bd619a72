"""Memory: freed blocks are kept at hand while steps allocate the same amounts; too large a model is refused."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
NEVER = -1
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes
USUAL_TRIM_THRESHOLD = 2 * LARGEST_MMAP_THRESHOLD  # what glibc arrives at by itself where large blocks are freed

MOST_PARAMETERS = 2**31
BYTES_IN_TRAINING = 16  # of a parameter: itself, its gradient and Adam's two moments, in float32


@cache
def glibc() -> ctypes.CDLL | None:
    """Give the C library; None where it is not glibc."""
    try:
        library = ctypes.CDLL(None)
        return library if library.gnu_get_libc_version and library.mallopt else None
    except (OSError, AttributeError, TypeError):
        return None


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what is freed inside for later allocations, and give it back to the system at the end.

    glibc otherwise returns the top of its heap after every step, and the system clears each page anew before the next:
    with it, a default fit to 28x28 images takes about 0.86 of the time (medians of three interleaved pairs: PixelCNN
    0.86, Glow 0.87). The thresholds are the process's own, and stay at their usual values afterwards.
    """
    library = glibc()
    if library is None:
        yield
        return
    library.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    library.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        library.mallopt(M_TRIM_THRESHOLD, USUAL_TRIM_THRESHOLD)
        library.malloc_trim(0)


def check_size(build: Callable[[], nn.Module], name: str) -> None:
    """Refuse a model that is too large for memory, before any of it is allocated.

    Parameters
    ----------
    build : function that makes the model
        Called on torch's meta device, where parameters have shapes and no values.
    name : str
        Of the density, for the message.
    """
    limit = min(MOST_PARAMETERS, _physical_memory() // BYTES_IN_TRAINING)
    found, here = 0, threading.get_ident()

    def count(module: nn.Module, key: str, parameter: nn.Parameter | None) -> None:
        nonlocal found
        if threading.get_ident() != here:  # torch tells of the models of all threads
            return
        found += 0 if parameter is None else parameter.numel()
        if found > limit:
            raise TooLargeError

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            build()
    except TooLargeError:
        raise ValueError(
            f"{name} must have at most {limit:,} parameters, whose training takes {BYTES_IN_TRAINING} bytes each of "
            f"this machine's memory, and would have more ({found:,} and not all counted); make it smaller: fewer or "
            f"narrower layers, such as hidden_channels or n_filters, n_steps or n_blocks."
        ) from None
    except (RuntimeError, NotImplementedError):  # a model that computes with values while it is built
        return
    finally:
        hook.remove()


class TooLargeError(Exception):
    """More parameters than memory holds."""


def _physical_memory() -> int:
    """Bytes of this machine's memory; where it does not say, as if it had 64 GiB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**36

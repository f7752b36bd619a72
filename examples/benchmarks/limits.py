"""What a machine can do at most, measured: matrix products and memory; and the operations that a model needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import side_by_side as side
import torch
from torch.utils.flop_counter import FlopCounterMode

from flowdetect.nets import compiled

Sizes = tuple[int, int, int]  # n, k, m of a product (n, k) @ (k, m)


def fastest(work: Callable[[], object], seconds: float, device: str) -> float:
    """Seconds of the fastest of many calls."""

    def whole() -> None:
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < seconds:
        best = min(best, side.seconds_of(whole))
    return best


def matrix_rate(sizes: Sizes, dtype: torch.dtype, seconds: float, device: str = "cpu") -> float:
    """Floating-point operations a second of the fastest product of matrices of these sizes."""
    n, k, m = sizes
    a, b = torch.randn(n, k, dtype=dtype, device=device), torch.randn(k, m, dtype=dtype, device=device)
    both = ((a, b), (b.T.contiguous(), a.T.contiguous()))  # as it is, and transposed
    return 2 * n * k * m / min(fastest(lambda x=x, y=y: torch.mm(x, y), seconds, device) for x, y in both)


def memory_rate(n: int, seconds: float, device: str = "cpu") -> float:
    """Bytes a second of c = a + b, each of n float32 values and read or written once."""
    a, b, c = (torch.rand(n, device=device) for _ in range(3))
    return 3 * 4 * n / fastest(lambda: torch.add(a, b, out=c), seconds, device)


def of_the_machine(sizes: Sizes, quick: bool, device: str = "cpu") -> dict[str, float]:
    """Rates of matrix products of these sizes, GFLOP/s, and of memory on arrays of 128 MiB, GB/s."""
    seconds = 0.02 if quick else 0.5
    found = {
        "float32 GFLOP/s": matrix_rate(sizes, torch.float32, seconds, device) / 1e9,
        "bfloat16 GFLOP/s": matrix_rate(sizes, torch.bfloat16, seconds, device) / 1e9,
        "memory GB/s": memory_rate(2**18 if quick else 2**25, seconds, device) / 1e9,
    }
    return {name: float(f"{value:.4g}") for name, value in found.items()}


@contextmanager
def networks_of_torch() -> Iterator[None]:
    """Let torch compute what is compiled, since its counter sees nothing else."""
    ours = compiled.library
    compiled.library = lambda: (None, 0)
    try:
        yield
    finally:
        compiled.library = ours


def counted(work: Callable[[], object]) -> float:
    """Floating-point operations of the convolutions and matrix products of a call."""
    with networks_of_torch(), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def operations_of_a_score(density: Any, X: np.ndarray) -> float:
    """Count those of scoring one row; a step of training takes about three times as many for each."""
    n = min(16, len(X))
    x = density.spec_.to_tensor(X[:n].reshape(n, -1), density.device_)
    with torch.no_grad():
        return counted(lambda: density.model_.log_prob(x)) / n

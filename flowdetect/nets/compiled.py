"""Three convolutions at once, compiled from C, on processors with the necessary instructions.

The library is built at installation if there is a C compiler. It needs AVX-512, and AMX for bfloat16. Otherwise torch
computes the same, and results differ by rounding. The environment variable FLOWDETECT_COMPILED=0 turns it off.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

VERSION = 2  # of the structure and functions below; must equal that of the C file
FLOAT32, BFLOAT16 = 1, 2  # levels of the processor's support
FEWEST_SHARED = 2**24  # multiplications; smaller computations use one thread

SIZES = ("n", "c", "height", "width", "hidden", "out", "k", "x_stride", "bf16", "threads")
ARRAYS = (
    "x",
    "w1",
    "b1",
    "w2",
    "b2",
    "w3",
    "b3",
    "y",
    "g",
    "dx",
    "dw1",
    "db1",
    "dw2",
    "db2",
    "dw3",
    "workspace",
    "parallel",
)


class Call(ctypes.Structure):
    """Arguments of the C function: sizes and addresses."""

    _fields_ = [(name, ctypes.c_int64) for name in SIZES] + [(name, ctypes.c_void_p) for name in ARRAYS]  # noqa: RUF012


@cache
def library() -> tuple[Any, int]:
    """Return the compiled library and the processor's level; None and 0 if there is none for this version."""
    if os.environ.get("FLOWDETECT_COMPILED") == "0":
        return None, 0
    paths = [Path(__file__).with_name(f"_compiled{suffix}") for suffix in EXTENSION_SUFFIXES]
    for path in filter(Path.exists, paths):
        try:
            found = ctypes.CDLL(str(path))
            if found.convnet_version() != VERSION:
                continue
            found.convnet_workspace.restype = ctypes.c_int64
            return found, found.convnet_level()
        except (OSError, AttributeError):
            continue
    return None, 0


@cache
def torch_team() -> int | None:
    """Return the address of `GOMP_parallel` in torch's OpenMP; None for another OpenMP, or outside Linux."""
    try:
        paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
        used = [path for path in paths if str(Path(torch.__file__).parent) in path] or list(paths)
        return ctypes.cast(ctypes.CDLL(used[0]).GOMP_parallel, ctypes.c_void_p).value if len(used) == 1 else None
    except (OSError, AttributeError):
        return None


def can_convolve(x: Tensor, dtype: torch.dtype, kernel_size: int) -> bool:
    """Whether the compiled networks support this input and this type of computation."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or kernel_size == 1 or x.numel() == 0:
        return False
    level = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16}.get(dtype)
    return level is not None and library()[1] >= level and not torch.compiler.is_compiling()


def convolve(x: Tensor, parameters: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Compute three convolutions, kernel sizes k, 1, k, with ReLU between: (n, c, H, W) -> (n, out, H, W).

    Parameters
    ----------
    x : float32 tensor
    parameters : weights and biases, alternating
        All float32. The first bias may be (n, hidden), one per image.
    dtype : torch.float32 or torch.bfloat16
        Type of the computation.
    """
    return _run(x, parameters, dtype, None)[0]


class Convolutions(torch.autograd.Function):
    """`convolve` with gradients; only its arguments are stored for them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parameters)
        ctx.dtype = dtype
        return convolve(x, list(parameters), dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        dx, dw1, db1, dw2, db2, dw3 = _run(x, parameters, ctx.dtype, gradient)
        if parameters[1].ndim == 1:
            db1 = db1.sum(0)
        dw1, dw3 = dw1.permute(0, 3, 1, 2), dw3.permute(0, 3, 1, 2)
        return dx, None, dw1, db1, dw2[:, :, None, None], db2, dw3, gradient.sum((0, 2, 3))


def _run(x: Tensor, parameters: list[Tensor], dtype: torch.dtype, gradient: Tensor | None) -> list[Tensor]:
    """Return y or, given a gradient of y, the gradients of x, w1, b1 (n, hidden), w2, b2 and w3, channels last."""
    w1, b1, w2, b2, w3, b3 = parameters
    n, c, height, width = x.shape
    hidden, out, k = w1.shape[0], w3.shape[0], w1.shape[2]
    if x.stride()[1:] != (height * width, width, 1):
        x = x.contiguous()
    products = n * height * width * hidden * (k * k * (c + out) + hidden)
    threads = torch.get_num_threads() if products > FEWEST_SHARED else 1
    given = {"x": x, "w1": w1.permute(0, 2, 3, 1), "b1": b1.expand(n, hidden), "w2": w2, "b2": b2}
    given |= {"w3": w3.permute(0, 2, 3, 1), "b3": b3}
    if gradient is None:
        results = {"y": x.new_empty(n, out, height, width)}
    else:
        given["g"] = gradient
        shapes = {"dx": (n, c, height, width), "dw1": (hidden, k, k, c), "db1": (n, hidden), "dw2": (hidden, hidden)}
        shapes |= {"db2": (hidden,), "dw3": (out, k, k, hidden)}
        results = {name: x.new_empty(shape) for name, shape in shapes.items()}
    held = {name: tensor if name == "x" else tensor.contiguous() for name, tensor in given.items()} | results
    sizes = (n, c, height, width, hidden, out, k, x.stride(0), dtype == torch.bfloat16, threads)
    call = Call(*sizes, **{name: tensor.data_ptr() for name, tensor in held.items()})
    functions, backward = library()[0], int(gradient is not None)
    workspace = torch.empty(functions.convnet_workspace(ctypes.byref(call), backward), dtype=torch.uint8)
    call.workspace, call.parallel = workspace.data_ptr(), torch_team()
    functions.convnet_run(ctypes.byref(call), backward)
    return list(results.values())

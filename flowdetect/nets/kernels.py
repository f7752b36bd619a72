"""Elementwise operations of gated residual layers, each in one pass over memory, for training on a CPU.

torch needs seven passes for the elus of x and of -x. numba compiles the loops at their first use, in about a second;
without numba, `kernels` returns None. bfloat16 is read and written as the upper half of a float32. Inner loops have a
fixed length, so that they consist of vector instructions only; the last one overlaps the previous one. Results are
close to torch's but not bitwise equal, so scoring does not use them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from flowdetect._ctrl_c import whole_imports

LANES = 16  # channels per inner loop, and so the minimum number of channels

Array = Any  # (n, H, W, c) in C order, float32, or bfloat16 viewed as uint16


@dataclass(frozen=True)
class Kernels:
    """Loops over images (n, H, W, c) of one number type.

    Attributes
    ----------
    elus : (x, out, top, left)
        Write the concatenated elus of x and of -x into the inner part of an array, with zeros around it.
    elus_of_sum : (x, other, out, top, left)
        The same for x + other.
    elus_backward : (grad, elus, grad_x, top, left)
        Gradient in x from the gradient in the padded elus.
    elus_backward_add : (grad, elus, base, grad_x, top, left)
        The same, plus base.
    gate : (x, y, out)
        out = x + a (1 + tanh(b)), with (a, b) the halves of y's channels.
    gate_backward : (grad, y, grad_y)
    """

    elus: Callable[..., None]
    elus_of_sum: Callable[..., None]
    elus_backward: Callable[..., None]
    elus_backward_add: Callable[..., None]
    gate: Callable[..., None]
    gate_backward: Callable[..., None]


def as_array(x: Tensor) -> Array:
    """Return the memory of a tensor (n, c, H, W) in channels-last order."""
    x = x.permute(0, 2, 3, 1)
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


@cache
def kernels(dtype: torch.dtype) -> Kernels | None:
    """Compile the loops for bfloat16 or float32; None without numba."""
    try:
        with whole_imports():
            import numba
    except ImportError:
        return None
    return _compiled(numba, dtype)


def _compiled(numba: Any, dtype: torch.dtype) -> Kernels:
    is_short = dtype == torch.bfloat16
    wide, narrow, exp, tanh = _functions(numba, is_short)
    array = numba.types.Array(numba.types.uint16 if is_short else numba.types.float32, 4, "C")
    u64, one, zero = numba.uint64, numba.float32(1), numba.float32(0)

    def compiled(n_arrays: int, n_offsets: int = 0) -> Callable[[Callable[..., None]], Callable[..., None]]:
        signature = numba.void(*[array] * n_arrays, *[numba.int64] * n_offsets)
        loop: Callable[..., Any] = numba.njit(
            [signature], fastmath={"contract", "nsz", "nnan"}, error_model="numpy", nogil=True
        )
        return loop

    def elus_loop(of_sum: bool) -> Callable[..., None]:
        @compiled(3, 2)
        def write(x, other, out, top, left):  # type: ignore[no-untyped-def]
            n, height, width, c = x.shape
            for i in range(n):
                out[i, :top] = 0
                out[i, top + height :] = 0
                for r in range(height):
                    out[i, r + top, :left] = 0
                    out[i, r + top, left + width :] = 0
                    for q in range(width):
                        for group in range((c + LANES - 1) // LANES):
                            start = u64(min(group * LANES, c - LANES))
                            for lane in range(LANES):
                                k = start + u64(lane)
                                v = wide(x[i, r, q, k]) + wide(other[i, r, q, k]) if of_sum else wide(x[i, r, q, k])
                                e = exp(-abs(v)) - one
                                out[i, r + top, q + left, k] = narrow(max(v, e))
                                out[i, r + top, q + left, k + u64(c)] = narrow(max(-v, e))

        return write

    @numba.njit(inline="always")
    def slope(elu):  # type: ignore[no-untyped-def]
        return min(elu, zero) + one

    def backward_loop(added: bool) -> Callable[..., None]:
        @compiled(4, 2)
        def write(grad, elus, base, grad_x, top, left):  # type: ignore[no-untyped-def]
            n, height, width, c = grad_x.shape
            for i in range(n):
                for r in range(height):
                    for q in range(width):
                        for group in range((c + LANES - 1) // LANES):
                            start = u64(min(group * LANES, c - LANES))
                            for lane in range(LANES):
                                k = start + u64(lane)
                                plus = wide(grad[i, r + top, q + left, k]) * slope(wide(elus[i, r + top, q + left, k]))
                                m = k + u64(c)
                                minus = wide(grad[i, r + top, q + left, m]) * slope(wide(elus[i, r + top, q + left, m]))
                                start_value = wide(base[i, r, q, k]) if added else zero
                                grad_x[i, r, q, k] = narrow(start_value + plus - minus)

        return write

    @compiled(3)
    def gate(x, y, out):  # type: ignore[no-untyped-def]
        n, height, width, c = x.shape
        for i in range(n):
            for r in range(height):
                for q in range(width):
                    for group in range((c + LANES - 1) // LANES):
                        start = u64(min(group * LANES, c - LANES))
                        for lane in range(LANES):
                            k = start + u64(lane)
                            a, t = wide(y[i, r, q, k]), tanh(wide(y[i, r, q, k + u64(c)]))
                            out[i, r, q, k] = narrow(wide(x[i, r, q, k]) + a * (one + t))

    @compiled(3)
    def gate_backward(grad, y, grad_y):  # type: ignore[no-untyped-def]
        n, height, width, c = grad.shape
        for i in range(n):
            for r in range(height):
                for q in range(width):
                    for group in range((c + LANES - 1) // LANES):
                        start = u64(min(group * LANES, c - LANES))
                        for lane in range(LANES):
                            k = start + u64(lane)
                            a, t = wide(y[i, r, q, k]), tanh(wide(y[i, r, q, k + u64(c)]))
                            g = wide(grad[i, r, q, k])
                            grad_y[i, r, q, k] = narrow(g * (one + t))
                            grad_y[i, r, q, k + u64(c)] = narrow(g * a * (one - t * t))

    elus_of_one, gradient = elus_loop(of_sum=False), backward_loop(added=False)

    def elus(x: Array, out: Array, top: int, left: int) -> None:
        elus_of_one(x, x, out, top, left)

    def elus_backward(grad: Array, elus: Array, grad_x: Array, top: int, left: int) -> None:
        gradient(grad, elus, grad_x, grad_x, top, left)

    return Kernels(elus, elus_loop(True), elus_backward, backward_loop(True), gate, gate_backward)


def _functions(numba: Any, is_short: bool) -> tuple[Any, Any, Any, Any]:
    """Read a number, write a number, exp(x) for x <= 0, and tanh; in float32, within 2 units of the last place."""
    from llvmlite import ir

    u32, f32 = numba.uint32, numba.float32

    @numba.extending.intrinsic
    def as_float(context, x):  # type: ignore[no-untyped-def]
        return numba.types.float32(numba.types.uint32), lambda c, builder, s, args: builder.bitcast(
            args[0], ir.FloatType()
        )

    @numba.extending.intrinsic
    def as_bits(context, x):  # type: ignore[no-untyped-def]
        return numba.types.uint32(numba.types.float32), lambda c, builder, s, args: builder.bitcast(
            args[0], ir.IntType(32)
        )

    @numba.njit(inline="always")
    def wide(x):  # type: ignore[no-untyped-def]
        return as_float(u32(x) << u32(16)) if is_short else x

    @numba.njit(inline="always")
    def narrow(x):  # type: ignore[no-untyped-def]
        if is_short:
            bits = as_bits(x)
            return numba.uint16((bits + u32(0x7FFF) + ((bits >> u32(16)) & u32(1))) >> u32(16))  # to nearest even
        return x

    @numba.njit(inline="always")
    def exp(x):  # type: ignore[no-untyped-def]
        # 2^k e^r, |r| <= log(2) / 2: adding 1.5 * 2^23 rounds k; a polynomial approximates e^r
        x = max(x, f32(-87.0))
        shifted = x * f32(1.44269504) + f32(12582912.0)
        k = shifted - f32(12582912.0)
        r = x - k * f32(0.693359375) + k * f32(2.12194440e-4)  # log(2) in two parts
        p = f32(1.9875691500e-4)
        p = p * r + f32(1.3981999507e-3)
        p = p * r + f32(8.3334519073e-3)
        p = p * r + f32(4.1665795894e-2)
        p = p * r + f32(1.6666665459e-1)
        p = p * r + f32(5.0000001201e-1)
        p = p * r * r + r + f32(1)
        return as_float(as_bits(p) + (as_bits(shifted) << u32(23)))

    @numba.njit(inline="always")
    def tanh(x):  # type: ignore[no-untyped-def]
        e = exp(f32(-2) * abs(x))
        size = (f32(1) - e) / (f32(1) + e)
        return as_float(as_bits(size) | (as_bits(x) & u32(0x80000000)))

    return wide, narrow, exp, tanh

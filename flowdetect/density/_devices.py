"""The one place where a device and a precision are chosen."""

from __future__ import annotations

from typing import Literal

import torch


def resolve_device(device: str) -> str:
    """Turn "auto" into CUDA, MPS or CPU, by what is there; refuse a device that is not."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device={device!r} cannot be used here; pass "auto" or "cpu". Torch says: {error}') from error
    return device


def resolve_precision(precision: str, device: str) -> Literal["float32", "bfloat16"]:
    """Turn "auto" into bfloat16 where the device multiplies matrices of it natively, else float32."""
    if precision != "auto":
        return "bfloat16" if precision == "bfloat16" else "float32"
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = torch.cpu.get_capabilities() if device == "cpu" else {}
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bfloat16" if native else "float32"

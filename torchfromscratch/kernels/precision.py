"""The type that sums and exponentials are computed in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

NARROW_TYPES = (torch.float16, torch.bfloat16)


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """float32 for a narrow float: layers compute in that and round once, as torch's kernels do."""
    return torch.float32 if dtype in NARROW_TYPES else dtype


def widen(tensor: Tensor) -> Tensor:
    """A tensor of the `wide_type`; the very tensor where it is, as torch 2.6 compiles a cast to nothing wrongly."""
    dtype = wide_type(tensor.dtype)
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def round_to(number: float, dtype: torch.dtype) -> float:
    """A number as a tensor of this type holds it, which gets it by way of the `wide_type`."""
    if not math.isfinite(number):
        return number
    if dtype in NARROW_TYPES:
        number = round_to(number, wide_type(dtype))
    info = torch.finfo(dtype)
    _, exponent = math.frexp(number)
    step = info.eps * max(2.0 ** (exponent - 1), info.tiny)
    return round(number / step) * step


def convolutions_use_tf32() -> bool:
    """Whether torch.nn's convolutions of float32 round factors to 10 bits on CUDA: cuDNN's flag, on by default."""
    cudnn: Any = torch.backends.cudnn
    if hasattr(cudnn, "conv"):  # from torch 2.9 on, which raises where the older name would be ambiguous
        return cudnn.conv.fp32_precision == "tf32"
    return cudnn.allow_tf32


@contextmanager
def products_as_of_convolutions() -> Iterator[None]:
    """Products of matrices on CUDA round as torch.nn's convolutions do, which have a flag of their own.

    The older name sets the newer one too, and not the other way round. Where only the newer is in use, torch raises for
    the older.
    """
    matmul: Any = torch.backends.cuda.matmul
    allowed, before = convolutions_use_tf32(), getattr(matmul, "fp32_precision", None)
    try:
        _ = matmul.allow_tf32
        older = torch.get_float32_matmul_precision()
    except RuntimeError:
        older = None
    if older is None:
        matmul.fp32_precision = "tf32" if allowed else "ieee"
    else:
        matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older)  # "medium" is one that allow_tf32 has no word for
        if before is not None:
            matmul.fp32_precision = before

"""The type that sums and exponentials are computed in."""

from __future__ import annotations

import math
import threading
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


class _Products:
    """How many now multiply as convolutions round, in whatever thread, and what the flags were before the first did."""

    lock = threading.Lock()
    users = 0
    before: tuple[str | None, str | None] = (None, None)


@contextmanager
def products_as_of_convolutions() -> Iterator[None]:
    """Products of matrices on CUDA round as torch.nn's convolutions do, which have a flag of their own.

    torch has one flag for all threads. The backward passes on several cards each have a thread: the first one sets it,
    and the last one gives it back.
    """
    with _Products.lock:
        if _Products.users == 0:
            _Products.before = _set_rounding_of_products(convolutions_use_tf32())
        _Products.users += 1
    try:
        yield
    finally:
        with _Products.lock:
            _Products.users -= 1
            if _Products.users == 0:
                _restore_rounding_of_products(*_Products.before)


def _set_rounding_of_products(to_tf32: bool) -> tuple[str | None, str | None]:
    """What was set before by the older and the newer name, None for a name that is not in use.

    The older name sets the newer one too, and not the other way round. Where only the newer is in use, torch raises for
    the older.
    """
    matmul: Any = torch.backends.cuda.matmul
    before = getattr(matmul, "fp32_precision", None)
    try:
        _ = matmul.allow_tf32
        older = torch.get_float32_matmul_precision()
    except RuntimeError:
        matmul.fp32_precision = "tf32" if to_tf32 else "ieee"
        return None, before
    matmul.allow_tf32 = to_tf32
    return older, before


def _restore_rounding_of_products(older: str | None, newer: str | None) -> None:
    if older is not None:
        torch.set_float32_matmul_precision(older)  # "medium" is one that allow_tf32 has no word for
    if newer is not None:
        matmul: Any = torch.backends.cuda.matmul
        matmul.fp32_precision = newer

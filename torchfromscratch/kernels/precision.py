"""The type that sums and exponentials are computed in."""

import math

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

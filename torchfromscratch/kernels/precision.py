"""The type that sums and exponentials are computed in."""

import torch
from torch import Tensor

NARROW_TYPES = (torch.float16, torch.bfloat16)


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """float32 for a narrow float: layers compute in that and round once, as torch's kernels do."""
    return torch.float32 if dtype in NARROW_TYPES else dtype


def widened(tensor: Tensor) -> Tensor:
    """A tensor of the `wide_type`; the very tensor where it is, as torch 2.6 compiles a cast to nothing wrongly."""
    dtype = wide_type(tensor.dtype)
    return tensor if tensor.dtype == dtype else tensor.to(dtype)

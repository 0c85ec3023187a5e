"""The type that sums and exponentials are computed in."""

import torch
from torch import Tensor

NARROW_TYPES = (torch.float16, torch.bfloat16)


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """float32 for a narrow float: layers compute in that and round once, as torch's kernels do."""
    return torch.float32 if dtype in NARROW_TYPES else dtype


def widened(tensor: Tensor) -> Tensor:
    """A tensor of the `wide_type`."""
    return tensor.to(wide_type(tensor.dtype))

"""The type that sums and exponentials are computed in."""

import torch
from torch import Tensor

NARROW_TYPES = (torch.float16, torch.bfloat16)


def widened(tensor: Tensor) -> Tensor:
    """A narrow float as float32: layers compute in that and round once, as torch's kernels do."""
    return tensor.float() if tensor.dtype in NARROW_TYPES else tensor

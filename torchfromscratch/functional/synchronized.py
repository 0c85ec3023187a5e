"""Batch norm over processes; torch has no function of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.synchronized import all_sum, synchronized_norm
from torchfromscratch.functional.normalization import update_running
from torchfromscratch.kernels.precision import wide_type

__all__ = ["sync_batch_norm"]


def sync_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    group: Any,
) -> Tensor:
    """`batch_norm` in training, of the batches that all processes of the group have, whatever their sizes.

    Shapes: as of `batch_norm`. Raises ValueError for one value per channel in all.
    """
    local = torch.full((1,), input.numel() // max(input.shape[1], 1), dtype=torch.float64, device=input.device)
    count = all_sum(local, group)
    total = int(count)
    if total < 2:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
    output, mean, variance = synchronized_norm(input, weight, bias, count.to(wide_type(input.dtype)), eps, group)
    update_running(running_mean, running_var, mean, variance, momentum, total)
    return output

"""What becomes of the losses of the samples: all of them, their sum or their mean."""

from __future__ import annotations

import torch.nn
from torch import Tensor

__all__ = ["REDUCTIONS", "choose_reduction", "reduce_losses"]

# In the order of the numbers by which torch's operators know them.
REDUCTIONS = ("none", "mean", "sum")


def reduce_losses(losses: Tensor, reduction: str, total: Tensor | None = None) -> Tensor:
    """The losses, their sum, or the sum divided by `total`, which is their number unless given."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    fractions = losses.is_floating_point() or losses.is_complex()
    if total is None and (losses.numel() == 0 or not fractions):
        return losses.mean()  # which knows both cases
    # a sum's gradient is one number for all elements, where that of `mean` is written out for each
    return losses.sum() / (losses.numel() if total is None else total)


def choose_reduction(reduction: str, size_average: bool | None = None, reduce: bool | None = None) -> str:
    """The reduction to make; the two arguments that PyTorch deprecates have the last word."""
    if size_average is not None or reduce is not None:
        return torch.nn.MSELoss(size_average, reduce).reduction
    if reduction not in REDUCTIONS:
        raise ValueError(f'{reduction} is not a valid value for reduction: it must be "none", "mean" or "sum"')
    return reduction

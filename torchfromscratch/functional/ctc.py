"""Connectionist temporal classification."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.autograd.ctc import ctc
from torchfromscratch.functional.arguments import not_implemented
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.functional.reduction import choose_reduction
from torchfromscratch.kernels.execution import has_concrete_values
from torchfromscratch.kernels.precision import widen

__all__ = ["ctc_loss"]


@autocast(cpu="float32", cuda="float32")
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """−log of the probability that the classes of the steps spell the target, over all alignments.

    dL/dx[t, c] = y[t, c] − Σ γ_t(s) over the labels s that are c, of log-probabilities x = log y.

    Args:
        log_probs: x (T, N, C), as of log_softmax; (T, C) without a batch.
        targets: classes but `blank`, (N, S), or all of them one after the other.
        input_lengths, target_lengths: how many steps and how many labels of each sample count, (N).
        reduction: "mean" divides each loss by its number of labels first.
        zero_infinity: make losses of targets that are too long, and their gradients, 0 instead of ∞ and NaN.

    Raises RuntimeError for shapes, types, lengths and a blank that do not fit.
    Source: A. Graves et al., "Connectionist Temporal Classification", 2006.
    """
    reduction = choose_reduction(reduction)
    if not log_probs.is_floating_point():
        raise not_implemented("ctc_loss", log_probs.dtype)
    if log_probs.dim() not in (2, 3):
        raise RuntimeError(f"log_probs must be (T, N, C) or (T, C), but got {list(log_probs.shape)}")
    if log_probs.numel() == 0:
        raise RuntimeError(f"log_probs tensor must not be empty, but got {list(log_probs.shape)}")
    x = log_probs if log_probs.dim() == 3 else log_probs.unsqueeze(1)
    if not 0 <= blank < x.shape[2]:
        raise RuntimeError(f"blank must be in label range: 0 to {x.shape[2] - 1}, but got {blank}")
    steps = _lengths("input_lengths", input_lengths, x, x.shape[0])
    lengths = _lengths("target_lengths", target_lengths, x, targets.shape[1] if targets.dim() == 2 else None)
    losses, _ = ctc(widen(x), _pad_targets(targets, lengths), steps, lengths, blank, zero_infinity)
    if reduction == "mean":
        losses = (losses / lengths.clamp(min=1)).mean()
    elif reduction == "sum":
        losses = losses.sum()
    elif log_probs.dim() == 2:
        losses = losses.squeeze(0)
    return losses.to(log_probs.dtype)


def _lengths(name: str, given: Tensor | Sequence[int], x: Tensor, most: int | None) -> Tensor:
    """As integers (N) where x is, none of them more than there are."""
    if isinstance(given, Tensor) and (given.is_floating_point() or given.dtype == torch.bool):
        raise RuntimeError(f"{name} must be integral, but got {given.dtype}")
    lengths = given if isinstance(given, Tensor) else torch.tensor(given)
    lengths = lengths.to(x.device, torch.int64).reshape(-1)
    if lengths.shape[0] != x.shape[1]:
        raise RuntimeError(f"{name} must be of size batch_size {x.shape[1]}, but got {lengths.shape[0]}")
    if lengths.device.type == "cpu" and has_concrete_values(lengths) and lengths.numel():
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or (most is not None and high > most):
            raise RuntimeError(
                f"Expected {name} to have value at least 0 and at most {most}, but got value {low if low < 0 else high}"
            )
    return lengths


def _pad_targets(targets: Tensor, lengths: Tensor) -> Tensor:
    """(N, S) in int64, of targets that stand one after the other too."""
    if targets.dim() == 2:
        if targets.shape[0] != lengths.shape[0]:
            raise RuntimeError(f"Expected {lengths.shape[0]} targets, but got {targets.shape[0]}")
        return targets.long()
    if targets.dim() != 1:
        raise RuntimeError(f"targets must be (N, S) or one after the other, but got {list(targets.shape)}")
    most, total = targets.shape[0], targets.shape[0]
    if has_concrete_values(lengths):
        most, total = int(lengths.max()) if lengths.numel() else 0, int(lengths.sum())
    if total > targets.shape[0] or (total < targets.shape[0] and lengths.shape[0] > 0):
        raise RuntimeError(f"Expected targets of {total} labels in all, but got {targets.shape[0]}")
    if most == 0:
        return targets.new_zeros((lengths.shape[0], 0), dtype=torch.int64)
    index = (lengths.cumsum(0) - lengths).unsqueeze(1) + torch.arange(most, device=targets.device)
    return targets.long()[index.clamp(max=targets.shape[0] - 1)]

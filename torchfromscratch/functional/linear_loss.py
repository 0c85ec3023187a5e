"""Cross-entropy behind a fully connected layer, where torch has it."""

from __future__ import annotations

import math
from typing import Any

import torch.nn
from torch import Tensor

from torchfromscratch.functional.linear import linear
from torchfromscratch.functional.loss import cross_entropy

__all__ = ["linear_cross_entropy"] if hasattr(torch.nn.functional, "linear_cross_entropy") else []


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """`cross_entropy` of the logits z = W x + b, with the gradients of both.

    Shapes: input (N, in_features) or (in_features), linear_weight (C, d1, …, in_features), linear_bias (C, d1, …);
    target, weight, reduction and label_smoothing as of `cross_entropy`. `options`, of how torch saves memory, change
    nothing that is computed. Raises RuntimeError for shapes that do not fit, and for an `ignore_index` of targets that
    are probabilities.
    """
    if input.dim() not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {input.dim()}")
    if linear_weight.dim() < 2:
        raise RuntimeError(f"expected linear_weight with dimensionality at least 2, got {linear_weight.dim()}")
    classes, *places, in_features = linear_weight.shape
    if input.shape[-1] != in_features:
        raise RuntimeError(
            "expected equal input and linear_weight last dimensions (in_features), "
            f"got {input.shape[-1]} and {in_features}, respectively"
        )
    if linear_bias is not None and tuple(linear_bias.shape) != (classes, *places):
        raise RuntimeError(f"expected linear_bias shape {(classes, *places)}, got {tuple(linear_bias.shape)}")
    if places and input.dim() == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {tuple(linear_weight.shape)} requires batched input, "
            f"(N, {in_features}), got unbatched input with shape {tuple(input.shape)}"
        )
    rows = math.prod([classes, *places])
    bias = None if linear_bias is None else linear_bias.reshape(rows)
    logits = linear(input, linear_weight.reshape(rows, in_features), bias)
    logits = logits.reshape(*input.shape[:-1], classes, *places)
    if target.shape == logits.shape and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    return cross_entropy(
        logits,
        target,
        weight,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )

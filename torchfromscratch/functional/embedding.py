"""Embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch.autograd.embedding import lookup
from torchfromscratch.kernels.execution import without_derivative

__all__ = ["embedding"]


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of the table `weight` that `input` names, whose gradients are added up where a row is named twice.

    y[i] = W[input[i]], dL/dW[v] = Σ dL/dy[i] over the i with input[i] = v.

    Args:
        input: integers from 0 to V − 1, of any shape (*).
        weight: the table (V, D) → the output (*, D).
        padding_idx: a row that receives no gradient.
        max_norm, norm_type: first scale each named row of `weight`, in place, to at most this p-norm.
        scale_grad_by_freq: divide the gradient of a row by how often it is named.
        sparse: make the gradient a sparse tensor of the named rows.

    Raises IndexError for an index that the table has no row for, RuntimeError for a table that is no matrix
    and indices that are not int32 or int64, AssertionError for a padding_idx outside the table.

    Source: Y. Bengio et al., "A Neural Probabilistic Language Model", 2003.
    """
    if weight.dim() != 2:
        raise RuntimeError(f"'weight' must be 2-D: a table of size (V, D), but got {tuple(weight.shape)}")
    if input.dtype not in (torch.int32, torch.int64):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; "
            f"but got {input.type()} instead (embedding takes int32 and int64)"
        )
    rows = weight.shape[0]
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise AssertionError(f"padding_idx {padding_idx} is outside the table of {rows} rows")
        padding_idx %= rows
    if max_norm is not None:
        _renormalize(weight, input.reshape(-1), max_norm, norm_type)
    return lookup(weight, input, padding_idx, scale_grad_by_freq, sparse)


@without_derivative
def _renormalize(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the named rows of `weight` whose norm exceeds max_norm down to it, in place."""
    named = weight.index_select(0, index)
    norm = torch.linalg.vector_norm(named, norm_type, dim=1, keepdim=True)
    scale = torch.where(norm > max_norm, max_norm / (norm + 1e-7), 1.0)  # torch's 1e-7, against division by 0
    weight.index_copy_(0, index.long(), named * scale)

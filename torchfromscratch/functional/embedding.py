"""Embedding, of single rows and of bags of them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from torchfromscratch.autograd.embedding import bag_sum, lookup, take_rows
from torchfromscratch.kernels import bags
from torchfromscratch.kernels.execution import has_concrete_values, without_derivative
from torchfromscratch.kernels.precision import widen

__all__ = ["embedding", "embedding_bag"]


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


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or maximum of each bag of rows of the table `weight`, without the rows themselves.

    Sum: y[b] = Σ s[i] · W[input[i]] over the members i of bag b, with dL/dW[v] = Σ s[i] · dL/dy[bag of i] over the i
    with input[i] = v and dL/ds[i] = dL/dy[bag of i] · W[input[i]]. The mean divides it by the size of the bag; of the
    maximum, each element's gradient goes to the first of the rows that reach it. An empty bag gives 0.

    Args:
        input: integers from 0 to V − 1: bags of one size (B, M), or one bag after the other (M).
        weight: the table (V, D) → the output (B, D).
        offsets: where each bag of an input (M) begins (B), and with `include_last_offset` where the last one ends.
        per_sample_weights: s, of the input's shape and the table's type; for the sum alone.
        padding_idx: a row whose members are left out of their bags.
        max_norm, norm_type, scale_grad_by_freq, sparse: as of `embedding`; the latter two not for the maximum.

    Raises ValueError for shapes and modes that do not fit, RuntimeError for types, indices and offsets that do not,
    NotImplementedError for weights of a mean or a maximum.

    Source: A. Joulin et al., "Bag of Tricks for Efficient Text Classification", 2016.
    """
    if weight.dtype == torch.long and input.is_floating_point():
        warnings.warn("embedding_bag takes the indices first and the table second", stacklevel=3)
        input, weight = weight, input
    _check_bags(input, weight, offsets, mode, scale_grad_by_freq, sparse, per_sample_weights)
    index, scale = input, per_sample_weights
    if offsets is None:
        _, size = input.shape
        offsets = torch.arange(0, input.numel(), size, dtype=input.dtype, device=input.device)
        index, scale = input.reshape(-1), None if scale is None else scale.reshape(-1)
    else:
        index, scale, offsets = _concatenate(index, scale, offsets, include_last_offset)
    padding_idx = _check_padding(padding_idx, index, weight)
    if max_norm is not None:
        _renormalize(weight, index, max_norm, norm_type)
    if mode == "max":
        return take_rows(weight, bags.winners(weight.detach(), index, offsets, padding_idx))
    total = bag_sum(weight, scale, index, offsets, padding_idx, scale_grad_by_freq, sparse)
    if mode == "sum":
        return total
    sizes = (
        bags.bag_lengths(index, offsets) if padding_idx is None else bags.count_members(index != padding_idx, offsets)
    )
    return (widen(total) / sizes.clamp(min=1).unsqueeze(-1)).to(total.dtype)


def _check_bags(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None,
    mode: str,
    by_frequency: bool,
    sparse: bool,
    scale: Tensor | None,
) -> None:
    if scale is not None and input.shape != scale.shape:
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({scale.shape}) is not None, "
            f"then it must have the same shape as the input ({input.shape})"
        )
    if weight.dim() != 2:
        raise ValueError(f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.dim()}")
    if input.dim() not in (1, 2):
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.dim()}")
    if input.dim() == 2 and offsets is not None:
        raise ValueError(
            "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length "
            f"sequences. However, found offsets of type {type(offsets)}"
        )
    if input.dim() == 1 and (offsets is None or offsets.dim() != 1):
        raise ValueError(f"offsets has to be a 1D Tensor but got {None if offsets is None else list(offsets.shape)}")
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"mode has to be one of sum, mean or max, but got {mode!r}")
    if mode == "max" and by_frequency:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError("max mode does not support sparse weights")
    if mode != "sum" and scale is not None:
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
            f"(got mode='{mode}')"
        )
    for name, indices in (("indices", input), ("offsets", offsets)):
        if indices is not None and indices.dtype not in (torch.int32, torch.int64):
            raise RuntimeError(
                f"Expected tensor for argument '{name}' to have one of the following scalar types: Long, Int; "
                f"but got {indices.type()} instead (while checking arguments for embedding_bag)"
            )
    if not weight.is_floating_point():
        raise RuntimeError(
            "Expected tensor for argument 'weight' to have one of the following scalar types: Half, BFloat16, Float, "
            f"Double; but got {weight.type()} instead (while checking arguments for embedding_bag)"
        )
    if scale is not None and scale.dtype != weight.dtype:
        raise RuntimeError(
            "Expected tensor for argument 'weight' to have the same type as tensor for argument 'per_sample_weights'; "
            f"but type {weight.type()} does not equal {scale.type()} (while checking arguments for embedding_bag)"
        )


def _concatenate(
    index: Tensor, scale: Tensor | None, offsets: Tensor, include_last_offset: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The members up to the last bag's end, their weights, and where each bag begins."""
    if include_last_offset and offsets.shape[0] == 0:
        raise RuntimeError("include_last_offset: number of offset should be at least 1")
    length = index.shape[0]
    if has_concrete_values(offsets) and offsets.device.type == "cpu" and offsets.shape[0]:
        first, last = int(offsets[0]), int(offsets[-1])
        if first != 0:
            raise RuntimeError(
                "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. "
                f"However, got {first}"
            )
        if last > length:
            raise RuntimeError(
                f"offsets[-1] can not be greater than input's length {length} but got offsets[-1] of {last}"
            )
        if include_last_offset and last < length:
            index, scale = index[:last], None if scale is None else scale[:last]
    dtype = torch.promote_types(index.dtype, offsets.dtype)
    return index.to(dtype), scale, (offsets[:-1] if include_last_offset else offsets).to(dtype)


def _check_padding(padding_idx: int | None, index: Tensor, weight: Tensor) -> int | None:
    """`padding_idx` counted from the beginning, of a table that has all rows that are named."""
    rows = weight.shape[0]
    if index.device.type == "cpu" and has_concrete_values(index) and index.numel():
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= rows:
            wrong = low if low < 0 else high
            raise RuntimeError(f"Index of input takes value {wrong} which is not in the valid range [0, {rows})")
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise RuntimeError(
            f"padding_idx must be within the number of embeddings, {-rows} through {rows - 1}, but got {padding_idx}"
        )
    return padding_idx % rows


@without_derivative
def _renormalize(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the named rows of `weight` whose norm exceeds max_norm down to it, in place."""
    named = weight.index_select(0, index)
    norm = torch.linalg.vector_norm(named, norm_type, dim=1, keepdim=True)
    scale = torch.where(norm > max_norm, max_norm / (norm + 1e-7), 1.0)  # torch's 1e-7, against division by 0
    weight.index_copy_(0, index.long(), named * scale)

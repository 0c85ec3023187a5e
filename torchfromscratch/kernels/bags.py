"""Bags: consecutive members of a list, whose rows of a table are reduced to one. A bag ends where the next begins.

On a CPU a sum over bags is a product of two matrices: a sparse one of the members' weights, and the table. No row is
copied. Elsewhere rows are fetched and added to the sums of their bags.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch.kernels.execution import in_plain_cpu_memory
from torchfromscratch.kernels.precision import widen
from torchfromscratch.kernels.sparse import HAS_SPARSE_PRODUCTS, sparse_matrix

# Bags of different lengths are filled up to the longest, unless that takes so many times their members.
MOST_PADDING = 4


def bag_index(members: Tensor, offsets: Tensor) -> Tensor:
    """The number of the bag that each member is in."""
    positions = torch.arange(members.shape[0], dtype=offsets.dtype, device=offsets.device)
    return torch.searchsorted(offsets.contiguous(), positions, right=True) - 1


def bag_lengths(members: Tensor, offsets: Tensor) -> Tensor:
    """How many members each bag has."""
    return torch.diff(offsets, append=offsets.new_full((1,), members.shape[0]))


def count_members(is_member: Tensor, offsets: Tensor) -> Tensor:
    """How many members each bag has of those that `is_member` marks."""
    return torch.zeros_like(offsets).index_add(0, bag_index(is_member, offsets), is_member.to(offsets.dtype))


def bag_sum(weight: Tensor, scale: Tensor | None, index: Tensor, offsets: Tensor, padding_idx: int | None) -> Tensor:
    """y[b] = Σ s[i] · W[index of i] over the members i of bag b that are no padding."""
    if _is_sparse_product(weight, scale, index, offsets, padding_idx):
        return _sparse_product(weight, scale, index, offsets)
    rows = widen(weight.index_select(0, index))
    if scale is not None:
        rows = rows * widen(scale).unsqueeze(-1)
    if padding_idx is not None:
        rows = rows.masked_fill((index == padding_idx).unsqueeze(-1), 0)
    total = rows.new_zeros(offsets.shape[0], weight.shape[1])
    return total.index_add(0, bag_index(index, offsets), rows).to(weight.dtype)


def winners(weight: Tensor, index: Tensor, offsets: Tensor, padding_idx: int | None) -> Tensor:
    """The row of the largest element of each bag in each column, (B, D): of equals the first; −1 of an empty bag."""
    if in_plain_cpu_memory(weight, index, offsets) and index.numel():
        longest = int(bag_lengths(index, offsets).max())
        if longest * offsets.shape[0] <= MOST_PADDING * index.shape[0]:
            return _winners_of_padded(weight, index, offsets, padding_idx, longest)
    return _winners_of_any(weight, index, offsets, padding_idx)


def _winners_of_padded(weight: Tensor, index: Tensor, offsets: Tensor, padding_idx: int | None, longest: int) -> Tensor:
    """Bags as the rows of a matrix, (B, longest), filled with what is no member."""
    place = torch.arange(longest, dtype=index.dtype)
    positions = (offsets.unsqueeze(1) + place).clamp(max=index.shape[0] - 1)
    named = index.index_select(0, positions.view(-1)).view(positions.shape)
    is_member = place < bag_lengths(index, offsets).unsqueeze(1)
    if padding_idx is not None:
        is_member = is_member & (named != padding_idx)
    rows = weight.index_select(0, named.view(-1)).view(*named.shape, weight.shape[1])
    rows.masked_fill_(~is_member.unsqueeze(-1), -torch.inf)
    if padding_idx is not None:  # behind the members, which may be −∞ themselves
        order = is_member.long().argsort(stable=True, dim=1, descending=True)
        named, rows = named.gather(1, order), rows.gather(1, order.unsqueeze(-1).expand_as(rows))
    first = rows.max(1).indices
    return named.long().gather(1, first).masked_fill(~is_member.any(1, keepdim=True), -1)


def _winners_of_any(weight: Tensor, index: Tensor, offsets: Tensor, padding_idx: int | None) -> Tensor:
    rows, bag = weight.index_select(0, index), bag_index(index, offsets).unsqueeze(-1).expand(-1, weight.shape[1])
    shape, last = (offsets.shape[0], weight.shape[1]), index.shape[0]
    if padding_idx is not None:
        rows = rows.masked_fill((index == padding_idx).unsqueeze(-1), -torch.inf)
    largest = rows.new_full(shape, -torch.inf).scatter_reduce(0, bag, rows, "amax")
    wins = (rows == largest.gather(0, bag)) | rows.isnan()
    if padding_idx is not None:
        wins = wins & (index != padding_idx).unsqueeze(-1)
    positions = torch.arange(last, device=index.device).unsqueeze(-1).masked_fill(~wins, last)
    first = positions.new_full(shape, last).scatter_reduce(0, bag, positions, "amin")
    named = torch.cat([index.long(), index.new_full((1,), -1, dtype=torch.int64)])
    return named.index_select(0, first.reshape(-1)).view(shape)


def take_rows(weight: Tensor, winners: Tensor) -> Tensor:
    """y[b, d] = W[winner of (b, d), d], and 0 where there is none."""
    return weight.gather(0, winners.clamp(min=0)).masked_fill(winners < 0, 0)


def take_rows_transpose(grad: Tensor, winners: Tensor, rows: int) -> Tensor:
    """W[v, d] = Σ y[b, d] over the bags b that row v wins in column d."""
    g = widen(grad).masked_fill(winners < 0, 0)
    return g.new_zeros(rows, g.shape[1]).scatter_add(0, winners.clamp(min=0), g).to(grad.dtype)


def _is_sparse_product(
    weight: Tensor, scale: Tensor | None, index: Tensor, offsets: Tensor, padding_idx: int | None
) -> bool:
    return (
        HAS_SPARSE_PRODUCTS
        and padding_idx is None  # whose row may hold what is no number
        and weight.dtype in (torch.float32, torch.float64)
        and in_plain_cpu_memory(weight, scale, index, offsets)
        and min(offsets.shape[0], index.numel(), weight.numel()) > 0
    )


def _sparse_product(weight: Tensor, scale: Tensor | None, index: Tensor, offsets: Tensor) -> Tensor:
    """y = S W with S[b, v] = Σ s[i] over the members i of bag b that name row v."""
    ends = offsets.new_tensor([index.shape[0]])
    begins = torch.cat([offsets, ends]).to(index.dtype)
    scale = weight.new_ones(index.shape[0]) if scale is None else scale
    return sparse_matrix(begins, index, scale, (offsets.shape[0], weight.shape[0])) @ weight

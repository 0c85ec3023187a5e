"""Embedding: rows of a table are looked up, and their gradients added to the rows that they come from.

    y[i] = W[index of i]        dL/dW[v] = Σ dL/dy[i] over the i with index v

torch sorts the indices first, so that those of a row of W stand side by side, in the order that they came in. A program
adds up a row's gradients in that order: a sum has the same bits every time. An index that does not exist is answered
with NaN.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchfromscratch.kernels.triton import IS_INTERPRETED
from torchfromscratch.kernels.triton.launch import blocks_of, launch, operation
from torchfromscratch.kernels.triton.mathematics import wide

# Elements that a program holds, and columns of the table that it takes when it adds.
TILE = 2**14 if IS_INTERPRETED else 2**11
COLUMNS = 2**14 if IS_INTERPRETED else 2**8


def look_up(weight: Tensor, index: Tensor) -> Tensor:
    """y (*, D) of W (V, D) and indices (*)."""
    return look_up_rows(weight.contiguous(), index.contiguous())


def table_gradient(
    grad_output: Tensor, index: Tensor, rows: int, padding_idx: int | None = None, by_frequency: bool = False
) -> Tensor:
    """dL/dW (V, D) of dL/dy (*, D) and indices (*): 0 for the padding, or divided by how often a row is named."""
    ordered, order = index.reshape(-1).sort(stable=True)
    begins = torch.searchsorted(ordered, torch.arange(rows + 1, dtype=index.dtype, device=index.device))
    padding = -1 if padding_idx is None else padding_idx
    return sum_rows(grad_output.contiguous(), order, begins, rows, padding, by_frequency)


def _empty_rows(weight: Tensor, index: Tensor) -> Tensor:
    return weight.new_empty(*index.shape, weight.shape[1])


@operation(like=_empty_rows)
def look_up_rows(weight: Tensor, index: Tensor) -> Tensor:
    output = _empty_rows(weight, index)
    (rows, width), count = weight.shape, index.numel()
    columns = min(triton.next_power_of_2(width), TILE)
    height = min(TILE // columns, triton.next_power_of_2(count))
    launch(
        look_up_kernel,
        blocks_of(count, height) * blocks_of(width, columns),
        *(weight, index, output, count, rows, width),
        height=height,
        columns=columns,
    )
    return output


@triton.jit
def look_up_kernel(
    weight, index, output, count, rows, width, height: tl.constexpr, columns: tl.constexpr
):  # fmt: skip
    across = tl.cdiv(width, columns)
    i = tl.program_id(0) // across * height + tl.arange(0, height)
    column = tl.program_id(0) % across * columns + tl.arange(0, columns)
    v = tl.load(index + i, mask=i < count, other=0).to(tl.int64)
    exists = (v >= 0) & (v < rows)
    tl.device_assert(exists, "an index is that of no row")
    inside = (i < count)[:, None] & (column < width)[None, :]
    row = tl.load(weight + v[:, None] * width + column[None, :], mask=inside & exists[:, None], other=float("nan"))
    tl.store(output + i.to(tl.int64)[:, None] * width + column[None, :], row, mask=inside)


def _empty_table(
    grad_output: Tensor, order: Tensor, begins: Tensor, rows: int, padding: int, by_frequency: bool
) -> Tensor:
    return grad_output.new_empty(rows, grad_output.shape[-1])


@operation(like=_empty_table)
def sum_rows(grad_output: Tensor, order: Tensor, begins: Tensor, rows: int, padding: int, by_frequency: bool) -> Tensor:
    """Row v is the sum of those that `order` names from `begins[v]` up to `begins[v + 1]`; none of the padding."""
    total = _empty_table(grad_output, order, begins, rows, padding, by_frequency)
    width = total.shape[1]
    columns = min(triton.next_power_of_2(width), COLUMNS)
    launch(
        sum_rows_kernel,
        rows * blocks_of(width, columns),
        *(grad_output, order, begins, total, width, padding),
        by_frequency=by_frequency,
        height=TILE // columns,
        columns=columns,
    )
    return total


@triton.jit
def sum_rows_kernel(
    grad_output, order, begins, total, width, padding,
    by_frequency: tl.constexpr, height: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(width, columns)
    v = tl.program_id(0) // across
    column = tl.program_id(0) % across * columns + tl.arange(0, columns)
    begin, end = tl.load(begins + v), tl.load(begins + v + 1)
    if v == padding:
        end = begin
    dtype: tl.constexpr = tl.float64 if total.dtype.element_ty == tl.float64 else tl.float32
    sums = tl.zeros((height, columns), dtype)
    for first in range(begin, end, height):
        place = first + tl.arange(0, height)
        i = tl.load(order + place, mask=place < end, other=0)
        inside = (place < end)[:, None] & (column < width)[None, :]
        sums += wide(tl.load(grad_output + i[:, None] * width + column[None, :], mask=inside, other=0))
    row = tl.sum(sums, 0)
    if by_frequency:
        row = row / tl.maximum(end - begin, 1).to(dtype)
    tl.store(total + v.to(tl.int64) * width + column, row, mask=column < width)

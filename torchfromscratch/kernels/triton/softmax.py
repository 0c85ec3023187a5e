"""Softmax, its logarithm, cross-entropy and the negative log-likelihood along one dimension.

    y = e^x / Σ e^x              dL/dx = y · (g − Σ y·g)             g = dL/dy
    y = x − log Σ e^x            dL/dx = g − e^y · Σ g
    L = − h·y_t − Σ S·y          dL/dx = (e^y · (h + Σ S) − h·onehot(t) − S) · dL/dL
    L = − h·x_t                  dL/dx = − h·onehot(t) · dL/dL

Elements of a row lie `inner` apart: row r begins at the (r mod inner)-th element of the (r div inner)-th block of
length · inner. A program holds rows whole, and reads each element once. Rows that are too long for that it takes in
blocks of columns, and reads them twice, first for the sums. Where a block raises the greatest element from m to m′, the
sum of exponentials so far is scaled by e^(m − m′).

Source for that: M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchfromscratch.kernels.precision import wide_type
from torchfromscratch.kernels.triton import IS_INTERPRETED
from torchfromscratch.kernels.triton.launch import Traffic, as_bytes, blocks_of, launch, only_number, operation
from torchfromscratch.kernels.triton.mathematics import exp, log, wide

# Elements that a program holds: of whole rows, and of blocks of long ones.
TILE = 2**14 if IS_INTERPRETED else 2**11
TILE_OF_LONG = 2**14 if IS_INTERPRETED else 2**11

# Long rows that lie interleaved are taken together: eight elements of float32 fill a sector of memory.
INTERLEAVED = 8


def fits(input: Tensor) -> bool:
    """Whether there are elements."""
    return input.numel() > 0


def longest_row(dtype: torch.dtype) -> int:
    """Elements of the longest row that a program holds whole: of twice as many, registers spill."""
    return 2**13 if dtype == torch.float64 else 2**14


def softmax(input: Tensor, dim: int, logarithm: bool) -> Tensor:
    """The softmax, or its logarithm, contiguous."""
    return _softmax(input.contiguous(), dim % input.dim(), logarithm)


def gradient(grad_output: Tensor, output: Tensor, dim: int, logarithm: bool) -> Tensor:
    """dL/dx of the softmax, or of its logarithm, from dL/dy and y."""
    return _softmax_gradient(grad_output.contiguous(), output.contiguous(), dim % output.dim(), logarithm)


def _is_long(input: Tensor, dim: int) -> bool:
    return input.shape[dim] > longest_row(input.dtype)


def _reading_long_rows_twice(*read_twice: int) -> Traffic:
    """Of an operation along `dim`, its first number, that reads these arguments in both passes over long rows."""

    def traffic(args: Sequence[Any], results: Sequence[Tensor]) -> tuple[int, int]:
        dim = next(arg for arg in args if isinstance(arg, int))
        read = [*args, *[args[position] for position in read_twice if _is_long(results[-1], dim)]]
        return 1, as_bytes(*[arg for arg in read if isinstance(arg, Tensor)], *results)

    return traffic


def _launch(whole: Any, in_blocks: Any, input: Tensor, dim: int, *tensors: Tensor | None, **constants: Any) -> None:
    """The kernel that holds rows of this input whole or, of long rows, the one that takes them in blocks."""
    length, inner = input.shape[dim], math.prod(input.shape[dim + 1 :])
    count = input.numel() // length
    if _is_long(input, dim):
        kernel, rows, warps = in_blocks, 1 if inner == 1 else INTERLEAVED, 8
        columns = TILE_OF_LONG // rows
    else:
        kernel, columns = whole, triton.next_power_of_2(length)
        rows = max(1, min(TILE // columns, triton.next_power_of_2(count)))
        warps = min(16, max(4, rows * columns // 256))
    sizes = count, length, inner
    launch(kernel, blocks_of(count, rows), *tensors, *sizes, rows=rows, columns=columns, warps=warps, **constants)


@triton.jit
def _elements(first, count, length, inner, rows: tl.constexpr, columns: tl.constexpr):
    """A program's rows, their columns from the first on, where their elements lie, and which exist."""
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), first + tl.arange(0, columns)
    start = (row // inner).to(tl.int64) * length * inner + row % inner
    inside = (row < count)[:, None] & (column < length)[None, :]
    return row, column, start[:, None] + column.to(tl.int64)[None, :] * inner, inside


@triton.jit
def _greatest_and_sum(input, count, length, inner, rows: tl.constexpr, columns: tl.constexpr):
    """m = max x and Σ e^(x − m) of each row, block by block. No block moves the sum where all so far is −∞."""
    dtype: tl.constexpr = tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32
    greatest, total = tl.full((rows,), float("-inf"), dtype), tl.zeros((rows,), dtype)
    for first in range(0, length, columns):
        _, _, at, inside = _elements(first, count, length, inner, rows, columns)
        x = wide(tl.load(input + at, mask=inside, other=float("-inf")))
        before = greatest
        greatest = tl.maximum(before, tl.max(x, 1))
        below = x - tl.where(greatest == float("-inf"), 0, greatest)[:, None]
        total = total * tl.where(before == greatest, 1, exp(before - greatest)) + tl.sum(exp(below), 1)
    return greatest, total


@operation(like=lambda input, dim, logarithm: torch.empty_like(input), traffic=_reading_long_rows_twice(0))
def _softmax(input: Tensor, dim: int, logarithm: bool) -> Tensor:
    output = torch.empty_like(input)
    _launch(softmax_kernel, softmax_in_blocks_kernel, input, dim, input, output, logarithm=logarithm)
    return output


@triton.jit
def _log_softmax(x):
    """x − log Σ e^x of each row; the greatest is taken off first, so that nothing overflows."""
    below = x - tl.max(x, 1)[:, None]
    return below - log(tl.sum(exp(below), 1))[:, None]


@triton.jit
def softmax_kernel(
    input, output, count, length, inner, logarithm: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr
):  # fmt: skip
    _, _, at, inside = _elements(0, count, length, inner, rows, columns)
    x = wide(tl.load(input + at, mask=inside, other=float("-inf")))
    if logarithm:
        y = _log_softmax(x)
    else:
        exponential = exp(x - tl.max(x, 1)[:, None])
        y = exponential / tl.sum(exponential, 1)[:, None]
    tl.store(output + at, y, mask=inside)


@triton.jit
def softmax_in_blocks_kernel(
    input, output, count, length, inner, logarithm: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr
):  # fmt: skip
    greatest, total = _greatest_and_sum(input, count, length, inner, rows, columns)
    log_total = log(total)
    for first in range(0, length, columns):
        _, _, at, inside = _elements(first, count, length, inner, rows, columns)
        below = wide(tl.load(input + at, mask=inside, other=0)) - greatest[:, None]
        y = below - log_total[:, None] if logarithm else exp(below) / total[:, None]
        tl.store(output + at, y, mask=inside)


def _empty_gradient(grad_output: Tensor, output: Tensor, dim: int, logarithm: bool) -> Tensor:
    return torch.empty_like(grad_output)


@operation(like=_empty_gradient, traffic=_reading_long_rows_twice(0, 1))
def _softmax_gradient(grad_output: Tensor, output: Tensor, dim: int, logarithm: bool) -> Tensor:
    grad_input = torch.empty_like(grad_output)
    _launch(
        softmax_gradient_kernel,
        softmax_gradient_in_blocks_kernel,
        output,
        dim,
        *(grad_output, output, grad_input),
        logarithm=logarithm,
    )
    return grad_input


@triton.jit
def softmax_gradient_kernel(
    grad_output, output, grad_input, count, length, inner,
    logarithm: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    _, _, at, inside = _elements(0, count, length, inner, rows, columns)
    g = wide(tl.load(grad_output + at, mask=inside, other=0))
    y = wide(tl.load(output + at, mask=inside, other=0))
    dx = g - exp(y) * tl.sum(g, 1)[:, None] if logarithm else y * (g - tl.sum(y * g, 1)[:, None])
    tl.store(grad_input + at, dx, mask=inside)


@triton.jit
def softmax_gradient_in_blocks_kernel(
    grad_output, output, grad_input, count, length, inner,
    logarithm: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if output.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((rows,), dtype)
    for first in range(0, length, columns):
        _, _, at, inside = _elements(first, count, length, inner, rows, columns)
        g = wide(tl.load(grad_output + at, mask=inside, other=0))
        total += tl.sum(g if logarithm else g * wide(tl.load(output + at, mask=inside, other=0)), 1)
    for first in range(0, length, columns):
        _, _, at, inside = _elements(first, count, length, inner, rows, columns)
        g = wide(tl.load(grad_output + at, mask=inside, other=0))
        y = wide(tl.load(output + at, mask=inside, other=0))
        dx = g - exp(y) * total[:, None] if logarithm else y * (g - total[:, None])
        tl.store(grad_input + at, dx, mask=inside)


# ---------------- cross-entropy


def losses(
    input: Tensor, classes: Tensor | None, weight: Tensor | None, density: Tensor | None, dim: int, *options: Any
) -> tuple[Tensor, Tensor]:
    """L of every row and the logarithm of the softmax; options are factor, ignore_index and smoothing."""
    z, t, w, s = _contiguous(input, classes, weight, density)
    return cross_entropy(z, t, w, s, dim % input.dim(), *options)


def losses_gradient(
    grad_losses: Tensor,
    logarithms: Tensor,
    classes: Tensor | None,
    weight: Tensor | None,
    density: Tensor | None,
    dim: int,
    *options: Any,
) -> Tensor:
    """dL/dx from dL/dL of every row, which may repeat one number, and the logarithm of the softmax."""
    g, x, t, w, s = _contiguous(only_number(grad_losses), logarithms, classes, weight, density)
    return cross_entropy_gradient(g, x, t, w, s, dim % logarithms.dim(), *options)


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _empty_losses(
    input: Tensor, classes: Tensor | None, weight: Tensor | None, density: Tensor | None, dim: int, *_: Any
) -> tuple[Tensor, Tensor]:
    shape = [1 if at == dim else size for at, size in enumerate(input.shape)]
    return input.new_empty(shape, dtype=wide_type(input.dtype)), torch.empty_like(input)


@operation(like=_empty_losses, traffic=_reading_long_rows_twice(0))
def cross_entropy(
    input: Tensor,
    classes: Tensor | None,
    weight: Tensor | None,
    density: Tensor | None,
    dim: int,
    factor: float,
    ignore_index: int,
    smoothing: float,
) -> tuple[Tensor, Tensor]:
    """L of every row and the logarithm of the softmax, of contiguous tensors."""
    losses, logarithms = _empty_losses(input, classes, weight, density, dim)
    _launch(
        cross_entropy_kernel,
        cross_entropy_in_blocks_kernel,
        input,
        dim,
        *(input, classes, weight, density, losses, logarithms),
        factor=factor,
        ignore_index=ignore_index,
        smoothing=smoothing,
    )
    return losses, logarithms


@triton.jit
def _class(
    row, classes, weight, count, length, factor: tl.constexpr, ignore_index: tl.constexpr, dtype: tl.constexpr
):  # fmt: skip
    """t and h of each row, whether there is such a class, and whether the row counts. Else h is NaN; and triton says
    so, with TRITON_DEBUG=1."""
    counts = row < count
    t = tl.load(classes + row, mask=counts, other=0)
    counts = counts & (t != ignore_index)
    exists = (t >= 0) & (t < length) | ~counts
    tl.device_assert(exists, "a target is no class")
    h = tl.where(exists, tl.full(t.shape, factor, dtype), float("nan"))
    if weight is not None:
        h *= tl.load(weight + t, mask=counts & exists, other=1).to(dtype)
    return t, h, exists, counts


@triton.jit
def _target(
    row, column, at, inside, classes, weight, density, count, length,
    factor: tl.constexpr, ignore_index: tl.constexpr, smoothing: tl.constexpr, zeros,
):  # fmt: skip
    """h·onehot(t) and S of each row, and whether the row counts. A class that does not exist makes them NaN."""
    counts = row < count
    one_hot = zeros
    s = zeros
    if classes is not None:
        t, h, exists, counts = _class(row, classes, weight, count, length, factor, ignore_index, zeros.dtype)
        one_hot = tl.where((column[None, :] == t[:, None]) | ~exists[:, None], h[:, None], 0)
    if density is not None:
        s = tl.load(density + at, mask=inside, other=0).to(zeros.dtype)
    elif smoothing != 0:
        w = tl.full(column.shape, 1, zeros.dtype)
        if weight is not None:
            w = tl.load(weight + column, mask=column < length, other=0).to(zeros.dtype)
        s = tl.where(inside, (w * smoothing / length)[None, :], 0)
    return one_hot, s, counts


@triton.jit
def _losses(
    y, one_hot, s, inside, classes, density, smoothing: tl.constexpr, rows: tl.constexpr
):  # fmt: skip
    """− h·y_t − Σ S·y over the columns that are held."""
    loss = tl.zeros((rows,), y.dtype)
    if classes is not None:
        loss -= tl.sum(tl.where(one_hot == 0, 0, one_hot * y), 1)
    if density is not None or smoothing != 0:
        loss -= tl.sum(tl.where(inside, s * y, 0), 1)
    return loss


@triton.jit
def cross_entropy_kernel(
    input, classes, weight, density, losses, logarithms, count, length, inner,
    factor: tl.constexpr, ignore_index: tl.constexpr, smoothing: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    row, column, at, inside = _elements(0, count, length, inner, rows, columns)
    y = _log_softmax(wide(tl.load(input + at, mask=inside, other=float("-inf"))))
    zeros = tl.zeros((rows, columns), y.dtype)
    one_hot, s, counts = _target(
        row, column, at, inside, classes, weight, density, count, length, factor, ignore_index, smoothing, zeros
    )
    loss = _losses(y, one_hot, s, inside, classes, density, smoothing, rows)
    tl.store(losses + row, tl.where(counts, loss, 0), mask=row < count)
    tl.store(logarithms + at, y, mask=inside)


@triton.jit
def cross_entropy_in_blocks_kernel(
    input, classes, weight, density, losses, logarithms, count, length, inner,
    factor: tl.constexpr, ignore_index: tl.constexpr, smoothing: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    greatest, total = _greatest_and_sum(input, count, length, inner, rows, columns)
    log_total = log(total)
    zeros = tl.zeros((rows, columns), total.dtype)
    loss = tl.zeros((rows,), total.dtype)
    for first in range(0, length, columns):
        row, column, at, inside = _elements(first, count, length, inner, rows, columns)
        y = wide(tl.load(input + at, mask=inside, other=0)) - greatest[:, None] - log_total[:, None]
        one_hot, s, counts = _target(
            row, column, at, inside, classes, weight, density, count, length, factor, ignore_index, smoothing, zeros
        )
        loss += tl.where(counts, _losses(y, one_hot, s, inside, classes, density, smoothing, rows), 0)
        tl.store(logarithms + at, y, mask=inside)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    tl.store(losses + row, loss, mask=row < count)


@operation(like=lambda grad_losses, logarithms, *_: torch.empty_like(logarithms), traffic=_reading_long_rows_twice(4))
def cross_entropy_gradient(
    grad_losses: Tensor,
    logarithms: Tensor,
    classes: Tensor | None,
    weight: Tensor | None,
    density: Tensor | None,
    dim: int,
    factor: float,
    ignore_index: int,
    smoothing: float,
) -> Tensor:
    """dL/dx from dL/dL, one number or one of every row, and the logarithm of the softmax; all contiguous."""
    grad_input = torch.empty_like(logarithms)
    _launch(
        cross_entropy_gradient_kernel,
        cross_entropy_gradient_in_blocks_kernel,
        logarithms,
        dim,
        *(grad_losses, logarithms, classes, weight, density, grad_input),
        is_one=grad_losses.numel() == 1,
        factor=factor,
        ignore_index=ignore_index,
        smoothing=smoothing,
    )
    return grad_input


@triton.jit
def cross_entropy_gradient_kernel(
    grad_losses, logarithms, classes, weight, density, grad_input, count, length, inner,
    is_one: tl.constexpr, factor: tl.constexpr, ignore_index: tl.constexpr, smoothing: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    row, column, at, inside = _elements(0, count, length, inner, rows, columns)
    y = wide(tl.load(logarithms + at, mask=inside, other=float("-inf")))
    zeros = tl.zeros((rows, columns), y.dtype)
    one_hot, s, counts = _target(
        row, column, at, inside, classes, weight, density, count, length, factor, ignore_index, smoothing, zeros
    )
    g = tl.load(grad_losses + (row * 0 if is_one else row), mask=counts, other=0).to(y.dtype)
    target = one_hot + s
    dx = (exp(y) * tl.sum(target, 1)[:, None] - target) * g[:, None]
    tl.store(grad_input + at, dx, mask=inside)


@triton.jit
def cross_entropy_gradient_in_blocks_kernel(
    grad_losses, logarithms, classes, weight, density, grad_input, count, length, inner,
    is_one: tl.constexpr, factor: tl.constexpr, ignore_index: tl.constexpr, smoothing: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    dtype: tl.constexpr = tl.float64 if logarithms.dtype.element_ty == tl.float64 else tl.float32
    zeros, total = tl.zeros((rows, columns), dtype), tl.zeros((rows,), dtype)
    for first in range(0, length, columns):
        row, column, at, inside = _elements(first, count, length, inner, rows, columns)
        one_hot, s, counts = _target(
            row, column, at, inside, classes, weight, density, count, length, factor, ignore_index, smoothing, zeros
        )
        total += tl.sum(one_hot + s, 1)
    for first in range(0, length, columns):
        row, column, at, inside = _elements(first, count, length, inner, rows, columns)
        y = wide(tl.load(logarithms + at, mask=inside, other=float("-inf")))
        one_hot, s, counts = _target(
            row, column, at, inside, classes, weight, density, count, length, factor, ignore_index, smoothing, zeros
        )
        g = tl.load(grad_losses + (row * 0 if is_one else row), mask=counts, other=0).to(dtype)
        dx = (exp(y) * total[:, None] - one_hot - s) * g[:, None]
        tl.store(grad_input + at, dx, mask=inside)


# ---------------- negative log-likelihood


def likelihoods(input: Tensor, classes: Tensor, weight: Tensor | None, dim: int, ignore_index: int) -> Tensor:
    """L of every row of log-probabilities."""
    x, t, w = _contiguous(input, classes, weight)
    return likelihood(x, t, w, dim % input.dim(), ignore_index)


def likelihoods_gradient(
    grad_losses: Tensor,
    classes: Tensor,
    weight: Tensor | None,
    dim: int,
    ignore_index: int,
    shape: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    """dL/dx, of this shape and type, from dL/dL of every row, which may repeat one number."""
    g, t, w = _contiguous(only_number(grad_losses), classes, weight)
    like = g.new_empty((), dtype=dtype)
    return likelihood_gradient(g, t, w, like, shape, dim % len(shape), ignore_index)


def _empty_likelihood(input: Tensor, classes: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(classes, dtype=wide_type(input.dtype))


def _likelihood_traffic(args: Sequence[Any], results: Sequence[Tensor]) -> tuple[int, int]:
    """Of each row one element is read."""
    input, classes, weight, *_ = args
    read = [classes] if weight is None else [classes, weight]
    return 1, classes.numel() * input.element_size() + as_bytes(*read, *results)


@operation(like=_empty_likelihood, traffic=_likelihood_traffic)
def likelihood(input: Tensor, classes: Tensor, weight: Tensor | None, dim: int, ignore_index: int) -> Tensor:
    losses = _empty_likelihood(input, classes)
    count, length, inner = classes.numel(), input.shape[dim], math.prod(input.shape[dim + 1 :])
    launch(
        likelihood_kernel,
        blocks_of(count, ROWS),
        *(input, classes, weight, losses, count, length, inner),
        ignore_index=ignore_index,
        rows=ROWS,
    )
    return losses


# Rows of one element each that a program takes.
ROWS = 2**14 if IS_INTERPRETED else 256


@triton.jit
def likelihood_kernel(
    input, classes, weight, losses, count, length, inner, ignore_index: tl.constexpr, rows: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    t, h, exists, counts = _class(row, classes, weight, count, length, 1.0, ignore_index, losses.dtype.element_ty)
    at = ((row // inner).to(tl.int64) * length + t) * inner + row % inner
    x = tl.load(input + at, mask=counts & exists, other=0).to(h.dtype)
    tl.store(losses + row, tl.where(counts, -h * x, 0), mask=row < count)


def _empty_likelihood_gradient(
    grad_losses: Tensor,
    classes: Tensor,
    weight: Tensor | None,
    like: Tensor,
    shape: Sequence[int],
    dim: int,
    ignore_index: int,
) -> Tensor:
    return like.new_empty(shape)


@operation(like=_empty_likelihood_gradient)
def likelihood_gradient(
    grad_losses: Tensor,
    classes: Tensor,
    weight: Tensor | None,
    like: Tensor,
    shape: Sequence[int],
    dim: int,
    ignore_index: int,
) -> Tensor:
    """dL/dx of this shape, and of the type that `like` has; contiguous tensors."""
    grad_input = like.new_empty(shape)
    count, length, inner = classes.numel(), shape[dim], math.prod(shape[dim + 1 :])
    columns = min(triton.next_power_of_2(length), TILE)
    rows = min(TILE // columns, triton.next_power_of_2(count))
    launch(
        likelihood_gradient_kernel,
        blocks_of(count, rows) * blocks_of(length, columns),
        *(grad_losses, classes, weight, grad_input, count, length, inner),
        is_one=grad_losses.numel() == 1,
        ignore_index=ignore_index,
        rows=rows,
        columns=columns,
    )
    return grad_input


@triton.jit
def likelihood_gradient_kernel(
    grad_losses, classes, weight, grad_input, count, length, inner,
    is_one: tl.constexpr, ignore_index: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(length, columns)
    row = tl.program_id(0) // across * rows + tl.arange(0, rows)
    column = tl.program_id(0) % across * columns + tl.arange(0, columns)
    t, h, exists, counts = _class(row, classes, weight, count, length, 1.0, ignore_index, grad_losses.dtype.element_ty)
    g = tl.load(grad_losses + (row * 0 if is_one else row), mask=counts, other=0)
    is_target = counts[:, None] & ((column[None, :] == t[:, None]) | ~exists[:, None])
    start = (row // inner).to(tl.int64) * length * inner + row % inner
    at = start[:, None] + column.to(tl.int64)[None, :] * inner
    inside = (row < count)[:, None] & (column < length)[None, :]
    tl.store(grad_input + at, tl.where(is_target, (-h * g)[:, None], 0), mask=inside)

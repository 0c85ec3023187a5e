"""Standardisation and its gradient: y = γ·(x − μ)·ρ + β with ρ = 1 / √(σ² + ε), and with h = γ·g, g = dL/dy, d = x − μ

    dL/dx = ρ·((h − mean(h)) − d·mean(h·d) / (σ² + ε))        dL/dγ = Σ g·d·ρ        dL/dβ = Σ g

Where elements of one sample share their statistics, as in layer norm, a program holds whole rows of them: x is read
once, forward and backward. Where rows are too long for that or lie interleaved, as of group norm in channels last, and
where the batch shares statistics, as in batch norm, a first launch reads x for the sums of parts, and a second adds
these up and reads x again.

Sums of squares are of differences from the mean: of rows that are held, or of tiles, whose means and sums of squares
are then put together. Source for that: T. Chan et al., "Updating Formulae and a Pairwise Algorithm for Computing
Sample Variances", 1979.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchfromscratch.kernels.layout import any_channels_last, to_memory_format
from torchfromscratch.kernels.normalization import Statistics
from torchfromscratch.kernels.precision import wide_type
from torchfromscratch.kernels.triton import IS_INTERPRETED
from torchfromscratch.kernels.triton.launch import blocks_of, in_one_order, is_dense, launch, operation, two_launches
from torchfromscratch.kernels.triton.mathematics import wide

# Elements that a program holds at a time.
TILE = 2**14 if IS_INTERPRETED else 2**11

# Programs that keep a GPU busy; each adds up a part of dL/dγ, or of a batch's sums.
PROGRAMS = 4 if IS_INTERPRETED else 512
MOST_PARTS = 4 if IS_INTERPRETED else 64

# Elements of γ whose shares a program adds up.
MOST_COLUMNS = 2**12 if IS_INTERPRETED else 128


def normalize(
    input: Tensor, weight: Tensor, bias: Tensor | None, stats: Statistics
) -> tuple[Tensor, Tensor, Tensor] | None:
    """γ·(x − μ)·ρ + β, μ and σ²; None where no kernel is made for how γ and the statistics are shared."""
    if _is_of_batch(input, weight, stats):
        return _normalize_batch(input, weight, bias, stats.eps)
    rows = _rows(input, weight, stats)
    if rows is None:
        return None
    if _is_held(rows, input.dtype):
        sizes = rows.length, rows.groups, rows.run
        output, mean, variance = _normalize_rows(input, weight, bias, *sizes, stats.eps, stats.centred)
    else:
        output, mean, variance = _normalize_blocks(input, weight, bias, rows, stats.eps, stats.centred)
    shape = [1 if dim in stats.dims else size for dim, size in enumerate(input.shape)]
    return output, mean.view(shape), variance.view(shape)


def gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, stats: Statistics
) -> tuple[Tensor, Tensor, Tensor] | None:
    """dL/dx, dL/dγ and dL/dβ; None likewise."""
    if _is_of_batch(input, weight, stats):
        g = to_memory_format(grad_output, any_channels_last(input))
        g = g if is_dense(g) else g.contiguous()
        return _batch_gradients(g, input, weight, mean, variance, stats.eps)
    rows = _rows(input, weight, stats)
    if rows is None:
        return None
    if _is_held(rows, input.dtype):
        sizes, g = (rows.length, rows.groups, rows.run), grad_output.contiguous()
        return _row_gradients(g, input, weight, mean, variance, *sizes, stats.eps, stats.centred)
    _, g = in_one_order(input, grad_output)
    return _block_gradients(g, input, weight, mean, variance, rows, stats.eps, stats.centred)


def _empty_gradients(grad_output: Tensor, input: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(input), torch.empty_like(weight), torch.empty_like(weight)


# ---------------- statistics of rows: layer, RMS, group and instance norm


class Rows(NamedTuple):
    """Rows that share statistics: `length` elements, `run` of which share an element of γ.

    Row r is the (r mod groups)-th of its sample, and takes that part of γ. The strides are those of samples, of groups,
    of what has an element of γ each, and of what shares one.
    """

    length: int
    groups: int
    run: int
    of_sample: int
    of_group: int
    of_weight: int
    of_run: int


def longest_row(dtype: torch.dtype) -> int:
    """Elements of the longest row that a program holds with its gradients: of twice as many, registers spill."""
    return 2**12 if dtype == torch.float64 else 2**13


def _rows(input: Tensor, weight: Tensor, stats: Statistics) -> Rows | None:
    start, shape = input.dim() - len(stats.dims), input.shape
    if not is_dense(input) or input.numel() == 0 or sorted(stats.dims) != [*range(start, input.dim())]:
        return None
    varying = [dim for dim in range(input.dim()) if weight.shape[dim] > 1]
    grouped = [dim for dim in varying if dim == start - 1]
    weighted = [dim for dim in varying if dim >= start]
    if varying != grouped + weighted or any([weight.shape[dim] != shape[dim] for dim in varying]):
        return None
    samples = [dim for dim in range(start) if dim not in grouped]
    shared = [dim for dim in range(start, input.dim()) if dim not in weighted]
    groups, run = _count(shape, grouped), _count(shape, shared)
    length = run * _count(shape, weighted)
    whole = (groups * length, length, run, 1)
    found = [_stride(input, *of) for of in zip((samples, grouped, weighted, shared), whole, strict=True)]
    strides = [stride for stride in found if stride is not None]
    if length >= 2**31 or len(strides) < len(found):
        return None
    return Rows(length, groups, run, *strides)


def _count(shape: Sequence[int], dims: Sequence[int]) -> int:
    return math.prod([shape[dim] for dim in dims])


def _stride(input: Tensor, dims: Sequence[int], missing: int) -> int | None:
    """That of the dimensions counted as one; None if they have none, and what is `missing` of a single position."""
    strides = [(input.stride(dim), input.shape[dim]) for dim in dims if input.shape[dim] > 1]
    if not strides:
        return missing
    inner, size = strides[-1]
    for stride, larger in reversed(strides[:-1]):
        if stride != inner * size:
            return None
        size *= larger
    return inner


def _is_held(rows: Rows, dtype: torch.dtype) -> bool:
    """Whether a program holds rows whole: those that lie one behind the other, and are not too long."""
    length, groups, run, *strides = rows
    tile = triton.next_power_of_2(length // run) * triton.next_power_of_2(run)
    return strides == [groups * length, length, run, 1] and tile <= longest_row(dtype)


def _empty_rows(
    input: Tensor, weight: Tensor, bias: Tensor | None, length: int, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = input.new_empty(input.numel() // length, dtype=wide_type(input.dtype))
    return torch.empty_like(input), statistics, torch.empty_like(statistics)


@operation(like=_empty_rows)
def _normalize_rows(
    input: Tensor, weight: Tensor, bias: Tensor | None, length: int, groups: int, run: int, eps: float, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    output, mean, variance = _empty_rows(input, weight, bias, length)
    tile = _tile(mean.numel(), length, run)
    launch(
        normalize_rows_kernel,
        blocks_of(mean.numel(), tile.rows),
        input,
        weight,
        bias,
        output,
        mean,
        variance,
        mean.numel(),
        length // run,
        run,
        groups,
        eps=eps,
        centred=centred,
        rows=tile.rows,
        parts=tile.parts,
        width=tile.width,
        warps=32 if tile.warps == 16 else tile.warps,  # with 16, a row of 2¹³ float32 spills registers
    )
    return output, mean, variance


class _Tile(NamedTuple):
    """So many rows at once, each as parts that share an element of γ, padded to powers of two."""

    rows: int
    parts: int
    width: int
    warps: int


def _tile(count: int, length: int, run: int) -> _Tile:
    parts, width = triton.next_power_of_2(length // run), triton.next_power_of_2(run)
    rows = max(1, min(TILE // (parts * width), triton.next_power_of_2(count)))
    return _Tile(rows, parts, width, warps=max(4, rows * parts * width // 512))


@triton.jit
def normalize_rows_kernel(
    input, weight, bias, output, mean, variance, count, weights, run, groups,
    eps: tl.constexpr, centred: tl.constexpr, rows: tl.constexpr, parts: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    at, inside = _elements(row, count, weights, run, rows, parts, width)
    x = wide(tl.load(input + at, mask=inside, other=0))
    length = weights * run
    mu = tl.zeros((rows,), x.dtype)
    if centred:
        mu = tl.sum(tl.sum(x, 2), 1) / length
    d = tl.where(inside, x - mu[:, None, None], 0)
    var = tl.sum(tl.sum(d * d, 2), 1) / length
    gamma, exists = _of_rows(row, count, weights, groups, parts)
    w = wide(tl.load(weight + gamma, mask=exists, other=0))
    y = d * (tl.rsqrt(var + eps)[:, None] * w)[:, :, None]
    if bias is not None:
        y += wide(tl.load(bias + gamma, mask=exists, other=0))[:, :, None]
    tl.store(output + at, y, mask=inside)
    tl.store(mean + row, mu, mask=row < count)
    tl.store(variance + row, var, mask=row < count)


@triton.jit
def _elements(row, count, weights, run, rows: tl.constexpr, parts: tl.constexpr, width: tl.constexpr):
    """Where the elements of rows lie, (rows, parts, width), and which exist."""
    part, step = tl.arange(0, parts)[None, :, None], tl.arange(0, width)[None, None, :]
    at = (row.to(tl.int64)[:, None, None] * weights + part) * run + step
    return at, (row[:, None, None] < count) & (part < weights) & (step < run)


@triton.jit
def _of_rows(row, count, weights, groups, parts: tl.constexpr):
    """Where the elements of γ of rows lie, (rows, parts), and which exist."""
    part = tl.arange(0, parts)[None, :]
    return (row % groups)[:, None] * weights + part, (row[:, None] < count) & (part < weights)


def _shares(input: Tensor, length: int, groups: int, run: int) -> tuple[_Tile, int, int]:
    """The tile of a program, how many it takes, and how many programs each of the groups has."""
    count = input.numel() // length
    tile = _tile(blocks_of(count, groups), length, run)
    each = blocks_of(blocks_of(count // groups, tile.rows), max(1, PROGRAMS // groups))
    return tile, each, blocks_of(count // groups, tile.rows * each)


def _bytes_of_shares(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    length: int,
    groups: int,
    run: int,
    *_: Any,
) -> int:
    programs = _shares(input, length, groups, run)[-1]
    return 2 * programs * weight.numel() * wide_type(input.dtype).itemsize


@operation(like=_empty_gradients, traffic=two_launches(between=_bytes_of_shares))
def _row_gradients(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    length: int,
    groups: int,
    run: int,
    eps: float,
    centred: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each program adds up its rows' shares of dL/dγ and dL/dβ; a second launch adds up the programs'."""
    grad_input, grad_weight, grad_bias = _empty_gradients(grad_output, input, weight)
    count = input.numel() // length
    tile, each, programs = _shares(input, length, groups, run)
    shares = input.new_empty(2, programs, weight.numel(), dtype=wide_type(input.dtype))
    launch(
        row_gradients_kernel,
        programs * groups,
        grad_output,
        input,
        weight,
        mean,
        variance,
        grad_input,
        shares,
        count // groups,
        length // run,
        run,
        groups,
        programs,
        each,
        eps=eps,
        centred=centred,
        rows=tile.rows,
        parts=tile.parts,
        width=tile.width,
        warps=tile.warps,
    )
    _sum_shares(shares, grad_weight, grad_bias)
    return grad_input, grad_weight, grad_bias


@triton.jit
def row_gradients_kernel(
    grad_output, input, weight, mean, variance, grad_input, shares, count, weights, run, groups, programs, each,
    eps: tl.constexpr, centred: tl.constexpr, rows: tl.constexpr, parts: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    program, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    part = tl.arange(0, parts)
    w = wide(tl.load(weight + group * weights + part, mask=part < weights, other=0))
    share_w, share_b, length = tl.zeros((parts,), w.dtype), tl.zeros((parts,), w.dtype), weights * run
    for step in range(each):
        of_group = (program * each + step) * rows + tl.arange(0, rows)
        row = of_group.to(tl.int64) * groups + group
        at, inside = _elements(row, count * groups, weights, run, rows, parts, width)
        g = wide(tl.load(grad_output + at, mask=inside, other=0))
        x = wide(tl.load(input + at, mask=inside, other=0))
        mu = tl.load(mean + row, mask=of_group < count, other=0)
        var_eps = tl.load(variance + row, mask=of_group < count, other=1) + eps
        d = tl.where(inside, x - mu[:, None, None], 0)
        rho = tl.rsqrt(var_eps)
        sum_g, sum_gd = tl.sum(g, 2), tl.sum(g * d, 2)
        share_b += tl.sum(sum_g, 0)
        share_w += tl.sum(sum_gd * rho[:, None], 0)
        slope = tl.sum(sum_gd * w[None, :], 1) / length / var_eps
        h = g * w[None, :, None]
        if centred:
            h -= (tl.sum(sum_g * w[None, :], 1) / length)[:, None, None]
        tl.store(grad_input + at, (h - d * slope[:, None, None]) * rho[:, None, None], mask=inside)
    shares += program * groups * weights + group * weights + part
    tl.store(shares, share_w, mask=part < weights)
    tl.store(shares + tl.cast(programs, tl.int64) * groups * weights, share_b, mask=part < weights)


def _sum_shares(shares: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """dL/dγ and dL/dβ, from the shares (2, programs, elements of γ)."""
    _, programs, size = shares.shape
    columns = min(triton.next_power_of_2(size), MOST_COLUMNS)
    launch(
        sum_shares_kernel,
        blocks_of(size, columns),
        *(shares, grad_weight, grad_bias, programs, size),
        rows=max(1, TILE // columns),
        columns=columns,
    )


@triton.jit
def sum_shares_kernel(
    shares, grad_weight, grad_bias, programs, size, rows: tl.constexpr, columns: tl.constexpr
):  # fmt: skip
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    total_w = tl.zeros((columns,), shares.dtype.element_ty)
    total_b = tl.zeros((columns,), shares.dtype.element_ty)
    for start in range(0, programs, rows):
        row = start + tl.arange(0, rows)
        at = row.to(tl.int64)[:, None] * size + column[None, :]
        inside = (row[:, None] < programs) & (column[None, :] < size)
        total_w += tl.sum(tl.load(shares + at, mask=inside, other=0), 0)
        total_b += tl.sum(tl.load(shares + tl.cast(programs, tl.int64) * size + at, mask=inside, other=0), 0)
    tl.store(grad_weight + column, total_w, mask=column < size)
    tl.store(grad_bias + column, total_b, mask=column < size)


# ---------------- rows in blocks: long or interleaved ones


class _Blocks(NamedTuple):
    """Tiles of (rows of a group, elements of γ, elements that share one), and what a program takes of a row.

    That are so many elements of γ, and so many of those that share one; programs for a row are counted `of_weights`
    times `of_run`.
    """

    rows: int
    parts: int
    width: int
    weights_each: int
    run_each: int
    of_weights: int
    of_run: int


# Rows whose shares of dL/dγ a program adds up before it writes them, where each element has a γ of its own.
ROWS_TOGETHER = 16


def _plan(count: int, rows: Rows, dtype: torch.dtype) -> _Blocks:
    """For `count` rows of each group; what lies side by side in memory is in one tile."""
    weights, run = rows.length // rows.run, rows.run
    height = min(triton.next_power_of_2(count), max(1, ROWS_TOGETHER // triton.next_power_of_2(run)))
    room = TILE // (4 if dtype == torch.float64 else 1) // height  # with twice as many float64, registers spill
    if rows.of_weight < rows.of_run:
        parts = min(triton.next_power_of_2(weights), room)
        width = min(triton.next_power_of_2(run), room // parts)
    else:
        width = min(triton.next_power_of_2(run), room)
        parts = min(triton.next_power_of_2(weights), room // width)
    wanted = max(1, min(MOST_PARTS, PROGRAMS // (blocks_of(count, height) * rows.groups)))
    weights_each = blocks_of(blocks_of(weights, parts), wanted) * parts
    of_weights = blocks_of(weights, weights_each)
    run_each = blocks_of(blocks_of(run, width), wanted // of_weights) * width
    return _Blocks(height, parts, width, weights_each, run_each, of_weights, blocks_of(run, run_each))


class _BlockLaunch(NamedTuple):
    """How a kernel of rows in blocks is launched: programs, parts of a row, blocks of rows, sizes, and the tile."""

    programs: int
    slices: int
    shares: int
    sizes: tuple[int, ...]
    tile: dict[str, int]


def _block_launch(input: Tensor, rows: Rows) -> _BlockLaunch:
    count = input.numel() // (rows.length * rows.groups)
    plan = _plan(count, rows, input.dtype)
    blocks, slices = blocks_of(count, plan.rows), plan.of_weights * plan.of_run
    sizes = (count, rows.length // rows.run, *rows[1:], plan.weights_each, plan.run_each, plan.of_run, slices)
    tile = {"rows": plan.rows, "parts": plan.parts, "width": plan.width}
    return _BlockLaunch(blocks * rows.groups * slices, slices, blocks * plan.of_run, sizes, tile)


def _empty_blocks(
    input: Tensor, weight: Tensor, bias: Tensor | None, rows: Sequence[int], eps: float, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_rows(input, weight, bias, rows[0])


def _bytes_of_moments(
    input: Tensor, weight: Tensor, bias: Tensor | None, rows: Sequence[int], eps: float, centred: bool
) -> int:
    slices = _block_launch(input, Rows(*rows)).slices
    return 2 * slices * (input.numel() // rows[0]) * wide_type(input.dtype).itemsize


@operation(like=_empty_blocks, traffic=two_launches(0, between=_bytes_of_moments))
def _normalize_blocks(
    input: Tensor, weight: Tensor, bias: Tensor | None, rows: Sequence[int], eps: float, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    output, mean, variance = _empty_rows(input, weight, bias, rows[0])
    programs, slices, _, sizes, tile = _block_launch(input, Rows(*rows))
    sums = mean.new_empty(2, slices, mean.numel())
    launch(row_moments_kernel, programs, input, sums, *sizes, centred=centred, **tile)
    launch(
        normalize_blocks_kernel,
        programs,
        input,
        sums,
        weight,
        bias,
        output,
        mean,
        variance,
        *sizes,
        eps=eps,
        padded=triton.next_power_of_2(slices),
        **tile,
    )
    return output, mean, variance


@triton.jit
def _part_of_rows(count, weights, run, groups, weights_each, run_each, of_run, slices, rows: tl.constexpr):
    """A program's part of its rows, which rows of their group they are, their numbers, and where the part ends."""
    part, block = tl.program_id(0) % slices, tl.program_id(0) // slices
    of_group = block // groups * rows + tl.arange(0, rows)
    row = of_group.to(tl.int64) * groups + block % groups
    first_w, first_r = part // of_run * weights_each, part % of_run * run_each
    last_w, last_r = tl.minimum(first_w + weights_each, weights), tl.minimum(first_r + run_each, run)
    return part, of_group, row, first_w, last_w, first_r, last_r


@triton.jit
def _tile_of_rows(
    w, r, of_group, last_w, last_r, count, groups, slices, x_n, x_g, x_w, x_r, parts: tl.constexpr, width: tl.constexpr
):  # fmt: skip
    """Where the tile of rows from element w of γ and the r-th of those that share it lies, and what of it exists."""
    group = tl.program_id(0) // slices % groups
    w, r = w + tl.arange(0, parts), r + tl.arange(0, width)
    start = of_group.to(tl.int64) * x_n + group.to(tl.int64) * x_g
    at = start[:, None, None] + (w.to(tl.int64) * x_w)[None, :, None] + (r.to(tl.int64) * x_r)[None, None, :]
    exists = (of_group < count)[:, None, None] & (w < last_w)[None, :, None]
    return at, exists & (r < last_r)[None, None, :]


@triton.jit
def row_moments_kernel(
    input, sums, count, weights, groups, run, x_n, x_g, x_w, x_r, weights_each, run_each, of_run, slices,
    centred: tl.constexpr, rows: tl.constexpr, parts: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """The mean of a part of each row and the sum of squared differences from it, put together tile by tile."""
    part, of_group, row, first_w, last_w, first_r, last_r = _part_of_rows(
        count, weights, run, groups, weights_each, run_each, of_run, slices, rows
    )
    mean = tl.zeros((rows,), sums.dtype.element_ty)
    squares = tl.zeros((rows,), sums.dtype.element_ty)
    for w in range(first_w, last_w, parts):
        for r in range(first_r, last_r, width):
            at, inside = _tile_of_rows(
                w, r, of_group, last_w, last_r, count, groups, slices, x_n, x_g, x_w, x_r, parts, width
            )
            x = tl.load(input + at, mask=inside, other=0).to(mean.dtype)
            high = tl.minimum(parts, last_w - w)
            before = ((w - first_w) * (last_r - first_r) + high * (r - first_r)).to(mean.dtype)
            new = (high * tl.minimum(width, last_r - r)).to(mean.dtype)
            tile_mean = tl.zeros((rows,), mean.dtype)
            if centred:
                tile_mean = tl.sum(tl.sum(x, 2), 1) / new
            d = tl.where(inside, x - tile_mean[:, None, None], 0)
            step = tile_mean - mean
            mean += step * (new / (before + new))
            squares += tl.sum(tl.sum(d * d, 2), 1) + step * step * (before * new / (before + new))
    sums += part.to(tl.int64) * count * groups + row
    tl.store(sums, mean, mask=of_group < count)
    tl.store(sums + tl.cast(slices, tl.int64) * count * groups, squares, mask=of_group < count)


@triton.jit
def normalize_blocks_kernel(
    input, sums, weight, bias, output, mean, variance,
    count, weights, groups, run, x_n, x_g, x_w, x_r, weights_each, run_each, of_run, slices,
    eps: tl.constexpr, padded: tl.constexpr, rows: tl.constexpr, parts: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    part, of_group, row, first_w, last_w, first_r, last_r = _part_of_rows(
        count, weights, run, groups, weights_each, run_each, of_run, slices, rows
    )
    known, length = of_group < count, weights * run
    one = tl.arange(0, padded)
    at = one.to(tl.int64)[:, None] * count * groups + row[None, :]
    exists = (one < slices)[:, None] & known[None, :]
    means = tl.load(sums + at, mask=exists, other=0)
    squares = tl.load(sums + tl.cast(slices, tl.int64) * count * groups + at, mask=exists, other=0)
    of_weights = tl.minimum(weights - one // of_run * weights_each, weights_each)
    sizes = of_weights * tl.minimum(run - one % of_run * run_each, run_each)
    sizes = tl.where(exists, sizes[:, None], 0).to(means.dtype)
    inverse = 1 / tl.full((1,), length, means.dtype)
    mu = tl.sum(means * (sizes * inverse), 0)
    apart = means - mu[None, :]
    var = tl.sum(squares + sizes * (apart * apart), 0) * inverse
    if part == 0:
        tl.store(mean + row, mu, mask=known)
        tl.store(variance + row, var, mask=known)
    rho = tl.rsqrt(var + eps)
    gamma = tl.program_id(0) // slices % groups * weights
    for w in range(first_w, last_w, parts):
        column = w + tl.arange(0, parts)
        factor = tl.load(weight + gamma + column, mask=column < last_w, other=0).to(mu.dtype)
        shift = tl.zeros((parts,), mu.dtype)
        if bias is not None:
            shift = tl.load(bias + gamma + column, mask=column < last_w, other=0).to(mu.dtype)
        for r in range(first_r, last_r, width):
            place, inside = _tile_of_rows(
                w, r, of_group, last_w, last_r, count, groups, slices, x_n, x_g, x_w, x_r, parts, width
            )
            d = tl.load(input + place, mask=inside, other=0).to(mu.dtype) - mu[:, None, None]
            y = d * (rho[:, None] * factor[None, :])[:, :, None] + shift[None, :, None]
            tl.store(output + place, y, mask=inside)


def _bytes_of_block_sums(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    rows: Sequence[int],
    eps: float,
    centred: bool,
) -> int:
    of = _block_launch(input, Rows(*rows))
    return 2 * (of.slices * mean.numel() + of.shares * weight.numel()) * mean.element_size()


def _block_gradients_traffic(args: Sequence[Any], results: Sequence[Tensor]) -> tuple[int, int]:
    """The third launch adds up what is between as well."""
    _, moved = two_launches(0, 1, between=_bytes_of_block_sums)(args, results)
    return 3, moved


@operation(like=_empty_gradients, traffic=_block_gradients_traffic)
def _block_gradients(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    rows: Sequence[int],
    eps: float,
    centred: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of parts of rows and shares of dL/dγ and dL/dβ; then dL/dx; then the sums of the shares."""
    grad_input, grad_weight, grad_bias = _empty_gradients(grad_output, input, weight)
    programs, slices, parts, sizes, tile = _block_launch(input, Rows(*rows))
    sums, shares = mean.new_empty(2, slices, mean.numel()), mean.new_empty(2, parts, weight.numel())
    given = grad_output, input, weight, mean, variance
    launch(row_sums_kernel, programs, *given, sums, shares, *sizes, parts, eps=eps, **tile)
    launch(
        block_gradients_kernel,
        programs,
        *given,
        sums,
        grad_input,
        *sizes,
        eps=eps,
        centred=centred,
        padded=triton.next_power_of_2(slices),
        **tile,
    )
    _sum_shares(shares, grad_weight, grad_bias)
    return grad_input, grad_weight, grad_bias


@triton.jit
def row_sums_kernel(
    grad_output, input, weight, mean, variance, sums, shares,
    count, weights, groups, run, x_n, x_g, x_w, x_r, weights_each, run_each, of_run, slices, programs,
    eps: tl.constexpr, rows: tl.constexpr, parts: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Σ h and Σ h·d of a part of each row, and the shares of the program's rows in dL/dγ and dL/dβ."""
    part, of_group, row, first_w, last_w, first_r, last_r = _part_of_rows(
        count, weights, run, groups, weights_each, run_each, of_run, slices, rows
    )
    known = of_group < count
    mu = tl.load(mean + row, mask=known, other=0)
    rho = tl.rsqrt(tl.load(variance + row, mask=known, other=1) + eps)
    sum_h, sum_hd = tl.zeros((rows,), mu.dtype), tl.zeros((rows,), mu.dtype)
    block = tl.program_id(0) // slices
    gamma, size = block % groups * weights, groups * weights
    shares += (block // groups * of_run + part % of_run).to(tl.int64) * size
    for w in range(first_w, last_w, parts):
        column = w + tl.arange(0, parts)
        factor = tl.load(weight + gamma + column, mask=column < last_w, other=0).to(mu.dtype)
        sums_g = tl.zeros((rows, parts, width), mu.dtype)
        sums_gd = tl.zeros((rows, parts, width), mu.dtype)
        for r in range(first_r, last_r, width):
            at, inside = _tile_of_rows(
                w, r, of_group, last_w, last_r, count, groups, slices, x_n, x_g, x_w, x_r, parts, width
            )
            g = tl.load(grad_output + at, mask=inside, other=0).to(mu.dtype)
            d = tl.load(input + at, mask=inside, other=0).to(mu.dtype) - mu[:, None, None]
            sums_g += g
            sums_gd += g * tl.where(inside, d, 0)
        sum_g, sum_gd = tl.sum(sums_g, 2), tl.sum(sums_gd, 2)
        tl.store(shares + gamma + column, tl.sum(sum_gd * rho[:, None], 0), mask=column < last_w)
        tl.store(shares + tl.cast(programs, tl.int64) * size + gamma + column, tl.sum(sum_g, 0), mask=column < last_w)
        sum_h += tl.sum(sum_g * factor[None, :], 1)
        sum_hd += tl.sum(sum_gd * factor[None, :], 1)
    sums += part.to(tl.int64) * count * groups + row
    tl.store(sums, sum_h, mask=known)
    tl.store(sums + tl.cast(slices, tl.int64) * count * groups, sum_hd, mask=known)


@triton.jit
def block_gradients_kernel(
    grad_output, input, weight, mean, variance, sums, grad_input,
    count, weights, groups, run, x_n, x_g, x_w, x_r, weights_each, run_each, of_run, slices,
    eps: tl.constexpr, centred: tl.constexpr, padded: tl.constexpr,
    rows: tl.constexpr, parts: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    _, of_group, row, first_w, last_w, first_r, last_r = _part_of_rows(
        count, weights, run, groups, weights_each, run_each, of_run, slices, rows
    )
    known, length = of_group < count, weights * run
    one = tl.arange(0, padded)
    at, exists = one.to(tl.int64)[:, None] * count * groups + row[None, :], (one < slices)[:, None] & known[None, :]
    mean_h = tl.sum(tl.load(sums + at, mask=exists, other=0), 0) / length
    of_products = tl.load(sums + tl.cast(slices, tl.int64) * count * groups + at, mask=exists, other=0)
    mu = tl.load(mean + row, mask=known, other=0)
    var_eps = tl.load(variance + row, mask=known, other=1) + eps
    slope, rho = tl.sum(of_products, 0) / length / var_eps, tl.rsqrt(var_eps)
    gamma = tl.program_id(0) // slices % groups * weights
    for w in range(first_w, last_w, parts):
        column = w + tl.arange(0, parts)
        factor = tl.load(weight + gamma + column, mask=column < last_w, other=0).to(mu.dtype)
        for r in range(first_r, last_r, width):
            place, inside = _tile_of_rows(
                w, r, of_group, last_w, last_r, count, groups, slices, x_n, x_g, x_w, x_r, parts, width
            )
            h = tl.load(grad_output + place, mask=inside, other=0).to(mu.dtype) * factor[None, :, None]
            d = tl.load(input + place, mask=inside, other=0).to(mu.dtype) - mu[:, None, None]
            if centred:
                h -= mean_h[:, None, None]
            tl.store(grad_input + place, (h - d * slope[:, None, None]) * rho[:, None, None], mask=inside)


# ---------------- statistics of the batch: batch norm


def _is_of_batch(input: Tensor, weight: Tensor, stats: Statistics) -> bool:
    """Whether channels have their own statistics and γ, of an input contiguous or channels last."""
    others = [dim for dim in range(input.dim()) if dim != 1]
    if not stats.centred or input.dim() < 2 or input.numel() == 0 or sorted(stats.dims) != others:
        return False
    is_of_channels = weight.numel() == weight.shape[1] == input.shape[1]
    return is_of_channels and is_dense(input) and (input.is_contiguous() or any_channels_last(input))


class _Parts(NamedTuple):
    """How the programs divide (elements of a channel, channels): tiles of `height` × `width`, `number` of them."""

    elements: int
    each: int
    number: int
    height: int
    width: int


def _parts(input: Tensor) -> _Parts:
    channels, elements = input.shape[1], input.numel() // input.shape[1]
    width = min(triton.next_power_of_2(channels), 32) if input.stride(1) == 1 else 1
    height = min(max(1, TILE // width), triton.next_power_of_2(elements))
    wanted = max(1, min(MOST_PARTS, PROGRAMS // blocks_of(channels, width)))
    each = blocks_of(blocks_of(elements, height), wanted) * height
    return _Parts(elements, each, blocks_of(elements, each), height, width)


def _strides(input: Tensor) -> tuple[int, int, int, int]:
    """The number of positions, and the strides of samples, channels and positions."""
    space = math.prod(input.shape[2:])
    return space, input.stride(0), input.stride(1), 1 if input.dim() == 2 else input.stride(-1)


def _batch_launch(input: Tensor) -> tuple[int, tuple[int, ...], dict[str, int]]:
    """The number of programs, and what batch norm's kernels are told: sizes, strides and parts, their number last."""
    parts, channels = _parts(input), input.shape[1]
    sizes = (channels, *_strides(input), parts.elements, parts.each, parts.number)
    return blocks_of(channels, parts.width) * parts.number, sizes, {"height": parts.height, "width": parts.width}


def _empty_batch(input: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    statistics = torch.empty_like(weight, dtype=wide_type(input.dtype))
    return torch.empty_like(input), statistics, torch.empty_like(statistics)


def _bytes_of_sums(input: Tensor, *_: Any) -> int:
    return 2 * _parts(input).number * input.shape[1] * wide_type(input.dtype).itemsize


@operation(like=_empty_batch, traffic=two_launches(0, between=_bytes_of_sums))
def _normalize_batch(input: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    output, mean, variance = _empty_batch(input, weight, bias, eps)
    programs, sizes, tile = _batch_launch(input)
    sums = mean.new_empty(2, sizes[-1], input.shape[1])
    launch(batch_moments_kernel, programs, input, sums, *sizes, **tile)
    launch(
        normalize_batch_kernel,
        programs,
        input,
        sums,
        weight,
        bias,
        output,
        mean,
        variance,
        *sizes,
        eps=eps,
        padded=triton.next_power_of_2(sums.shape[1]),
        **tile,
    )
    return output, mean, variance


@triton.jit
def _channel(channels, count, width: tl.constexpr):
    """A program's part of the elements, its channels, and which exist."""
    channel = tl.program_id(0) // count * width + tl.arange(0, width)
    return tl.program_id(0) % count, channel, channel < channels


@triton.jit
def _tile_of(m, end, channel, exists, space, x_n, x_c, x_s):
    """Where elements m of the channels lie, (height, width), and which exist."""
    at = (m // space).to(tl.int64) * x_n + (m % space).to(tl.int64) * x_s
    return at[:, None] + channel.to(tl.int64)[None, :] * x_c, (m < end)[:, None] & exists[None, :]


@triton.jit
def batch_moments_kernel(
    input, sums, channels, space, x_n, x_c, x_s, elements, each, count, height: tl.constexpr, width: tl.constexpr
):  # fmt: skip
    """The mean of each part of the elements and the sum of squared differences from it, put together tile by tile."""
    part, channel, exists = _channel(channels, count, width)
    end = tl.minimum((part + 1) * each, elements)
    mean = tl.zeros((width,), sums.dtype.element_ty)
    squares = tl.zeros((width,), sums.dtype.element_ty)
    for start in range(part * each, end, height):
        at, inside = _tile_of(start + tl.arange(0, height), end, channel, exists, space, x_n, x_c, x_s)
        x = tl.load(input + at, mask=inside, other=0).to(mean.dtype)
        before, new = (start - part * each).to(mean.dtype), tl.minimum(height, end - start).to(mean.dtype)
        tile_mean = tl.sum(x, 0) / new
        d = tl.where(inside, x - tile_mean[None, :], 0)
        step = tile_mean - mean
        mean += step * (new / (before + new))
        squares += tl.sum(d * d, 0) + step * step * (before * new / (before + new))
    sums += part * channels + channel
    tl.store(sums, mean, mask=exists)
    tl.store(sums + count * channels, squares, mask=exists)


@triton.jit
def normalize_batch_kernel(
    input, sums, weight, bias, output, mean, variance, channels, space, x_n, x_c, x_s, elements, each, count,
    eps: tl.constexpr, padded: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    part, channel, exists = _channel(channels, count, width)
    of_part = tl.arange(0, padded)[:, None]
    at, known = of_part * channels + channel[None, :], (of_part < count) & exists[None, :]
    means = tl.load(sums + at, mask=known, other=0)
    squares = tl.load(sums + count * channels + at, mask=known, other=0)
    sizes = tl.where(known, tl.minimum(elements - of_part * each, each), 0).to(means.dtype)
    mu = tl.sum(means * (sizes / elements), 0)
    apart = means - mu[None, :]
    var = tl.sum(squares + sizes * (apart * apart), 0) / elements
    if part == 0:
        tl.store(mean + channel, mu, mask=exists)
        tl.store(variance + channel, var, mask=exists)
    factor = tl.load(weight + channel, mask=exists, other=0).to(mu.dtype) * tl.rsqrt(var + eps)
    shift = tl.zeros((width,), mu.dtype)
    if bias is not None:
        shift = tl.load(bias + channel, mask=exists, other=0).to(mu.dtype)
    end = tl.minimum((part + 1) * each, elements)
    for start in range(part * each, end, height):
        place, inside = _tile_of(start + tl.arange(0, height), end, channel, exists, space, x_n, x_c, x_s)
        x = tl.load(input + place, mask=inside, other=0).to(mu.dtype)
        tl.store(output + place, (x - mu[None, :]) * factor[None, :] + shift[None, :], mask=inside)


@operation(like=_empty_gradients, traffic=two_launches(0, 1, between=_bytes_of_sums))
def _batch_gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    grad_input, grad_weight, grad_bias = _empty_gradients(grad_output, input, weight)
    programs, sizes, tile = _batch_launch(input)
    sums = mean.new_empty(2, sizes[-1], input.shape[1])
    launch(batch_sums_kernel, programs, grad_output, input, mean, sums, *sizes, **tile)
    launch(
        batch_gradients_kernel,
        programs,
        grad_output,
        input,
        weight,
        mean,
        variance,
        sums,
        grad_input,
        grad_weight,
        grad_bias,
        *sizes,
        eps=eps,
        padded=triton.next_power_of_2(sums.shape[1]),
        **tile,
    )
    return grad_input, grad_weight, grad_bias


@triton.jit
def batch_sums_kernel(
    grad_output, input, mean, sums, channels, space, x_n, x_c, x_s, elements, each, count,
    height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Σ g and Σ g·d of each part of the elements."""
    part, channel, exists = _channel(channels, count, width)
    mu = tl.load(mean + channel, mask=exists, other=0)
    sum_g, sum_gd = tl.zeros((width,), mu.dtype), tl.zeros((width,), mu.dtype)
    end = tl.minimum((part + 1) * each, elements)
    for start in range(part * each, end, height):
        at, inside = _tile_of(start + tl.arange(0, height), end, channel, exists, space, x_n, x_c, x_s)
        g = tl.load(grad_output + at, mask=inside, other=0).to(mu.dtype)
        d = tl.load(input + at, mask=inside, other=0).to(mu.dtype) - mu[None, :]
        sum_g += tl.sum(g, 0)
        sum_gd += tl.sum(g * tl.where(inside, d, 0), 0)
    sums += part * channels + channel
    tl.store(sums, sum_g, mask=exists)
    tl.store(sums + count * channels, sum_gd, mask=exists)


@triton.jit
def batch_gradients_kernel(
    grad_output, input, weight, mean, variance, sums, grad_input, grad_weight, grad_bias,
    channels, space, x_n, x_c, x_s, elements, each, count,
    eps: tl.constexpr, padded: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    part, channel, exists = _channel(channels, count, width)
    of_part = tl.arange(0, padded)[:, None]
    at, known = of_part * channels + channel[None, :], (of_part < count) & exists[None, :]
    sum_g = tl.sum(tl.load(sums + at, mask=known, other=0), 0)
    sum_gd = tl.sum(tl.load(sums + count * channels + at, mask=known, other=0), 0)
    mu = tl.load(mean + channel, mask=exists, other=0)
    var_eps = tl.load(variance + channel, mask=exists, other=1) + eps
    rho = tl.rsqrt(var_eps)
    if part == 0:
        tl.store(grad_weight + channel, sum_gd * rho, mask=exists)
        tl.store(grad_bias + channel, sum_g, mask=exists)
    factor = tl.load(weight + channel, mask=exists, other=0).to(mu.dtype) * rho
    mean_g, slope = sum_g / elements, sum_gd / elements / var_eps
    end = tl.minimum((part + 1) * each, elements)
    for start in range(part * each, end, height):
        place, inside = _tile_of(start + tl.arange(0, height), end, channel, exists, space, x_n, x_c, x_s)
        g = tl.load(grad_output + place, mask=inside, other=0).to(mu.dtype)
        d = tl.load(input + place, mask=inside, other=0).to(mu.dtype) - mu[None, :]
        tl.store(grad_input + place, ((g - mean_g[None, :]) - d * slope[None, :]) * factor[None, :], mask=inside)


# ---------------- statistics that are constants: batch norm in evaluation


def normalize_by_constants(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> Tensor | None:
    """γ·(x − μ)·ρ + β; None where channels have no statistics of their own, or lie in no common format."""
    if not _is_of_channels(input, variance):
        return None
    weight, bias, mean, variance = _contiguous(weight, bias, mean, variance)
    return scale_channels(input, weight, bias, mean, variance, eps)


def constant_gradients(
    grad_output: Tensor, input: Tensor | None, weight: Tensor | None, mean: Tensor | None, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor | None, Tensor | None] | None:
    """dL/dx = γ·ρ·dL/dy and, if x and μ are given, dL/dγ = Σ dL/dy·(x − μ)·ρ and dL/dβ = Σ dL/dy; None likewise."""
    if not _is_of_channels(grad_output if input is None else input, variance):
        return None
    weight, mean, variance = _contiguous(weight, mean, variance)
    if input is None or mean is None:
        return scale_channels(grad_output, weight, None, None, variance, eps), None, None
    _, g = in_one_order(input, grad_output)
    return channel_gradients(g, input, weight, mean, variance, eps)


def _is_of_channels(input: Tensor, variance: Tensor) -> bool:
    is_common = is_dense(input) and (input.is_contiguous() or any_channels_last(input))
    if input.dim() < 2 or input.numel() == 0 or not is_common:
        return False
    return variance.numel() == variance.shape[1] == input.shape[1]


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


@operation(like=lambda input, *_: torch.empty_like(input))
def scale_channels(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, variance: Tensor, eps: float
) -> Tensor:
    """Of a mean that is None, γ·x·ρ + β."""
    output = torch.empty_like(input)
    programs, sizes, tile = _batch_launch(input)
    tensors = input, weight, bias, mean, variance, output
    launch(scale_channels_kernel, programs, *tensors, *sizes, eps=eps, **tile)
    return output


@triton.jit
def scale_channels_kernel(
    input, weight, bias, mean, variance, output, channels, space, x_n, x_c, x_s, elements, each, count,
    eps: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    part, channel, exists = _channel(channels, count, width)
    factor = tl.rsqrt(wide(tl.load(variance + channel, mask=exists, other=1)) + eps)
    mu, shift = tl.zeros((width,), factor.dtype), tl.zeros((width,), factor.dtype)
    if weight is not None:
        factor *= tl.load(weight + channel, mask=exists, other=0).to(factor.dtype)
    if bias is not None:
        shift = tl.load(bias + channel, mask=exists, other=0).to(factor.dtype)
    if mean is not None:
        mu = tl.load(mean + channel, mask=exists, other=0).to(factor.dtype)
    end = tl.minimum((part + 1) * each, elements)
    for start in range(part * each, end, height):
        at, inside = _tile_of(start + tl.arange(0, height), end, channel, exists, space, x_n, x_c, x_s)
        x = tl.load(input + at, mask=inside, other=0).to(factor.dtype)
        tl.store(output + at, (x - mu[None, :]) * factor[None, :] + shift[None, :], mask=inside)


def _empty_channel_gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor | None, mean: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    of_channels = torch.empty_like(mean, dtype=wide_type(mean.dtype))
    return torch.empty_like(input), of_channels, torch.empty_like(of_channels)


@operation(like=_empty_channel_gradients, traffic=two_launches(between=_bytes_of_sums))
def channel_gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dx and the shares of parts of the batch in dL/dγ and dL/dβ; a second launch adds these up."""
    grad_input, grad_weight, grad_bias = _empty_channel_gradients(grad_output, input, weight, mean)
    programs, sizes, tile = _batch_launch(input)
    shares = grad_weight.new_empty(2, sizes[-1], input.shape[1])
    tensors = grad_output, input, weight, mean, variance, grad_input, shares
    launch(channel_gradients_kernel, programs, *tensors, *sizes, eps=eps, **tile)
    _sum_shares(shares, grad_weight, grad_bias)
    return grad_input, grad_weight, grad_bias


@triton.jit
def channel_gradients_kernel(
    grad_output, input, weight, mean, variance, grad_input, shares, channels, space, x_n, x_c, x_s, elements, each,
    count, eps: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    part, channel, exists = _channel(channels, count, width)
    rho = tl.rsqrt(wide(tl.load(variance + channel, mask=exists, other=1)) + eps)
    mu = tl.load(mean + channel, mask=exists, other=0).to(rho.dtype)
    factor = rho
    if weight is not None:
        factor = rho * tl.load(weight + channel, mask=exists, other=0).to(rho.dtype)
    sum_g, sum_gd = tl.zeros((width,), rho.dtype), tl.zeros((width,), rho.dtype)
    end = tl.minimum((part + 1) * each, elements)
    for start in range(part * each, end, height):
        at, inside = _tile_of(start + tl.arange(0, height), end, channel, exists, space, x_n, x_c, x_s)
        g = tl.load(grad_output + at, mask=inside, other=0).to(rho.dtype)
        d = tl.load(input + at, mask=inside, other=0).to(rho.dtype) - mu[None, :]
        sum_g += tl.sum(g, 0)
        sum_gd += tl.sum(g * tl.where(inside, d, 0), 0)
        tl.store(grad_input + at, g * factor[None, :], mask=inside)
    shares += part * channels + channel
    tl.store(shares, sum_gd * rho, mask=exists)
    tl.store(shares + count * channels, sum_g, mask=exists)


def update_running(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, momentum: float, unbias: float
) -> None:
    """Each running statistic r becomes (1 − momentum)·r + momentum·s of the batch's s; σ² is multiplied by `unbias`."""
    mean, variance = mean.reshape(running_mean.shape), variance.reshape(running_var.shape)
    _update_running(running_mean, running_var, mean.contiguous(), variance.contiguous(), momentum, unbias)


@operation(like=lambda *_: None, mutates=("running_mean", "running_var"))
def _update_running(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, momentum: float, unbias: float
) -> None:
    block = 1024
    launch(
        update_running_kernel,
        blocks_of(mean.numel(), block),
        running_mean,
        running_var,
        mean,
        variance,
        mean.numel(),
        running_mean.stride(0),
        running_var.stride(0),
        *_two_floats(momentum),
        *_two_floats(unbias),
        block=block,
    )


def _two_floats(number: float) -> tuple[float, float]:
    """float32s whose sum is the number, to 48 bits: Triton takes no argument of float64."""
    nearest = ctypes.c_float(number).value
    return nearest, number - nearest


@triton.jit
def update_running_kernel(
    running_mean, running_var, mean, variance, size, s_mean, s_var,
    momentum, momentum_rest, unbias, unbias_rest, block: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * block + tl.arange(0, block)
    mu = tl.load(mean + at, mask=at < size, other=0)
    var = tl.load(variance + at, mask=at < size, other=0)
    zeros = tl.zeros((block,), mu.dtype)
    m = zeros + momentum + momentum_rest
    unbiased = var * (zeros + unbias + unbias_rest)
    old_mean = tl.load(running_mean + at * s_mean, mask=at < size, other=0).to(mu.dtype)
    old_var = tl.load(running_var + at * s_var, mask=at < size, other=0).to(mu.dtype)
    tl.store(running_mean + at * s_mean, (1 - m) * old_mean + m * mu, mask=at < size)
    tl.store(running_var + at * s_var, (1 - m) * old_var + m * unbiased, mask=at < size)

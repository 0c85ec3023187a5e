"""Convolution by implicit products of matrices: windows are addressed where they lie, never written out.

    y[o, m]       = Σ_{c,k} w[o, (c, k)] · x[(c, k), m]        m = (n, i): samples and output positions
    dL/dx[c, m]   = Σ_{o,k} w[o, (c, k)] · g[(o, k), m]        m = (n, j): samples and input positions
    dL/dw[o, ck]  = Σ_m g[o, m] · x[(c, k), m]

Of x, tap k of the window of output i sees j = i·s + k·d − p; of g = dL/dy, input j is seen by i = (j + p − k·d) / s,
where that is whole. A program computes a tile of channels × positions of one group. Positions are the tile's last
dimension: contiguous tensors are read along them, and channels last along channels, whose stride Triton knows to be 1.

One and two spatial dimensions are three, of size 1. For dL/dx and a stride s, a program has positions that lie s apart,
all seen by the same taps: it meets no others. dL/dw is summed in slices of the positions where its tiles are too few to
occupy a GPU; a second launch adds up the slices, always in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchfromscratch.kernels.layout import any_channels_last, empty
from torchfromscratch.kernels.precision import convolutions_use_tf32, wide_type
from torchfromscratch.kernels.triton import IS_INTERPRETED
from torchfromscratch.kernels.triton.launch import as_bytes, blocks_of, launch, operation, sizes, strides, three
from torchfromscratch.kernels.triton.tuning import Configuration, choose
from torchfromscratch.kernels.windows import Windows

# Programs that occupy a large GPU: two for each of an H100's 132 multiprocessors.
PROGRAMS = 264

# From so many positions on they are counted in int64; a last block or slice reaches beyond them, by less than 2²⁰.
INT32_ELEMENTS = 2**31 - 2**20

# Positions of a tile, channels of a step, warps.
TILES = {
    "narrow": (128, 32, 4),
    "tf32": (64, 32, 4),
    "float32": (64, 16, 8),
    "float64": (64, 16, 4),
}


def empty_output(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """Memory for y."""
    shape = (input.shape[0], weight.shape[0], *windows.output_size(input.shape[2:]))
    return empty(shape, any_channels_last(input, weight), like=input)


def empty_input(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """Memory for dL/dx."""
    shape = (grad_output.shape[0], weight.shape[1] * windows.groups, *input_size)
    return empty(shape, any_channels_last(grad_output, weight), like=grad_output)


def empty_weight(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """Memory for dL/dw."""
    shape = (grad_output.shape[1], input.shape[1] // windows.groups, *windows.kernel_size)
    return empty(shape, any_channels_last(input, grad_output), like=input)


@operation(like=empty_output)
def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in kernels/convolution."""
    output = empty_output(input, weight, bias, windows)
    channels, filters = weight.shape[1], weight.shape[0] // windows.groups
    positions = input.shape[0] * math.prod(output.shape[2:])

    def run(tile: Configuration) -> None:
        launch(
            correlate_kernel,
            windows.groups * blocks_of(filters, tile["block_rows"]) * blocks_of(positions, tile["block_positions"]),
            *(input, weight, bias, output, positions, channels, filters),
            *(*sizes(input), *sizes(output), *strides(input), *strides(weight), *strides(output)),
            **numbers(windows),
            **arithmetic(input),
            **tile,
            large=positions >= INT32_ELEMENTS,
        )

    tile = tile_for(filters, channels, positions, input)
    run(choose("correlate", (*shapes(input, weight), windows), tile, run, input))
    return output


@operation(like=empty_input)
def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in kernels/convolution."""
    grad_input = empty_input(grad_output, weight, windows, input_size)
    channels, filters = weight.shape[1], weight.shape[0] // windows.groups
    phases = math.prod(windows.stride)
    of_phase = [blocks_of(size, step) for size, step in zip(input_size, windows.stride, strict=True)]
    positions = grad_output.shape[0] * math.prod(of_phase)

    def run(tile: Configuration) -> None:
        tiles = blocks_of(channels, tile["block_rows"]) * blocks_of(positions, tile["block_positions"])
        launch(
            full_convolution_kernel,
            windows.groups * phases * tiles,
            *(grad_output, weight, grad_input, positions, channels, filters),
            *(*sizes(grad_input), *sizes(grad_output)),
            *(*strides(grad_output), *strides(weight), *strides(grad_input)),
            **numbers(windows),
            **steps(windows),
            **arithmetic(grad_output),
            **tile,
            large=positions >= INT32_ELEMENTS,
        )

    tile = tile_for(channels, filters, positions, grad_output)
    run(choose("full_convolution", (*shapes(grad_output, weight), windows, input_size), tile, run, grad_output))
    return grad_input


def slices_of(filters: int, columns: int, groups: int, positions: int, tile: dict[str, int]) -> int:
    """Into how many slices the positions are split, so that dL/dw has enough programs: a power of two."""
    tiles = groups * blocks_of(filters, tile["block_rows"]) * blocks_of(columns, tile["block_columns"])
    most = blocks_of(positions, 8 * tile["block_positions"])  # each with some positions to sum over
    wanted = min(blocks_of(PROGRAMS, tiles), most)
    return 1 << max(0, wanted.bit_length() - 1)


def weight_slices(input: Tensor, grad_output: Tensor, windows: Windows) -> tuple[dict[str, int], int]:
    """The tile of dL/dw, and the number of slices."""
    groups = windows.groups
    filters, columns = grad_output.shape[1] // groups, input.shape[1] // groups * windows.tap_count
    positions = grad_output.shape[0] * math.prod(grad_output.shape[2:])
    tile = weight_tile_for(filters, columns, input)
    return tile, slices_of(filters, columns, groups, positions, tile)


def traffic_of_weight_gradient(args: Sequence[Any], results: Sequence[Tensor]) -> tuple[int, int]:
    """One launch, or two with the slices written and read in between."""
    input, grad_output, kernel_size, stride, padding, dilation, groups, _ = args
    windows = Windows(tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation), groups)
    _, slices = weight_slices(input, grad_output, windows)
    once = as_bytes(input, grad_output, *results)
    if slices == 1:
        return 1, once
    return 2, once + 2 * slices * results[0].numel() * wide_type(input.dtype).itemsize


@operation(like=empty_weight, traffic=traffic_of_weight_gradient)
def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in kernels/convolution."""
    grad_weight = empty_weight(input, grad_output, windows)
    channels, filters = grad_weight.shape[1], grad_weight.shape[0] // windows.groups
    columns = channels * windows.tap_count
    positions = grad_output.shape[0] * math.prod(grad_output.shape[2:])
    tile, slices = weight_slices(input, grad_output, windows)
    sums = grad_weight
    if slices > 1:
        sums = grad_weight.new_empty((slices, *grad_weight.shape), dtype=wide_type(input.dtype))
    slice_stride = sums.stride(0) if slices > 1 else 0

    def run(tile: Configuration) -> None:
        tiles = blocks_of(filters, tile["block_rows"]) * blocks_of(columns, tile["block_columns"])
        launch(
            weight_gradient_kernel,
            windows.groups * slices * tiles,
            *(input, grad_output, sums, positions, slices, slice_stride, channels, filters),
            *(*sizes(input), *sizes(grad_output)),
            *(*strides(input), *strides(grad_output), *strides(grad_weight if slices == 1 else sums[0])),
            **numbers(windows),
            **arithmetic(input),
            **tile,
            large=positions >= INT32_ELEMENTS,
        )

    run(choose("weight_gradient", (*shapes(input, grad_output), windows), tile, run, input))
    if slices > 1:
        add_slices(sums, grad_weight)
    return grad_weight


def add_slices(sums: Tensor, total: Tensor) -> None:
    """Σ over the slices (S, O, C, *k), contiguous, into dL/dw, whose type and memory format may differ."""
    block = 256
    launch(
        add_slices_kernel,
        blocks_of(total.numel(), block),
        *(sums, total, total.numel(), sums.shape[0], total.shape[1], *sizes(total), *strides(total)),
        block=block,
    )


# ---------------- what a launch is told


def shapes(*tensors: Tensor) -> list[object]:
    """What the time of a launch depends on: sizes, and the order in memory."""
    return [(tuple(tensor.shape), tensor.stride()) for tensor in tensors]


def numbers(windows: Windows) -> dict[str, int]:
    """Kernel size, stride, padding and dilation, in three dimensions."""
    values = {
        "kernel": three(windows.kernel_size),
        "stride": three(windows.stride),
        "padding": three(windows.padding, missing=0),
        "dilation": three(windows.dilation),
    }
    return {f"{name}_{axis}": number for name, each in values.items() for axis, number in zip("dhw", each, strict=True)}


def steps(windows: Windows) -> dict[str, int]:
    """How far the taps lie apart that see the same input: s / gcd(s, d)."""
    of = [s // math.gcd(s, d) for s, d in zip(windows.stride, windows.dilation, strict=True)]
    return {f"step_{axis}": number for axis, number in zip("dhw", three(of), strict=True)}


def arithmetic(tensor: Tensor) -> dict[str, Any]:
    """The type of sums, and how factors are rounded; the interpreter multiplies no bfloat16."""
    return {
        "sums": tl.float64 if tensor.dtype == torch.float64 else tl.float32,
        "precision": "tf32" if tensor.dtype == torch.float32 and convolutions_use_tf32() else "ieee",
        "widen": IS_INTERPRETED and tensor.dtype == torch.bfloat16,
    }


def power_of_two(size: int, least: int, most: int) -> int:
    """The smallest power of two that covers a size, within bounds."""
    return min(most, max(least, 1 << (size - 1).bit_length()))


def tile_for(rows: int, depth: int, positions: int, like: Tensor) -> dict[str, int]:
    """A tile of rows × positions, of products over `depth` channels and the taps.

    Of these no register is spilled on sm_80 and sm_90: tests compile them. Where there are few channels, they are
    counted together with the taps (`flat`), as a product is over at least 16.
    """
    columns, block_depth, warps = TILES[kind_of(like)]
    return {
        "block_rows": power_of_two(rows, 16, 32 if like.dtype == torch.float64 else 64),
        "block_positions": power_of_two(positions, 16, columns),
        "block_depth": block_depth,
        "flat": depth < 16,
        "warps": warps,
        "stages": 3,
    }


def weight_tile_for(filters: int, columns: int, like: Tensor) -> dict[str, int]:
    """A tile of filters × (channel, tap), of sums over positions; the whole tile takes as many warps as y's."""
    most = 32 if like.dtype == torch.float64 else 64
    block_rows, block_columns = power_of_two(filters, 16, most), power_of_two(columns, 16, most)
    return {
        "block_rows": block_rows,
        "block_columns": block_columns,
        "block_positions": 32 if like.element_size() > 2 else 64,
        "warps": TILES[kind_of(like)][2] if block_rows == block_columns == most else 4,
        "stages": 3,
    }


def kind_of(like: Tensor) -> str:
    """What the size of a tile depends on."""
    if like.element_size() == 2:
        return "narrow"
    if like.dtype == torch.float64:
        return "float64"
    if not convolutions_use_tf32():
        return "float32"
    return "tf32"


# ---------------- the kernels


@triton.jit
def split(index, depth, height, width):
    """The number of a position (n, d, h, w), taken apart."""
    w = index % width
    index = index // width
    h = index % height
    index = index // height
    return index // depth, index % depth, h, w


@triton.jit
def dot(a, b, total, precision: tl.constexpr, widen: tl.constexpr):
    """total + a · b"""
    if widen:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=precision, out_dtype=total.dtype)


@triton.jit
def factor(step, channels, taps, kernel_h, kernel_w, block_depth: tl.constexpr, flat: tl.constexpr):
    """Which channels and taps a step of the sum is over, and which of them there are.

    All taps of a channel lie behind each other if they are `flat`; else a step is over channels of one tap, whose
    number has one element.
    """
    if flat:
        k = step * block_depth + tl.arange(0, block_depth)
        c, tap, exists = k // taps, k % taps, k < channels * taps
    else:
        blocks = tl.cdiv(channels, block_depth)
        c = step % blocks * block_depth + tl.arange(0, block_depth)
        tap, exists = tl.full((1,), step // blocks, tl.int32), c < channels
    return c.to(tl.int64), tap // (kernel_h * kernel_w), tap // kernel_w % kernel_h, tap % kernel_w, exists


@triton.jit
def steps_of(channels, taps, block_depth: tl.constexpr, flat: tl.constexpr):
    """How many steps it takes to sum over channels and taps."""
    if flat:
        return tl.cdiv(channels * taps, block_depth)
    return taps * tl.cdiv(channels, block_depth)


@triton.jit
def is_in(position, size):
    """Whether a position is one of the tensor, and none of the padding."""
    return (position >= 0) & (position < size)


@triton.jit
def correlate_kernel(
    x, w, b, y, positions, channels, filters,
    in_d, in_h, in_w, out_d, out_h, out_w,
    x_n, x_c, x_d, x_h, x_w, w_o, w_c, w_d, w_h, w_w, y_n, y_c, y_d, y_h, y_w,
    kernel_d: tl.constexpr, kernel_h: tl.constexpr, kernel_w: tl.constexpr,
    stride_d: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    padding_d: tl.constexpr, padding_h: tl.constexpr, padding_w: tl.constexpr,
    dilation_d: tl.constexpr, dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    sums: tl.constexpr, precision: tl.constexpr, widen: tl.constexpr,
    block_rows: tl.constexpr, block_positions: tl.constexpr, block_depth: tl.constexpr, flat: tl.constexpr,
    large: tl.constexpr,
):  # fmt: skip
    """y[o, m] = b[o] + Σ_{c,k} w[o, (c, k)] · x[(c, k), m]"""
    program, rows = tl.program_id(0), tl.cdiv(filters, block_rows)
    row, program = program % rows, program // rows
    blocks = tl.cdiv(positions, block_positions)
    block, group = program % blocks, (program // blocks).to(tl.int64)
    if large:
        block = block.to(tl.int64)
    m = block * block_positions + tl.arange(0, block_positions)
    n, d, h, i = split(m, out_d, out_h, out_w)
    o = row * block_rows + tl.arange(0, block_rows)
    is_position, is_filter = m < positions, o < filters
    o = group * filters + o
    d0, h0, i0 = d * stride_d - padding_d, h * stride_h - padding_h, i * stride_w - padding_w
    of_m = n.to(tl.int64) * x_n + d0.to(tl.int64) * x_d + h0.to(tl.int64) * x_h + i0.to(tl.int64) * x_w
    total = tl.zeros((block_rows, block_positions), dtype=sums)
    taps: tl.constexpr = kernel_d * kernel_h * kernel_w
    for step in range(steps_of(channels, taps, block_depth, flat)):
        c, k_d, k_h, k_w, exists = factor(step, channels, taps, kernel_h, kernel_w, block_depth, flat)
        of_w = c * w_c + k_d.to(tl.int64) * w_d + k_h.to(tl.int64) * w_h + k_w.to(tl.int64) * w_w
        k_d, k_h, k_w = k_d * dilation_d, k_h * dilation_h, k_w * dilation_w
        of_k = (group * channels + c) * x_c
        of_k += k_d.to(tl.int64) * x_d + k_h.to(tl.int64) * x_h + k_w.to(tl.int64) * x_w
        seen = is_position[None, :] & is_in(d0[None, :] + k_d[:, None], in_d)
        seen &= is_in(h0[None, :] + k_h[:, None], in_h) & is_in(i0[None, :] + k_w[:, None], in_w)
        kernels = tl.load(w + o[:, None] * w_o + of_w[None, :], mask=is_filter[:, None] & exists[None, :], other=0)
        windows = tl.load(x + of_m[None, :] + of_k[:, None], mask=seen & exists[:, None], other=0)
        total = dot(kernels, windows, total, precision, widen)
    if b is not None:
        total += tl.load(b + o, mask=is_filter, other=0).to(sums)[:, None]
    to = n.to(tl.int64) * y_n + d.to(tl.int64) * y_d + h.to(tl.int64) * y_h + i.to(tl.int64) * y_w
    tl.store(y + o[:, None] * y_c + to[None, :], total, mask=is_filter[:, None] & is_position[None, :])


@triton.jit
def first_tap(phase, kernel, stride, padding, dilation):
    """The first tap k with k·d ≡ phase + p modulo s: the others that an input at this phase is seen by follow."""
    first = kernel
    for number in range(kernel):
        k = kernel - 1 - number
        first = tl.where((phase + padding - k * dilation) % stride == 0, k, first)
    return first


@triton.jit
def full_convolution_kernel(
    g, w, dx, positions, channels, filters,
    in_d, in_h, in_w, out_d, out_h, out_w,
    g_n, g_o, g_d, g_h, g_w, w_o, w_c, w_d, w_h, w_w, x_n, x_c, x_d, x_h, x_w,
    kernel_d: tl.constexpr, kernel_h: tl.constexpr, kernel_w: tl.constexpr,
    stride_d: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    padding_d: tl.constexpr, padding_h: tl.constexpr, padding_w: tl.constexpr,
    dilation_d: tl.constexpr, dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    step_d: tl.constexpr, step_h: tl.constexpr, step_w: tl.constexpr,
    sums: tl.constexpr, precision: tl.constexpr, widen: tl.constexpr,
    block_rows: tl.constexpr, block_positions: tl.constexpr, block_depth: tl.constexpr, flat: tl.constexpr,
    large: tl.constexpr,
):  # fmt: skip
    """dL/dx[c, m] = Σ_{o,k} w[o, (c, k)] · g[(o, k), m], m = (n, j) with j = phase + s·t

    Of the taps k = first + step·q, step = s / gcd(s, d), the output is i = (j + p − k·d) / s.
    """
    program, rows = tl.program_id(0), tl.cdiv(channels, block_rows)
    row, program = program % rows, program // rows
    blocks = tl.cdiv(positions, block_positions)
    block, program = program % blocks, program // blocks
    phases: tl.constexpr = stride_d * stride_h * stride_w
    phase, group = program % phases, (program // phases).to(tl.int64)
    r_d, r_h, r_w = phase // (stride_h * stride_w), phase // stride_w % stride_h, phase % stride_w
    if large:
        block = block.to(tl.int64)
    m = block * block_positions + tl.arange(0, block_positions)
    n, d, h, i = split(m, tl.cdiv(in_d, stride_d), tl.cdiv(in_h, stride_h), tl.cdiv(in_w, stride_w))
    d, h, i = d * stride_d + r_d, h * stride_h + r_h, i * stride_w + r_w
    c = row * block_rows + tl.arange(0, block_rows)
    is_position, is_channel = (m < positions) & (d < in_d) & (h < in_h) & (i < in_w), c < channels
    f_d = first_tap(r_d, kernel_d, stride_d, padding_d, dilation_d)
    f_h = first_tap(r_h, kernel_h, stride_h, padding_h, dilation_h)
    f_w = first_tap(r_w, kernel_w, stride_w, padding_w, dilation_w)
    taps_d, taps_h = tl.cdiv(kernel_d - f_d, step_d), tl.cdiv(kernel_h - f_h, step_h)
    taps_w = tl.cdiv(kernel_w - f_w, step_w)
    taps = taps_d * taps_h * taps_w
    # exact, as the first tap divides: so does every other
    d0 = (d + padding_d - f_d * dilation_d) // stride_d
    h0 = (h + padding_h - f_h * dilation_h) // stride_h
    i0 = (i + padding_w - f_w * dilation_w) // stride_w
    total = tl.zeros((block_rows, block_positions), dtype=sums)
    for step in range(steps_of(filters, taps, block_depth, flat)):
        o, q_d, q_h, q_w, exists = factor(step, filters, taps, taps_h, taps_w, block_depth, flat)
        o = group * filters + o
        k_d, k_h, k_w = f_d + q_d * step_d, f_h + q_h * step_h, f_w + q_w * step_w
        of_w = o * w_o + k_d.to(tl.int64) * w_d + k_h.to(tl.int64) * w_h + k_w.to(tl.int64) * w_w
        a_d = d0[None, :] - (q_d * (step_d * dilation_d // stride_d))[:, None]
        a_h = h0[None, :] - (q_h * (step_h * dilation_h // stride_h))[:, None]
        a_w = i0[None, :] - (q_w * (step_w * dilation_w // stride_w))[:, None]
        seen = is_position[None, :] & is_in(a_d, out_d) & is_in(a_h, out_h) & is_in(a_w, out_w)
        kernels = tl.load(
            w + c[:, None].to(tl.int64) * w_c + of_w[None, :], mask=is_channel[:, None] & exists[None, :], other=0
        )
        of_g = n.to(tl.int64)[None, :] * g_n + a_d.to(tl.int64) * g_d + a_h.to(tl.int64) * g_h + a_w.to(tl.int64) * g_w
        windows = tl.load(g + of_g + o[:, None] * g_o, mask=seen & exists[:, None], other=0)
        total = dot(kernels, windows, total, precision, widen)
    to = n.to(tl.int64) * x_n + d.to(tl.int64) * x_d + h.to(tl.int64) * x_h + i.to(tl.int64) * x_w
    c = group * channels + c
    tl.store(dx + c[:, None] * x_c + to[None, :], total, mask=is_channel[:, None] & is_position[None, :])


@triton.jit
def weight_gradient_kernel(
    x, g, dw, positions, slices, dw_slice, channels, filters,
    in_d, in_h, in_w, out_d, out_h, out_w,
    x_n, x_c, x_d, x_h, x_w, g_n, g_o, g_d, g_h, g_w, w_o, w_c, w_d, w_h, w_w,
    kernel_d: tl.constexpr, kernel_h: tl.constexpr, kernel_w: tl.constexpr,
    stride_d: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    padding_d: tl.constexpr, padding_h: tl.constexpr, padding_w: tl.constexpr,
    dilation_d: tl.constexpr, dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    sums: tl.constexpr, precision: tl.constexpr, widen: tl.constexpr,
    block_rows: tl.constexpr, block_columns: tl.constexpr, block_positions: tl.constexpr, large: tl.constexpr,
):  # fmt: skip
    """dL/dw[o, ck] = Σ_m g[o, m] · x[(c, k), m], of one slice of m

    A column is a channel of a tap: channels lie behind each other, as they do in memory where they are last.
    """
    taps: tl.constexpr = kernel_d * kernel_h * kernel_w
    program, rows = tl.program_id(0), tl.cdiv(filters, block_rows)
    row, program = program % rows, program // rows
    columns = tl.cdiv(channels * taps, block_columns)
    column, program = program % columns, program // columns
    part, group = program % slices, (program // slices).to(tl.int64)
    o = row * block_rows + tl.arange(0, block_rows)
    k = column * block_columns + tl.arange(0, block_columns)
    is_filter, is_column = o < filters, k < channels * taps
    o = group * filters + o
    tap, c = k // channels, (k % channels).to(tl.int64)
    k_d, k_h, k_w = tap // (kernel_h * kernel_w), tap // kernel_w % kernel_h, tap % kernel_w
    to = c * w_c + k_d.to(tl.int64) * w_d + k_h.to(tl.int64) * w_h + k_w.to(tl.int64) * w_w
    k_d, k_h, k_w = k_d * dilation_d - padding_d, k_h * dilation_h - padding_h, k_w * dilation_w - padding_w
    of_k = (group * channels + c) * x_c + k_d.to(tl.int64) * x_d + k_h.to(tl.int64) * x_h + k_w.to(tl.int64) * x_w
    blocks = tl.cdiv(tl.cdiv(positions, block_positions), slices)
    total = tl.zeros((block_rows, block_columns), dtype=sums)
    for step in range(blocks):
        block = part * blocks + step
        if large:
            block = block.to(tl.int64)
        m = block * block_positions + tl.arange(0, block_positions)
        n, d, h, i = split(m, out_d, out_h, out_w)
        is_position = m < positions
        of_g = n.to(tl.int64) * g_n + d.to(tl.int64) * g_d + h.to(tl.int64) * g_h + i.to(tl.int64) * g_w
        d, h, i = d * stride_d, h * stride_h, i * stride_w
        of_m = n.to(tl.int64) * x_n + d.to(tl.int64) * x_d + h.to(tl.int64) * x_h + i.to(tl.int64) * x_w
        seen = is_position[None, :] & is_column[:, None] & is_in(d[None, :] + k_d[:, None], in_d)
        seen &= is_in(h[None, :] + k_h[:, None], in_h) & is_in(i[None, :] + k_w[:, None], in_w)
        gradients = tl.load(
            g + o[:, None] * g_o + of_g[None, :], mask=is_filter[:, None] & is_position[None, :], other=0
        )
        windows = tl.load(x + of_k[:, None] + of_m[None, :], mask=seen, other=0)
        total = dot(gradients, tl.trans(windows), total, precision, widen)
    to_rows = part.to(tl.int64) * dw_slice + o * w_o
    tl.store(dw + to_rows[:, None] + to[None, :], total, mask=is_filter[:, None] & is_column[None, :])


@triton.jit
def add_slices_kernel(
    slices, dw, size, count, channels, kernel_d, kernel_h, kernel_w, w_o, w_c, w_d, w_h, w_w, block: tl.constexpr
):
    """dL/dw = Σ over the slices, one after the other"""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < size
    total = tl.zeros((block,), dtype=slices.dtype.element_ty)
    values = slices + at
    for _ in range(count):
        total += tl.load(values, mask=inside, other=0)
        values += size
    index, d, h, i = split(at, kernel_d, kernel_h, kernel_w)
    to = index // channels * w_o + index % channels * w_c + d * w_d + h * w_h + i * w_w
    tl.store(dw + to, total, mask=inside)

"""Depthwise convolution: every channel has kernels of its own, so there are no products of matrices.

    y[o, m]     = b[o] + Σ_k w[o, k] · x[c, i·s + k·d − p]        o = c·M + q: M kernels a channel
    dL/dx[c, m] = Σ_{q,k} w[o, k] · g[o, (j + p − k·d) / s]        where that is whole
    dL/dw[o, k] = Σ_m g[o, m] · x[c, i·s + k·d − p]

A program computes a tile of channels × positions (n, i) or (n, j), and reads x and g once: what neighbouring taps see
again lies in its cache. Tiles are long along what is contiguous. dL/dw is summed in slices of the positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from torchfromscratch.kernels.layout import is_channels_last
from torchfromscratch.kernels.precision import wide_type
from torchfromscratch.kernels.triton.convolution import (
    INT32_ELEMENTS,
    PROGRAMS,
    add_slices,
    arithmetic,
    empty_input,
    empty_output,
    empty_weight,
    is_in,
    numbers,
    power_of_two,
    split,
)
from torchfromscratch.kernels.triton.launch import as_bytes, blocks_of, launch, operation, sizes, strides
from torchfromscratch.kernels.windows import Windows

# A tile's elements, and how many of them lie along what is contiguous.
TILE = 1024
ALONG = 64


def tile_for(channels: int, positions: int, like: Tensor) -> dict[str, int]:
    """Channels × positions."""
    if is_channels_last(like):
        block_channels = power_of_two(channels, 1, ALONG)
        return {
            "block_channels": block_channels,
            "block_positions": power_of_two(positions, 16, TILE // block_channels),
        }
    block_positions = power_of_two(positions, 16, TILE // 4)
    return {"block_channels": power_of_two(channels, 1, TILE // block_positions), "block_positions": block_positions}


def sums_of(tensor: Tensor) -> Any:
    """The type of sums, as Triton names it."""
    return arithmetic(tensor)["sums"]


@operation(like=empty_output)
def depthwise(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in kernels/convolution."""
    output = empty_output(input, weight, bias, windows)
    channels, positions = weight.shape[0], input.shape[0] * math.prod(output.shape[2:])
    tile = tile_for(channels, positions, output)
    launch(
        depthwise_kernel,
        blocks_of(channels, tile["block_channels"]) * blocks_of(positions, tile["block_positions"]),
        *(input, weight, bias, output, positions, channels, channels // windows.groups),
        *(*sizes(input), *sizes(output), *strides(input), *strides(weight), *strides(output)),
        **numbers(windows),
        **tile,
        sums=sums_of(input),
        large=positions >= INT32_ELEMENTS,
    )
    return output


@operation(like=empty_input)
def depthwise_full_convolution(
    grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]
) -> Tensor:
    """dL/dx, shapes as in kernels/convolution."""
    grad_input = empty_input(grad_output, weight, windows, input_size)
    channels, positions = windows.groups, grad_output.shape[0] * math.prod(input_size)
    tile = tile_for(channels, positions, grad_input)
    launch(
        depthwise_full_convolution_kernel,
        blocks_of(channels, tile["block_channels"]) * blocks_of(positions, tile["block_positions"]),
        *(grad_output, weight, grad_input, positions, channels, weight.shape[0] // channels),
        *(*sizes(grad_input), *sizes(grad_output)),
        *(*strides(grad_output), *strides(weight), *strides(grad_input)),
        **numbers(windows),
        **tile,
        sums=sums_of(grad_output),
        large=positions >= INT32_ELEMENTS,
    )
    return grad_input


def weight_slices(grad_output: Tensor) -> tuple[dict[str, int], int]:
    """The tile of dL/dw, and the number of slices of its positions."""
    channels, positions = grad_output.shape[1], grad_output.shape[0] * math.prod(grad_output.shape[2:])
    tile = tile_for(channels, positions, grad_output)
    wanted = blocks_of(PROGRAMS, blocks_of(channels, tile["block_channels"]))
    return tile, max(1, min(wanted, blocks_of(positions, 4 * tile["block_positions"])))


def traffic_of_weight_gradient(args: Sequence[Any], results: Sequence[Tensor]) -> tuple[int, int]:
    """Two launches, with the slices written and read in between."""
    input, grad_output = args[:2]
    _, slices = weight_slices(grad_output)
    of_slices = slices * results[0].numel() * wide_type(input.dtype).itemsize
    return 2, as_bytes(input, grad_output, *results) + 2 * of_slices


@operation(like=empty_weight, traffic=traffic_of_weight_gradient)
def depthwise_weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in kernels/convolution."""
    grad_weight = empty_weight(input, grad_output, windows)
    channels, positions = grad_output.shape[1], grad_output.shape[0] * math.prod(grad_output.shape[2:])
    tile, slices = weight_slices(grad_output)
    sums = grad_weight.new_empty((slices, *grad_weight.shape), dtype=wide_type(input.dtype))
    launch(
        depthwise_weight_gradient_kernel,
        slices * blocks_of(channels, tile["block_channels"]),
        *(input, grad_output, sums, positions, slices, channels, channels // windows.groups),
        *(*sizes(input), *sizes(grad_output), *strides(input), *strides(grad_output)),
        **numbers(windows),
        **tile,
        block_taps=power_of_two(windows.tap_count, 1, windows.tap_count * 2),
        sums=sums_of(input),
        large=positions >= INT32_ELEMENTS,
    )
    add_slices(sums, grad_weight)
    return grad_weight


# ---------------- the kernels


@triton.jit
def depthwise_kernel(
    x, w, b, y, positions, channels, multiplier,
    in_d, in_h, in_w, out_d, out_h, out_w,
    x_n, x_c, x_d, x_h, x_w, w_o, w_c, w_d, w_h, w_w, y_n, y_c, y_d, y_h, y_w,
    kernel_d: tl.constexpr, kernel_h: tl.constexpr, kernel_w: tl.constexpr,
    stride_d: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    padding_d: tl.constexpr, padding_h: tl.constexpr, padding_w: tl.constexpr,
    dilation_d: tl.constexpr, dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    block_channels: tl.constexpr, block_positions: tl.constexpr, sums: tl.constexpr, large: tl.constexpr,
):  # fmt: skip
    """y[o, m] = b[o] + Σ_k w[o, k] · x[c, i·s + k·d − p]"""
    program, rows = tl.program_id(0), tl.cdiv(channels, block_channels)
    row, block = program % rows, program // rows
    if large:
        block = block.to(tl.int64)
    m = block * block_positions + tl.arange(0, block_positions)
    n, d, h, i = split(m, out_d, out_h, out_w)
    o = row * block_channels + tl.arange(0, block_channels)
    inside = (o < channels)[:, None] & (m < positions)[None, :]
    c, o64, n = (o // multiplier).to(tl.int64), o.to(tl.int64), n.to(tl.int64)
    total = tl.zeros((block_channels, block_positions), dtype=sums)
    if b is not None:
        total += tl.load(b + o64, mask=o < channels, other=0).to(sums)[:, None]
    for tap in range(kernel_d * kernel_h * kernel_w):
        _, k_d, k_h, k_w = split(tap, kernel_d, kernel_h, kernel_w)
        j_d = d * stride_d - padding_d + k_d * dilation_d
        j_h = h * stride_h - padding_h + k_h * dilation_h
        j_w = i * stride_w - padding_w + k_w * dilation_w
        seen = is_in(j_d, in_d) & is_in(j_h, in_h) & is_in(j_w, in_w)
        of_x = n * x_n + j_d.to(tl.int64) * x_d + j_h.to(tl.int64) * x_h + j_w.to(tl.int64) * x_w
        values = tl.load(x + c[:, None] * x_c + of_x[None, :], mask=inside & seen[None, :], other=0).to(sums)
        factors = tl.load(w + o64 * w_o + k_d * w_d + k_h * w_h + k_w * w_w, mask=o < channels, other=0).to(sums)
        total += factors[:, None] * values
    to = n * y_n + d.to(tl.int64) * y_d + h.to(tl.int64) * y_h + i.to(tl.int64) * y_w
    tl.store(y + o64[:, None] * y_c + to[None, :], total, mask=inside)


@triton.jit
def depthwise_full_convolution_kernel(
    g, w, dx, positions, channels, multiplier,
    in_d, in_h, in_w, out_d, out_h, out_w,
    g_n, g_o, g_d, g_h, g_w, w_o, w_c, w_d, w_h, w_w, x_n, x_c, x_d, x_h, x_w,
    kernel_d: tl.constexpr, kernel_h: tl.constexpr, kernel_w: tl.constexpr,
    stride_d: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    padding_d: tl.constexpr, padding_h: tl.constexpr, padding_w: tl.constexpr,
    dilation_d: tl.constexpr, dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    block_channels: tl.constexpr, block_positions: tl.constexpr, sums: tl.constexpr, large: tl.constexpr,
):  # fmt: skip
    """dL/dx[c, m] = Σ_{q,k} w[o, k] · g[o, (j + p − k·d) / s]"""
    program, rows = tl.program_id(0), tl.cdiv(channels, block_channels)
    row, block = program % rows, program // rows
    if large:
        block = block.to(tl.int64)
    m = block * block_positions + tl.arange(0, block_positions)
    n, d, h, i = split(m, in_d, in_h, in_w)
    c = row * block_channels + tl.arange(0, block_channels)
    inside = (c < channels)[:, None] & (m < positions)[None, :]
    c64, n = c.to(tl.int64), n.to(tl.int64)
    total = tl.zeros((block_channels, block_positions), dtype=sums)
    for number in range(kernel_d * kernel_h * kernel_w * multiplier):
        q, k_d, k_h, k_w = split(number, kernel_d, kernel_h, kernel_w)
        a_d, a_h = d + padding_d - k_d * dilation_d, h + padding_h - k_h * dilation_h
        a_w = i + padding_w - k_w * dilation_w
        seen = (a_d % stride_d == 0) & (a_h % stride_h == 0) & (a_w % stride_w == 0)
        a_d, a_h, a_w = a_d // stride_d, a_h // stride_h, a_w // stride_w
        seen &= is_in(a_d, out_d) & is_in(a_h, out_h) & is_in(a_w, out_w)
        o = c64 * multiplier + q
        of_g = n * g_n + a_d.to(tl.int64) * g_d + a_h.to(tl.int64) * g_h + a_w.to(tl.int64) * g_w
        values = tl.load(g + o[:, None] * g_o + of_g[None, :], mask=inside & seen[None, :], other=0).to(sums)
        factors = tl.load(w + o * w_o + k_d * w_d + k_h * w_h + k_w * w_w, mask=c < channels, other=0).to(sums)
        total += factors[:, None] * values
    to = n * x_n + d.to(tl.int64) * x_d + h.to(tl.int64) * x_h + i.to(tl.int64) * x_w
    tl.store(dx + c64[:, None] * x_c + to[None, :], total, mask=inside)


@triton.jit
def depthwise_weight_gradient_kernel(
    x, g, slices, positions, count, channels, multiplier,
    in_d, in_h, in_w, out_d, out_h, out_w,
    x_n, x_c, x_d, x_h, x_w, g_n, g_o, g_d, g_h, g_w,
    kernel_d: tl.constexpr, kernel_h: tl.constexpr, kernel_w: tl.constexpr,
    stride_d: tl.constexpr, stride_h: tl.constexpr, stride_w: tl.constexpr,
    padding_d: tl.constexpr, padding_h: tl.constexpr, padding_w: tl.constexpr,
    dilation_d: tl.constexpr, dilation_h: tl.constexpr, dilation_w: tl.constexpr,
    block_channels: tl.constexpr, block_positions: tl.constexpr, block_taps: tl.constexpr,
    sums: tl.constexpr, large: tl.constexpr,
):  # fmt: skip
    """dL/dw[o, k] = Σ_m g[o, m] · x[c, i·s + k·d − p], of one slice of m: all taps of some channels"""
    taps: tl.constexpr = kernel_d * kernel_h * kernel_w
    program, rows = tl.program_id(0), tl.cdiv(channels, block_channels)
    row, part = program % rows, program // rows
    o = row * block_channels + tl.arange(0, block_channels)
    c, o64 = (o // multiplier).to(tl.int64), o.to(tl.int64)
    number = tl.arange(0, block_taps)
    total = tl.zeros((block_channels, block_taps), dtype=sums)
    blocks = tl.cdiv(tl.cdiv(positions, block_positions), count)
    for step in range(blocks):
        block = part * blocks + step
        if large:
            block = block.to(tl.int64)
        m = block * block_positions + tl.arange(0, block_positions)
        n, d, h, i = split(m, out_d, out_h, out_w)
        n = n.to(tl.int64)
        inside = (o < channels)[:, None] & (m < positions)[None, :]
        of_g = n * g_n + d.to(tl.int64) * g_d + h.to(tl.int64) * g_h + i.to(tl.int64) * g_w
        gradients = tl.load(g + o64[:, None] * g_o + of_g[None, :], mask=inside, other=0).to(sums)
        for tap in range(taps):
            _, k_d, k_h, k_w = split(tap, kernel_d, kernel_h, kernel_w)
            j_d = d * stride_d - padding_d + k_d * dilation_d
            j_h = h * stride_h - padding_h + k_h * dilation_h
            j_w = i * stride_w - padding_w + k_w * dilation_w
            seen = is_in(j_d, in_d) & is_in(j_h, in_h) & is_in(j_w, in_w)
            of_x = n * x_n + j_d.to(tl.int64) * x_d + j_h.to(tl.int64) * x_h + j_w.to(tl.int64) * x_w
            values = tl.load(x + c[:, None] * x_c + of_x[None, :], mask=inside & seen[None, :], other=0).to(sums)
            share = tl.sum(gradients * values, axis=1)
            total += tl.where(number[None, :] == tap, share[:, None], 0)
    to = (part.to(tl.int64) * channels + o64) * taps
    tl.store(slices + to[:, None] + number[None, :], total, mask=(o < channels)[:, None] & (number < taps)[None, :])

"""Max pooling with its winners, fetching from them and the transpose, and average pooling with its transpose.

Each program computes a block of results and reads what they are made of, so that nothing is written twice and no two
programs add to one place:

    y[o] = max_k x[o·s + k·d − p], winner[o] = k        dL/dx[i] = Σ dL/dy[o] over the taps k of i = o·s + k·d − p
                                                        whose window o, if there is one, k wins
    y[o] = Σ x[i] / n over i in the span of o           dL/dx[i] = Σ dL/dy[o] / n over the spans o that hold i

Tensors have three spatial dimensions here; those that they lack are of size 1. Results are counted in the order in
which they lie in memory, contiguous or channels last; operands have strides of their own.
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
from torchfromscratch.kernels.pooling import empty_maxima
from torchfromscratch.kernels.spans import Dividing, Sliding, Spans
from torchfromscratch.kernels.triton import IS_INTERPRETED
from torchfromscratch.kernels.triton.launch import blocks_of, launch, operation, sizes, strides, three
from torchfromscratch.kernels.windows import Windows

# A program's results. The interpreter takes as long for a program whatever its block.
BLOCK = 2**14 if IS_INTERPRETED else 512


@operation(like=empty_maxima)
def max_windows(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The largest element of each window, and the number of the tap that saw it: the first, or the last NaN."""
    return _find_largest(input, *empty_maxima(input, windows), windows)


def _empty_positions(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    largest, _ = empty_maxima(input, windows)
    return largest, torch.empty_like(largest, dtype=torch.int64)


@operation(like=_empty_positions)
def max_positions(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The largest element of each window, and its position in the input, in row-major order."""
    return _find_largest(input, *_empty_positions(input, windows), windows)


def _empty_span_positions(input: Tensor, output_size: Sequence[int], longest: Sequence[int]) -> tuple[Tensor, Tensor]:
    largest = empty((*input.shape[:2], *output_size), any_channels_last(input), like=input)
    return largest, torch.empty_like(largest, dtype=torch.int64)


@operation(like=_empty_span_positions)
def _max_span_positions(input: Tensor, output_size: Sequence[int], longest: Sequence[int]) -> tuple[Tensor, Tensor]:
    ones = (1,) * len(longest)
    windows = Windows(tuple(longest), ones, (0,) * len(longest), ones)
    return _find_largest(input, *_empty_span_positions(input, output_size, longest), windows, divides=True)


def max_span_positions(input: Tensor, spans: Sequence[Dividing]) -> tuple[Tensor, Tensor]:
    """The largest element of each span, of which so many divide the input, and its position, in row-major order."""
    return _max_span_positions(input, [span.outputs for span in spans], [span.longest for span in spans])


def _find_largest(
    input: Tensor, largest: Tensor, winners: Tensor, windows: Windows, divides: bool = False
) -> tuple[Tensor, Tensor]:
    launch(
        max_windows_kernel,
        blocks_of(largest.numel(), BLOCK),
        input,
        largest,
        winners,
        *_sizes(windows, largest, input, largest),
        *strides(input),
        divides=divides,
        **_constants(windows, largest, input),
    )
    return largest, winners


def _empty_fetched(input: Tensor, winners: Tensor, windows: Windows) -> Tensor:
    return torch.empty_like(winners, dtype=input.dtype)


@operation(like=_empty_fetched)
def fetch(input: Tensor, winners: Tensor, windows: Windows) -> Tensor:
    """What each window's winner holds."""
    fetched = _empty_fetched(input, winners, windows)
    launch(
        fetch_kernel,
        blocks_of(fetched.numel(), BLOCK),
        input,
        winners,
        fetched,
        *_sizes(windows, fetched, input, fetched),
        *strides(input),
        **_constants(windows, fetched, input),
    )
    return fetched


def _empty_input(grad_output: Tensor, winners: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    return empty((*grad_output.shape[:2], *input_size), any_channels_last(grad_output), like=grad_output)


@operation(like=_empty_input)
def fetch_transpose(grad_output: Tensor, winners: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx: each window's dL/dy added to its winner, a tap or a position, 0 everywhere else."""
    grad_input = _empty_input(grad_output, winners, windows, input_size)
    launch(
        fetch_transpose_kernel,
        blocks_of(grad_input.numel(), BLOCK),
        grad_output,
        winners,
        grad_input,
        *_sizes(windows, grad_input, grad_input, grad_output),
        *strides(grad_output),
        *strides(winners),
        **_constants(windows, grad_input, grad_output),
        **_warps(grad_output),
    )
    return grad_input


def _empty_averages(input: Tensor, spans: Sequence[int], divisor: int) -> Tensor:
    shape = (*input.shape[:2], *spans[1::6][3 - (input.dim() - 2) :])
    return empty(shape, input.dim() == 4 and any_channels_last(input), like=input)


@operation(like=_empty_averages)
def _average(input: Tensor, spans: Sequence[int], divisor: int) -> Tensor:
    averages = _empty_averages(input, spans, divisor)
    launch(
        average_kernel,
        blocks_of(averages.numel(), BLOCK),
        input,
        averages,
        averages.numel(),
        input.shape[1],
        *_without_kinds(spans),
        *strides(input),
        **_kinds(spans),
        divisor=divisor,
        **_layout(averages, input),
    )
    return averages


def average(input: Tensor, spans: Sequence[Spans]) -> Tensor:
    """The sum over each span, divided by its divisor: (N, C, *input) → (N, C, *outputs)."""
    return _average(input, *_numbers(spans))


def _empty_shared(
    grad_output: Tensor, spans: Sequence[int], divisor: int, input_size: Sequence[int], channels_last: bool
) -> Tensor:
    return empty((*grad_output.shape[:2], *input_size), channels_last, like=grad_output)


@operation(like=_empty_shared)
def _average_transpose(
    grad_output: Tensor, spans: Sequence[int], divisor: int, input_size: Sequence[int], channels_last: bool
) -> Tensor:
    grad_input = _empty_shared(grad_output, spans, divisor, input_size, channels_last)
    launch(
        average_transpose_kernel,
        blocks_of(grad_input.numel(), BLOCK),
        grad_output,
        grad_input,
        grad_input.numel(),
        grad_input.shape[1],
        *_without_kinds(spans),
        *strides(grad_output),
        **_kinds(spans),
        divisor=divisor,
        **_layout(grad_input, grad_output),
        **_warps(grad_output),
    )
    return grad_input


def average_transpose(
    grad_output: Tensor, spans: Sequence[Spans], input_size: Sequence[int], channels_last: bool
) -> Tensor:
    """The transpose of `average`: every output's share goes to each position of its span."""
    return _average_transpose(grad_output, *_numbers(spans), input_size, channels_last)


# Kinds of spans: that divide the input, that slide, and that slide and count the padding among their elements.
DIVIDING, SLIDING, COUNTING_PADDING = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


def _numbers(spans: Sequence[Spans]) -> tuple[list[int], int]:
    """For each of three dimensions sizes, kernel, stride, padding and kind; and the divisor, or 0."""
    numbers, divisors = [1, 1, 1, 1, 0, SLIDING.value] * (3 - len(spans)), []
    for span in spans:
        if isinstance(span, Sliding):
            kind = COUNTING_PADDING if span.counts_padding else SLIDING
            numbers += [span.inputs, span.outputs, span.kernel, span.stride, span.padding, kind.value]
            divisors += [] if span.divisor is None else [span.divisor]
        else:
            numbers += [span.inputs, span.outputs, span.longest, 1, 0, DIVIDING.value]
    return numbers, math.prod(divisors) if divisors else 0


def _without_kinds(numbers: Sequence[int]) -> list[int]:
    return [number for at, number in enumerate(numbers) if at % 6 < 5]


def _kinds(numbers: Sequence[int]) -> dict[str, int]:
    return dict(zip(("kind_d", "kind_h", "kind_w"), numbers[5::6], strict=True))


def _sizes(windows: Windows, result: Tensor, input: Tensor, output: Tensor) -> list[int]:
    """The result's elements and channels; then input, output, stride, padding, dilation: along depth, height, width."""
    of_windows = three(windows.stride), three(windows.padding, missing=0), three(windows.dilation)
    return [result.numel(), result.shape[1], *sizes(input), *sizes(output), *sum(of_windows, ())]


def _constants(windows: Windows, result: Tensor, operand: Tensor) -> dict[str, Any]:
    kernel_size = dict(zip(("kd", "kh", "kw"), three(windows.kernel_size), strict=True))
    return {**kernel_size, **_layout(result, operand)}


def _layout(result: Tensor, operand: Tensor) -> dict[str, Any]:
    """How `_place` counts. Offsets within a sample are wide as well where the operand reaches that far."""
    reach = sum([(size - 1) * stride for size, stride in zip(operand.shape, operand.stride(), strict=True)])
    is_wide = max(result.numel(), reach) >= 2**31 - BLOCK
    return {"channels_last": any_channels_last(result), "wide": is_wide, "block": BLOCK}


def _warps(grad_output: Tensor) -> dict[str, int]:
    """Those of a transpose: with 4, float64 spills registers."""
    return {"warps": 8 if grad_output.dtype == torch.float64 else 4}


@triton.jit
def _positions(block: tl.constexpr, wide: tl.constexpr):
    """A program's positions, in 32 bits where these are enough: GPUs divide such numbers ten times as fast."""
    program = tl.program_id(0)
    return (program.to(tl.int64) if wide else program) * block + tl.arange(0, block)


@triton.jit
def _place(at, channels, d, h, w, channels_last: tl.constexpr):
    """The place (n, c, d, h, w) of the elements that lie at these positions of a dense tensor, n and c in int64."""
    if channels_last:
        c, at = at % channels, at // channels
    x, at = at % w, at // w
    y, at = at % h, at // h
    z, at = at % d, at // d
    if not channels_last:
        c, at = at % channels, at // channels
    return at.to(tl.int64), c.to(tl.int64), z, y, x


@triton.jit
def _first(o, inputs, outputs, stride, padding, divides: tl.constexpr):
    """Where the window of output o begins, and where the positions end that it may see."""
    if divides:
        start, end = o * inputs // outputs, ((o + 1) * inputs + outputs - 1) // outputs
    else:
        start, end = o * stride - padding, inputs
    return start, end


@triton.jit
def max_windows_kernel(
    input, largest, winners, size, channels,
    id, ih, iw, od, oh, ow, sd, sh, sw, pd, ph, pw, dd, dh, dw,
    x_n, x_c, x_d, x_h, x_w, divides: tl.constexpr, kd: tl.constexpr, kh: tl.constexpr, kw: tl.constexpr,
    channels_last: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The winner's position where it is asked for, in int64, else the number of its tap."""
    at = _positions(block, wide)
    n, c, z, y, x = _place(at, channels, od, oh, ow, channels_last)
    input += n * x_n + c * x_c
    start_d, end_d = _first(z, id, od, sd, pd, divides)
    start_h, end_h = _first(y, ih, oh, sh, ph, divides)
    start_w, end_w = _first(x, iw, ow, sw, pw, divides)
    best = tl.full((block,), float("-inf"), tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32)
    winner = tl.full((block,), -1, winners.dtype.element_ty if winners.dtype.element_ty == tl.int64 else tl.int32)
    for tap_d in range(kd):
        for tap_h in range(kh):
            for tap_w in range(kw):
                i, j, k = start_d + tap_d * dd, start_h + tap_h * dh, start_w + tap_w * dw
                inside = (at < size) & (i >= 0) & (i < end_d) & (j >= 0) & (j < end_h) & (k >= 0) & (k < end_w)
                value = tl.load(input + i * x_d + j * x_h + k * x_w, mask=inside, other=float("-inf")).to(best.dtype)
                wins = inside & ((value > best) | (value != value) | (winner < 0))
                best = tl.where(wins, value, best)
                if winner.dtype == tl.int64:
                    winner = tl.where(wins, (i.to(tl.int64) * ih + j) * iw + k, winner)
                else:
                    winner = tl.where(wins, (tap_d * kh + tap_h) * kw + tap_w, winner)
    tl.store(largest + at, best, mask=at < size)
    tl.store(winners + at, tl.maximum(winner, 0), mask=at < size)


@triton.jit
def fetch_kernel(
    input, winners, fetched, size, channels,
    id, ih, iw, od, oh, ow, sd, sh, sw, pd, ph, pw, dd, dh, dw,
    x_n, x_c, x_d, x_h, x_w, kd: tl.constexpr, kh: tl.constexpr, kw: tl.constexpr,
    channels_last: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    at = _positions(block, wide)
    n, c, z, y, x = _place(at, channels, od, oh, ow, channels_last)
    tap = tl.load(winners + at, mask=at < size, other=0).to(tl.int32)
    i = z * sd + tap // (kh * kw) * dd - pd
    j = y * sh + tap // kw % kh * dh - ph
    k = x * sw + tap % kw * dw - pw
    value = tl.load(input + n * x_n + c * x_c + i * x_d + j * x_h + k * x_w, mask=at < size)
    tl.store(fetched + at, value, mask=at < size)


@triton.jit
def fetch_transpose_kernel(
    grad_output, winners, grad_input, size, channels,
    id, ih, iw, od, oh, ow, sd, sh, sw, pd, ph, pw, dd, dh, dw,
    g_n, g_c, g_d, g_h, g_w, w_n, w_c, w_d, w_h, w_w, kd: tl.constexpr, kh: tl.constexpr, kw: tl.constexpr,
    channels_last: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    at = _positions(block, wide)
    n, c, z, y, x = _place(at, channels, id, ih, iw, channels_last)
    grad_output += n * g_n + c * g_c
    winners += n * w_n + c * w_c
    position = (z.to(tl.int64) * ih + y) * iw + x
    total = tl.zeros((block,), tl.float64 if grad_output.dtype.element_ty == tl.float64 else tl.float32)
    for tap_d in range(kd):
        for tap_h in range(kh):
            for tap_w in range(kw):
                i, j, k = z + pd - tap_d * dd, y + ph - tap_h * dh, x + pw - tap_w * dw
                meets = (at < size) & (i >= 0) & (j >= 0) & (k >= 0) & (i % sd == 0) & (j % sh == 0) & (k % sw == 0)
                i, j, k = i // sd, j // sh, k // sw
                meets &= (i < od) & (j < oh) & (k < ow)
                winner = tl.load(winners + i * w_d + j * w_h + k * w_w, mask=meets, other=-1)
                if winner.dtype == tl.int64:
                    wins = meets & (winner == position)
                else:
                    wins = meets & (winner == (tap_d * kh + tap_h) * kw + tap_w)
                total += tl.load(grad_output + i * g_d + j * g_h + k * g_w, mask=wins, other=0).to(total.dtype)
    tl.store(grad_input + at, total, mask=at < size)


@triton.jit
def _span(o, inputs, outputs, kernel, stride, padding, kind: tl.constexpr):
    """The positions [start, end) of the input that output o averages, and what their sum is divided by."""
    if kind == DIVIDING:
        start, end = o * inputs // outputs, ((o + 1) * inputs + outputs - 1) // outputs
        return start, end, end - start
    start = o * stride - padding
    end = start + kernel
    if kind == COUNTING_PADDING:
        count = tl.minimum(end, inputs + padding) - start
    else:
        count = tl.minimum(end, inputs) - tl.maximum(start, 0)
    return tl.maximum(start, 0), tl.minimum(end, inputs), count


@triton.jit
def _outputs(i, inputs, outputs, kernel, stride, padding, kind: tl.constexpr):
    """The outputs [start, end) whose spans hold position i."""
    if kind == DIVIDING:
        return i * outputs // inputs, ((i + 1) * outputs + inputs - 1) // inputs
    reach = i + padding
    return tl.maximum(reach - kernel + stride, 0) // stride, tl.minimum(reach // stride + 1, outputs)


@triton.jit
def average_kernel(
    input, averages, size, channels,
    id, od, kd, sd, pd, ih, oh, kh, sh, ph,
    iw, ow, kw, sw, pw, x_n, x_c, x_d, x_h, x_w,
    kind_d: tl.constexpr, kind_h: tl.constexpr, kind_w: tl.constexpr, divisor: tl.constexpr,
    channels_last: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    at = _positions(block, wide)
    n, c, z, y, x = _place(at, channels, od, oh, ow, channels_last)
    input += n * x_n + c * x_c
    start_d, end_d, count_d = _span(z, id, od, kd, sd, pd, kind_d)
    start_h, end_h, count_h = _span(y, ih, oh, kh, sh, ph, kind_h)
    start_w, end_w, count_w = _span(x, iw, ow, kw, sw, pw, kind_w)
    total = tl.zeros((block,), tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32)
    for tap_d in range(kd):
        for tap_h in range(kh):
            for tap_w in range(kw):
                i, j, k = start_d + tap_d, start_h + tap_h, start_w + tap_w
                inside = (at < size) & (i < end_d) & (j < end_h) & (k < end_w)
                total += tl.load(input + i * x_d + j * x_h + k * x_w, mask=inside, other=0).to(total.dtype)
    count = count_d * count_h * count_w if divisor == 0 else divisor
    tl.store(averages + at, total / count, mask=at < size)


@triton.jit
def average_transpose_kernel(
    grad_output, grad_input, size, channels,
    id, od, kd, sd, pd, ih, oh, kh, sh, ph,
    iw, ow, kw, sw, pw, g_n, g_c, g_d, g_h, g_w,
    kind_d: tl.constexpr, kind_h: tl.constexpr, kind_w: tl.constexpr, divisor: tl.constexpr,
    channels_last: tl.constexpr, wide: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    at = _positions(block, wide)
    n, c, z, y, x = _place(at, channels, id, ih, iw, channels_last)
    grad_output += n * g_n + c * g_c
    start_d, end_d = _outputs(z, id, od, kd, sd, pd, kind_d)
    start_h, end_h = _outputs(y, ih, oh, kh, sh, ph, kind_h)
    start_w, end_w = _outputs(x, iw, ow, kw, sw, pw, kind_w)
    total = tl.zeros((block,), tl.float64 if grad_output.dtype.element_ty == tl.float64 else tl.float32)
    for step_d in range(tl.max(end_d - start_d, 0)):
        for step_h in range(tl.max(end_h - start_h, 0)):
            for step_w in range(tl.max(end_w - start_w, 0)):
                i, j, k = start_d + step_d, start_h + step_h, start_w + step_w
                inside = (at < size) & (i < end_d) & (j < end_h) & (k < end_w)
                _, _, count_d = _span(i, id, od, kd, sd, pd, kind_d)
                _, _, count_h = _span(j, ih, oh, kh, sh, ph, kind_h)
                _, _, count_w = _span(k, iw, ow, kw, sw, pw, kind_w)
                count = count_d * count_h * count_w if divisor == 0 else divisor
                share = tl.load(grad_output + i * g_d + j * g_h + k * g_w, mask=inside, other=0).to(total.dtype)
                total += tl.where(inside, share / count, 0)
    tl.store(grad_input + at, total, mask=at < size)

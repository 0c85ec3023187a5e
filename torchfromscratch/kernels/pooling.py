"""Max pooling in three parts: which tap of each window wins, fetching winners, sending back to them.

Windows are compared tap by tap: what one tap sees of all windows is a strided view of the input, so
nothing is ever copied out into windows. A winner is kept as its tap's number, one byte a window; where
that lies in the input is the window's own position plus an offset looked up for the tap.

x is (N, C, *input); y, dL/dy and the winners are (N, C, *output).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.chunks import chunks, part_of
from torchfromscratch.kernels.gate import where_equal, wide_enough
from torchfromscratch.kernels.layout import any_channels_last, empty
from torchfromscratch.kernels.memory import Workspace, computed_in, may_be_looked_at, stands_for_many
from torchfromscratch.kernels.precision import widened
from torchfromscratch.kernels.windows import Windows, spatial

# Sending back tap by tap walks over all windows for each tap, an index over each window once: 3×3 taps take
# 13.9 and 7.6 ms of contiguous pictures, 9.8 and 11 channels last (64 × 112², batch 8).
TAPS_ONE_BY_ONE = 8


def max_windows(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The largest element of each window, and the number of the tap that saw it.

    The first of equal elements wins; NaN beats every number, and a later NaN an earlier one.
    """
    lowest = -math.inf if input.is_floating_point() else torch.iinfo(input.dtype).min
    output_size = windows.output_size(input.shape[2:])
    largest, winners = empty_maxima(input, windows)
    workspace = Workspace() if input.is_floating_point() and may_be_looked_at(input) else None
    parts = chunks(input, math.prod(input.shape[1:]))
    for part, padded in zip(parts, padded_parts(input, windows, lowest, parts), strict=True):
        if workspace is not None and covers(windows, input.shape[2:]):
            best, numbers = [found.view_as(part_of(largest, part)) for found in widened(padded).flatten(2).max(2)]
        else:
            best, numbers = _max_windows(widened(padded), output_size, windows, workspace)
        if workspace is not None and best.sum().isnan():
            best, numbers = _max_windows(padded, output_size, windows, workspace=None)
        part_of(largest, part).copy_(best)
        part_of(winners, part).copy_(numbers)
    return largest, winners


def covers(windows: Windows, input_size: Sequence[int]) -> bool:
    """Whether there is one window over the whole input, whose elements lie as its taps are numbered."""
    return windows.kernel_size == tuple(input_size) and not any(windows.padding) and set(windows.dilation) == {1}


def padded_parts(input: Tensor, windows: Windows, value: float, parts: list[slice]) -> Iterator[Tensor]:
    """Each part of the batch with `value` around it, in the memory of the first one."""
    sizes = input.shape[2:]
    befores = [before for before, _ in windows.reach(sizes)]
    inside = spatial([slice(before, before + size) for before, size in zip(befores, sizes, strict=True)])
    padded = windows.pad(part_of(input, parts[0]), value)
    yield padded
    for part in parts[1:]:
        pictures = part_of(input, part)
        if padded.shape[2:] != sizes:
            padded[: pictures.shape[0]][inside] = pictures
            pictures = padded[: pictures.shape[0]]
        yield pictures


def empty_maxima(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """Memory for the largest element of each window and for its number, in one byte if that is enough."""
    shape = (*input.shape[:2], *windows.output_size(input.shape[2:]))
    largest = empty(shape, any_channels_last(input), like=input)
    return largest, torch.empty_like(largest, dtype=torch.int8 if len(windows.taps) <= 2**7 else torch.int32)


def _max_windows(
    padded: Tensor, output_size: Sequence[int], windows: Windows, workspace: Workspace | None
) -> tuple[Tensor, Tensor]:
    """Along the last dimension, then along the one before: a window's largest is the largest of its rows' largest.

    Numbers grow from tap to tap, so the last winner's is the largest of the winners'. In a workspace, comparisons
    are written as floats: that takes a CPU a third of the time of truth values, but NaN loses them.
    """
    if workspace is not None:
        workspace.begin()
    largest, taps_before, counts = padded, 1, torch.int32 if workspace is None else padded.dtype
    numbers: Tensor | None = None  # while all are 0
    for dim in reversed(range(windows.dims)):
        outputs = output_size[dim]
        values = taps_along(dim, largest, windows, outputs, workspace)
        before = [None] * len(values) if numbers is None else taps_along(dim, numbers, windows, outputs, workspace)
        best, numbers = values[0], before[0]
        if windows.padding[dim]:
            first = taps_before * first_inside(dim, windows, outputs, padded.device)
            numbers = first.to(counts) if numbers is None else numbers + first
        for tap, (value, row_numbers) in enumerate(zip(values[1:], before[1:], strict=True), 1):
            if workspace is None:
                wins = ((value > best) | (value != value)).to(counts)
            else:
                wins = torch.gt(value, best, out=workspace.like(value))
            best = computed_in(workspace, torch.maximum, best, value)
            number = tap * taps_before
            if row_numbers is not None:
                wins.mul_(computed_in(workspace, torch.add, row_numbers, number))
            elif number != 1:
                wins.mul_(number)
            numbers = wins if numbers is None else computed_in(workspace, torch.maximum, wins, numbers)
        largest, taps_before = best, taps_before * windows.kernel_size[dim]
    return largest, torch.zeros_like(largest, dtype=counts) if numbers is None else numbers


def taps_along(dim: int, data: Tensor, windows: Windows, outputs: int, workspace: Workspace | None) -> list[Tensor]:
    """What each tap along one dimension sees of the data; a copy if it lies apart, which is slow to compute with."""
    seen = [windows.seen_along(dim, number, data, outputs) for number in range(windows.kernel_size[dim])]
    if workspace is None:
        return [view if 1 in view.stride() else view.clone() for view in seen]
    return [view if 1 in view.stride() else workspace.like(view).copy_(view) for view in seen]


def fetch(input: Tensor, winners: Tensor, windows: Windows) -> Tensor:
    """What each window's winner holds."""
    positions = flat_positions(winners, windows, input.shape[2:])
    if any_channels_last(input):
        by_pixel = _pixels(input).gather(1, _pixels(positions))
        return by_pixel.view(-1, *winners.shape[2:], winners.shape[1]).movedim(-1, 1)
    return _planes(input).gather(2, _planes(positions)).view(winners.shape)


def send_back(grad_output: Tensor, winners: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx: each window's dL/dy added to its winner, 0 everywhere else."""
    if len(windows.taps) > TAPS_ONE_BY_ONE:
        return _send_back_by_index(grad_output, winners, windows, input_size)
    shape = (*grad_output.shape[:2], *windows.padded_size(input_size))
    size = grad_output.shape[2:]
    padded = empty(shape, any_channels_last(grad_output), like=grad_output)
    without_gaps = windows.stride == windows.kernel_size == windows.extent
    tile_the_input = without_gaps and shape[2:] == tuple(map(operator.mul, size, windows.stride))
    if not tile_the_input:
        padded.zero_()
    for part in chunks(padded, math.prod(padded.shape[1:])):
        gradients, numbers = part_of(grad_output, part), wide_enough(part_of(winners, part), grad_output)
        for number, tap in enumerate(windows.taps):
            there = windows.seen_by(tap, part_of(padded, part), size)
            if tile_the_input:
                where_equal(gradients, numbers, number, out=there)
            else:
                there.add_(where_equal(gradients, numbers, number))
    return windows.unpad(padded, input_size)


def _send_back_by_index(grad_output: Tensor, winners: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    batch, channels = grad_output.shape[:2]
    if any_channels_last(grad_output):
        arranged, dim, shape = _pixels, 1, (batch, math.prod(input_size), channels)
    else:
        arranged, dim, shape = _planes, 2, (batch, channels, math.prod(input_size))
    positions = arranged(flat_positions(winners, windows, input_size))
    nothing, gradients = grad_output.new_zeros(shape), arranged(grad_output)
    add = nothing.scatter_add if stands_for_many(grad_output, winners) else nothing.scatter_add_
    total = add(dim, positions, gradients)
    if dim == 1:
        return total.view(batch, *input_size, channels).movedim(-1, 1)
    return total.view(batch, channels, *input_size)


def flat_positions(winners: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """Where in its channel's (*input) each winner lies, counted row by row: torch's `return_indices`."""
    device = winners.device
    window = torch.zeros((), dtype=torch.int64, device=device)
    offset = torch.zeros((), dtype=torch.int64, device=device)
    for dim, size in enumerate(input_size):
        k, s, p, d = (of[dim] for of in (windows.kernel_size, windows.stride, windows.padding, windows.dilation))
        along_output = torch.arange(winners.shape[2 + dim], device=device) * s - p
        window = window.unsqueeze(-1) * size + along_output
        offset = offset.unsqueeze(-1) * size + torch.arange(k, device=device) * d
    return window + offset.view(-1)[winners.long()]


def first_inside(dim: int, windows: Windows, outputs: int, device: torch.device) -> Tensor:
    """Along one dimension, the number of each window's first tap that lies in the input and not in the padding."""
    s, p, d = (of[dim] for of in (windows.stride, windows.padding, windows.dilation))
    outside = (p - torch.arange(outputs, device=device) * s).clamp(min=0)
    return ((outside + d - 1) // d).view(-1, *[1] * (windows.dims - 1 - dim))


def _planes(tensor: Tensor) -> Tensor:
    """(N, C, *spatial) → (N, C, pixels)."""
    return tensor.reshape(*tensor.shape[:2], math.prod(tensor.shape[2:]))


def _pixels(tensor: Tensor) -> Tensor:
    """(N, C, *spatial) → (N, pixels, C)."""
    return tensor.movedim(1, -1).reshape(tensor.shape[0], math.prod(tensor.shape[2:]), tensor.shape[1])

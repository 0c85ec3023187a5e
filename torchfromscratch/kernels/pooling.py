"""Max pooling in three parts: which tap of each window wins, fetching winners, sending back to them.

Windows are compared tap by tap: what one tap sees of all windows is a strided view of the input, so
nothing is ever copied out into windows. A winner is kept as its tap's number, one byte a window.

x is (N, C, *input); y, dL/dy and the winners are (N, C, *output).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.layout import any_channels_last
from torchfromscratch.kernels.windows import Windows


def max_windows(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The largest element of each window, and the number of the tap that saw it.

    The first of equal elements wins; NaN beats every number, and a later NaN an earlier one.
    """
    lowest = -math.inf if input.is_floating_point() else torch.iinfo(input.dtype).min
    output_size = windows.output_size(input.shape[2:])
    padded = windows.pad(input, lowest)
    first, *others = windows.taps
    largest = windows.seen_by(first, padded, output_size).clone()
    winners = first_inside(windows, output_size, input.device).expand(largest.shape)
    for number, tap in enumerate(others, 1):
        value = windows.seen_by(tap, padded, output_size)
        wins = (value > largest) | value.isnan()
        largest = torch.where(wins, value, largest)
        winners = torch.where(wins, number, winners)
    return largest, winners


def fetch(input: Tensor, winners: Tensor, windows: Windows) -> Tensor:
    """What each window's winner holds."""
    output_size = winners.shape[2:]
    padded = windows.pad(input)
    fetched = input.new_zeros(())
    for number, tap in enumerate(windows.taps):
        fetched = torch.where(winners == number, windows.seen_by(tap, padded, output_size), fetched)
    return fetched


def send_back(grad_output: Tensor, winners: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx: each window's dL/dy added to its winner, 0 everywhere else."""
    size = (*grad_output.shape[:2], *windows.padded_size(input_size))
    if any_channels_last(grad_output):
        padded = grad_output.new_zeros((size[0], *size[2:], size[1])).movedim(-1, 1)
    else:
        padded = grad_output.new_zeros(size)
    for number, tap in enumerate(windows.taps):
        there = windows.seen_by(tap, padded, grad_output.shape[2:])
        there += torch.where(winners == number, grad_output, 0)
    return windows.unpad(padded, input_size)


def flat_positions(winners: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """Where in its channel's (*input) each winner lies, counted row by row: torch's `return_indices`."""
    position = torch.zeros_like(winners, dtype=torch.int64)
    remaining, number = math.prod(windows.kernel_size), winners.long()
    for dim, size in enumerate(input_size):
        k, s, p, d = (
            of[dim] for of in (windows.kernel_size, windows.stride, windows.padding, windows.dilation)
        )
        remaining //= k
        start = torch.arange(winners.shape[2 + dim], device=winners.device) * s - p
        along = start.view(-1, *[1] * (windows.dims - dim - 1)) + number // remaining % k * d
        position = position * size + along
    return position


def first_inside(windows: Windows, output_size: Sequence[int], device: torch.device) -> Tensor:
    """The number of each window's first tap that lies in the input and not in the padding before it."""
    number = torch.zeros((), dtype=torch.int64, device=device)
    for dim, output in enumerate(output_size):
        k, s, p, d = (
            of[dim] for of in (windows.kernel_size, windows.stride, windows.padding, windows.dilation)
        )
        outside = (p - torch.arange(output, device=device) * s).clamp(min=0)
        along = (outside + d - 1) // d
        number = number.unsqueeze(-1) * k + along
    return number.to(torch.uint8 if math.prod(windows.kernel_size) <= 2**8 else torch.int32)

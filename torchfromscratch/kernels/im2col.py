"""Convolution as matrix multiplication: every window becomes a row, every filter a column.

The rows are built for a few pictures at a time, so that they stay in the processor's cache between
being written and being multiplied, and they are built channels last, so that what is copied lies
together. Both memory formats take this way; a picture in the other one is turned while it is padded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.chunks import chunks
from torchfromscratch.kernels.layout import any_channels_last, channels_to_front, empty
from torchfromscratch.kernels.windows import Windows


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y: every window's row times every filter, plus b."""
    output_size = windows.output_size(input.shape[2:])
    filters = filter_rows(weight, windows).mT

    def part(pictures: slice) -> Tensor:
        rows = window_rows(input[pictures], windows, output_size)
        if windows.groups > 1:
            product = torch.bmm(rows, filters).transpose(0, 1).reshape(-1, weight.shape[0])
            product = product if bias is None else product + bias
        else:
            product = rows[0] @ filters[0] if bias is None else torch.addmm(bias, rows[0], filters[0])
        return product.view(-1, *output_size, weight.shape[0])

    row_elements = math.prod(output_size) * filters.shape[0] * filters.shape[1]
    return join(part, chunks(input, row_elements), any_channels_last(input, weight))


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw: the sum over all windows of dL/dy there times the window's row."""
    output_size = tuple(grad_output.shape[2:])

    def part(pictures: slice) -> Tensor:
        rows = window_rows(input[pictures], windows, output_size)
        return torch.bmm(output_rows(grad_output[pictures], windows).mT, rows)

    row_elements = math.prod(output_size) * input.shape[1] * math.prod(windows.kernel_size)
    first, *others = chunks(input, row_elements)
    total = part(first)
    for pictures in others:
        total = total + part(pictures)
    filters_last = total.reshape(grad_output.shape[1], *windows.kernel_size, -1)
    return channels_to_front(filters_last, any_channels_last(input, grad_output))


def send_back(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx: dL/dy times every filter is each window's share, added up where the windows lie."""
    groups, (_, channels, *kernel_size) = windows.groups, weight.shape
    output_size = tuple(grad_output.shape[2:])
    filters = filter_rows(weight, windows)
    padded_size = windows.padded_size(input_size)

    def part(pictures: slice) -> Tensor:
        shares = torch.bmm(output_rows(grad_output[pictures], windows), filters)
        shares = shares.view(groups, -1, *output_size, *kernel_size, channels)
        padded = shares.new_zeros((groups, shares.shape[1], *padded_size, channels))
        for tap in windows.taps:
            there = windows.seen_by(tap, padded, output_size, at=2)
            share = shares[(slice(None),) * (2 + windows.dims) + tap]
            there += share
        return windows.unpad(padded, input_size, at=2).movedim(0, -2).reshape(-1, *input_size, groups * channels)

    row_elements = math.prod(output_size) * groups * filters.shape[2]
    return join(part, chunks(grad_output, row_elements), any_channels_last(grad_output, weight))


def window_rows(pictures: Tensor, windows: Windows, output_size: Sequence[int]) -> Tensor:
    """The windows over some pictures (n, C, *input) as rows (G, n·output, *k·C/G)."""
    groups, channels = windows.groups, pictures.shape[1] // windows.groups
    pixels = windows.pad(pictures.movedim(1, -1), at=1).contiguous()
    by_group = pixels.view(*pixels.shape[:-1], groups, channels)
    view = windows.slide(by_group, output_size, at=1)  # (n, *output, G, C/G, *k)
    ordered = view.movedim(1 + windows.dims, 0).movedim(2 + windows.dims, -1)  # (G, n, *output, *k, C/G)
    return ordered.reshape(groups, -1, math.prod(windows.kernel_size) * channels)


def filter_rows(weight: Tensor, windows: Windows) -> Tensor:
    """The filters (O, C/G, *k) as rows (G, O/G, *k·C/G), in the order in which a window's row is written."""
    return weight.movedim(1, -1).reshape(windows.groups, weight.shape[0] // windows.groups, -1)


def output_rows(grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dy (n, O, *output) as rows (G, n·output, O/G), one a window."""
    last = grad_output.movedim(1, -1)
    return last.reshape(-1, windows.groups, last.shape[-1] // windows.groups).transpose(0, 1)


def join(part: Callable[[slice], Tensor], parts: list[slice], channels_last: bool) -> Tensor:
    """The parts (n, *spatial, C) of a batch as one tensor (N, C, *spatial) in the memory format asked for."""
    first = part(parts[0])
    if len(parts) == 1:
        return channels_to_front(first, channels_last)
    batch, (_, *size, channels) = parts[-1].stop, first.shape
    joined = empty((batch, channels, *size), channels_last, like=first)
    joined[parts[0]] = first.movedim(-1, 1)
    for pictures in parts[1:]:
        joined[pictures] = part(pictures).movedim(-1, 1)
    return joined

"""Convolution by its definition: one tap of the kernel after the other, for all windows at once.

What tap k of every window sees is a strided view of the padded input, xₖ. With wₖ, the kernel's matrix at
that tap, the convolution and its two gradients are

    y = Σₖ wₖ · xₖ        (dL/dx)ₖ += wₖᵀ · dL/dy        dL/dwₖ = dL/dy · xₖᵀ

For a kernel of a single tap, this is one matrix product and nothing is copied.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import batch_blocks
from torchfromscratch.kernels.layout import any_channels_last, empty, is_channels_last
from torchfromscratch.kernels.windows import Tap, Windows, spatial


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in `convolution.correlate`."""
    size = windows.output_size(input.shape[2:])
    padded = windows.pad(input)
    output = empty((input.shape[0], weight.shape[0], *size), any_channels_last(input, weight), like=input)
    first, *others = windows.taps
    multiply(matrix_of(first, weight, windows), windows.seen_by(first, padded, size), out=output)
    share = torch.empty_like(output) if others else output
    for tap in others:
        output += multiply(matrix_of(tap, weight, windows), windows.seen_by(tap, padded, size), out=share)
    if bias is not None:
        output += bias.view(-1, *[1] * windows.dims)
    return output


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in `convolution.full_convolution`."""
    batch, channels = grad_output.shape[0], weight.shape[1] * windows.groups
    channels_last = any_channels_last(grad_output, weight)
    share = empty((batch, channels, *grad_output.shape[2:]), channels_last, like=grad_output)
    taps = windows.taps
    if len(taps) == 1 and share.shape[2:] == tuple(input_size) and not any(windows.padding):
        return multiply(matrix_of(taps[0], weight, windows).mT, grad_output, out=share)
    padded = empty((batch, channels, *windows.padded_size(input_size)), channels_last, like=grad_output).zero_()
    for tap in taps:
        there = windows.seen_by(tap, padded, grad_output.shape[2:])
        there += multiply(matrix_of(tap, weight, windows).mT, grad_output, out=share)
    return windows.unpad(padded, input_size)


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in `convolution.weight_gradient`."""
    size, padded = grad_output.shape[2:], windows.pad(input)
    shape = (grad_output.shape[1], input.shape[1] // windows.groups, *windows.kernel_size)
    grad_weight = empty(shape, any_channels_last(input, grad_output), like=input)
    for tap in windows.taps:
        seen = windows.seen_by(tap, padded, size)
        grad_weight[spatial(tap)] = products(grad_output, seen, windows.groups).flatten(0, 1)
    return grad_weight


def matrix_of(tap: Tap, weight: Tensor, windows: Windows) -> Tensor:
    """wₖ of the kernel (O, C/G, *k): (G, O/G, C/G)."""
    return weight[spatial(tap)].unflatten(0, (windows.groups, -1))


def multiply(matrix: Tensor, data: Tensor, out: Tensor) -> Tensor:
    """Each group's matrix (G, A, B) times what each position of the data (n, G·B, *size) has: (n, G·A, *size)."""
    groups = matrix.shape[0]
    if is_channels_last(out):
        torch.bmm(rows(data, groups), matrix.mT, out=rows(out, groups))
    else:
        torch.matmul(matrix, columns(data, groups), out=columns(out, groups))
    return out


def products(left: Tensor, right: Tensor, groups: int) -> Tensor:
    """Σ over pictures and positions of left (n, G·A, *size) times right (n, G·B, *size), by group: (G, A, B)."""
    if is_channels_last(left):
        return torch.bmm(rows(left, groups).mT, rows(right, groups))
    elements = left.shape[1] * right.shape[1] // groups
    left, right = columns(left, groups), columns(right, groups)
    parts = [torch.matmul(left[part], right[part].mT).sum(0) for part in batch_blocks(left, elements)]
    return functools.reduce(torch.add, parts)


def rows(data: Tensor, groups: int) -> Tensor:
    """(n, G·C, *size) → (G, n·size, C), a view where the data lie channels last."""
    last = data.movedim(1, -1)
    return last.reshape(-1, groups, last.shape[-1] // groups).transpose(0, 1)


def columns(data: Tensor, groups: int) -> Tensor:
    """(n, G·C, *size) → (n, G, C, size), a view where the data are contiguous."""
    return data.reshape(data.shape[0], groups, data.shape[1] // groups, data.shape[2:].numel())

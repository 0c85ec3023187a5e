"""The full convolution is a correlation: of dL/dy, with zeros in its gaps and around it, with the rotated kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.layout import any_channels_last, copy_to_memory_format
from torchfromscratch.kernels.windows import Windows, spatial


def as_correlation(
    grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]
) -> tuple[Tensor, Tensor, None, Windows]:
    """The operands whose correlation is dL/dx[n, c, j] = Σ_{o,k} w[o, c, k] · dL/dy[n, o, i], i·s = j + p − k·d.

    dL/dy, its elements s apart and padded by d(k − 1) − p, is correlated with the rotated kernel.
    """
    grad_output = insert_zeros(grad_output, windows.stride)
    before, after = [], []
    for size, extent, p, outputs in zip(
        input_size, windows.extent, windows.padding, grad_output.shape[2:], strict=True
    ):
        before.append(extent - 1 - p)
        after.append(size - outputs + p)
    padding = tuple(before)
    if before != after or min(before) < 0:
        amounts = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
        grad_output = torch.constant_pad_nd(grad_output, amounts)  # negative amounts cut off
        padding = (0,) * len(padding)
    rotated = rotate180(weight, windows.groups)
    if any_channels_last(weight):
        rotated = copy_to_memory_format(rotated, channels_last=True)
    stride_one = (1,) * len(padding)
    return (
        grad_output,
        rotated,
        None,
        Windows(windows.kernel_size, stride_one, padding, windows.dilation, windows.groups),
    )


def insert_zeros(data: Tensor, steps: Sequence[int]) -> Tensor:
    """`data` (N, C, *size) with its positions so many steps apart, and zeros between them."""
    if set(steps) == {1}:
        return data
    size = [(positions - 1) * step + 1 for positions, step in zip(data.shape[2:], steps, strict=True)]
    spread = data.new_zeros((*data.shape[:2], *size))
    spread[spatial(slice(None, None, step) for step in steps)] = data
    return spread


def rotate180(weight: Tensor, groups: int = 1) -> Tensor:
    """The kernel (O, C/G, *k) rotated by 180° in space, its channels exchanged: (C, O/G, *k).

    It is rotated, as tap k of output i saw the input at i + k: to the input at j belongs the output at j − k. Its
    channels are exchanged, as the output channels go in and the input channels come out.
    """
    out_channels, in_channels, *kernel_size = weight.shape
    rotated = weight.flip(tuple(range(2, weight.dim())))
    by_group = rotated.reshape(groups, out_channels // groups, in_channels, *kernel_size)
    return by_group.transpose(1, 2).reshape(groups * in_channels, out_channels // groups, *kernel_size)

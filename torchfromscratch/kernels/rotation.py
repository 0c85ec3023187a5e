"""The full convolution with stride 1 is a correlation: with the kernel rotated by 180°."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from torchfromscratch.kernels.layout import any_channels_last, copy_to_memory_format
from torchfromscratch.kernels.windows import Windows


def as_correlation(
    grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]
) -> tuple[Tensor, Tensor, None, Windows]:
    """What to correlate for dL/dx[n, c, j] = Σ_{o,k} w[o, c, k] · dL/dy[n, o, j + p − k·d].

    dL/dy, padded by d(k − 1) − p, is correlated with the rotated kernel.
    """
    before = [extent - 1 - p for extent, p in zip(windows.extent, windows.padding, strict=True)]
    after = [
        size + extent - 1 - output - pad
        for size, extent, output, pad in zip(input_size, windows.extent, grad_output.shape[2:], before, strict=True)
    ]
    rotated = rotate180(weight, windows.groups)
    if any_channels_last(weight):
        rotated = copy_to_memory_format(rotated, channels_last=True)
    if before == after and min(before) >= 0:
        return grad_output, rotated, None, replace(windows, padding=tuple(before))
    around = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
    padded = torch.constant_pad_nd(grad_output, around)  # negative amounts cut off
    return padded, rotated, None, replace(windows, padding=(0,) * windows.dims)


def rotate180(weight: Tensor, groups: int = 1) -> Tensor:
    """The kernel (O, C/G, *k) turned by 180° in space, its channels exchanged: (C, O/G, *k).

    Turned, because the input position that tap k saw lies k before the output position, not behind it;
    exchanged, because an output channel is now what goes in, and an input channel what comes out.
    """
    out_channels, in_channels, *kernel_size = weight.shape
    turned = weight.flip(tuple(range(2, weight.dim())))
    by_group = turned.reshape(groups, out_channels // groups, in_channels, *kernel_size)
    return by_group.transpose(1, 2).reshape(groups * in_channels, out_channels // groups, *kernel_size)

"""The three partial gradients of the trilinear form that convolution is.

    S(x, w, g) = Σ g[n, o, i] · w[o, c, k] · x[n, c, i·s + k·d − p]

    correlate         ∂S/∂g    y      cross-correlation of x with w
    full_convolution  ∂S/∂x    dL/dx  full convolution of dL/dy with w: correlation with the rotated kernel
    weight_gradient   ∂S/∂w    dL/dw  cross-correlation of x with dL/dy

x is (N, C, *input), w (O, C/groups, *k) and g (N, O, *output), for any number of spatial dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from torchfromscratch.kernels import im2col
from torchfromscratch.kernels.windows import Windows


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y[n, o, i] = b[o] + Σ_{c,k} w[o, c, k] · x[n, c, i·s + k·d − p]."""
    return im2col.correlate(input, weight, bias, windows)


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw[o, c, k] = Σ_{n,i} dL/dy[n, o, i] · x[n, c, i·s + k·d − p]."""
    return im2col.weight_gradient(input, grad_output, windows)


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx[n, c, j] = Σ_{o,k} w[o, c, k] · dL/dy[n, o, i], over all i and k with i·s + k·d − p = j.

    With stride 1 that is i = j + p − k·d: dL/dy, padded by d(k − 1) − p, correlated with the rotated
    kernel. A larger stride would put s − 1 zeros between the elements of dL/dy; rather than multiply
    by them, each window's share is sent back to where the window was.
    """
    if set(windows.stride) != {1}:
        return im2col.send_back(grad_output, weight, windows, input_size)
    around: list[int] = []
    for size, output, extent, p in zip(input_size, grad_output.shape[2:], windows.extent, windows.padding, strict=True):
        before = extent - 1 - p
        around = [before, size + extent - 1 - output - before, *around]  # negative amounts cut off
    no_padding = (0,) * windows.dims
    return correlate(
        torch.constant_pad_nd(grad_output, around) if any(around) else grad_output,
        rotate180(weight, windows.groups),
        None,
        replace(windows, padding=no_padding),
    )


def rotate180(weight: Tensor, groups: int = 1) -> Tensor:
    """The kernel (O, C/G, *k) turned by 180° in space, its channels exchanged: (C, O/G, *k).

    Turned, because the input position that tap k saw lies k before the output position, not behind it;
    exchanged, because an output channel is now what goes in, and an input channel what comes out.
    """
    out_channels, in_channels, *kernel_size = weight.shape
    turned = weight.flip(tuple(range(2, weight.dim())))
    by_group = turned.reshape(groups, out_channels // groups, in_channels, *kernel_size)
    return by_group.transpose(1, 2).reshape(groups * in_channels, out_channels // groups, *kernel_size)

"""Convolution by its definition: one tap of the kernel after the other, for all windows at once.

Tap k sees a strided view xₖ (N, C, *output) of the padded input. With the kernel's matrix wₖ (O, C) at that tap,

    y = Σₖ wₖ · xₖ        (dL/dx)ₖ += wₖᵀ · dL/dy        dL/dwₖ = Σₙᵢ dL/dy · xₖᵀ

The three functions differ only in which of the three operands is summed away. Nothing here is for speed: every other
algorithm is tested against this one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.convolution.kernel import Kernel
from torchfromscratch.kernels.layout import any_channels_last, empty
from torchfromscratch.kernels.windows import Windows, spatial


def correlate(x: Tensor, w: Tensor, b: Tensor | None, windows: Windows) -> Tensor:
    """y[n, o, i] = b[o] + Σ_{c,k} w[o, c, k] · x[n, c, i·s + k·d − p]."""
    size, padded = windows.output_size(x.shape[2:]), windows.pad(x)
    y = empty((x.shape[0], w.shape[0], *size), any_channels_last(x, w), like=x).zero_()
    for tap in windows.taps:
        xk, wk = (
            split_channels(windows.tap_view(tap, padded, size), windows),
            split_channels(w[spatial(tap)], windows, 0),
        )
        y += torch.einsum("goc, ngc... -> ngo...", wk, xk).flatten(1, 2)
    return y if b is None else y.add_(b.view(-1, *[1] * windows.dims))


def full_convolution(g: Tensor, w: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx[n, c, j] = Σ_{o,k} w[o, c, k] · g[n, o, i], over all i and k with i·s + k·d − p = j."""
    shape = g.shape[0], w.shape[1] * windows.groups, *windows.padded_size(input_size)
    padded = empty(shape, any_channels_last(g, w), like=g).zero_()
    for tap in windows.taps:
        wk, xk = split_channels(w[spatial(tap)], windows, 0), windows.tap_view(tap, padded, g.shape[2:])
        xk += torch.einsum("goc, ngo... -> ngc...", wk, split_channels(g, windows)).flatten(1, 2)
    return windows.unpad(padded, input_size)


def weight_gradient(x: Tensor, g: Tensor, windows: Windows) -> Tensor:
    """dL/dw[o, c, k] = Σ_{n,i} g[n, o, i] · x[n, c, i·s + k·d − p]."""
    padded, shape = windows.pad(x), (g.shape[1], x.shape[1] // windows.groups, *windows.kernel_size)
    w = empty(shape, any_channels_last(x, g), like=x)
    for tap in windows.taps:
        xk = split_channels(windows.tap_view(tap, padded, g.shape[2:]), windows)
        w[spatial(tap)] = torch.einsum("ngo..., ngc... -> goc", split_channels(g, windows), xk).flatten(0, 1)
    return w


def split_channels(data: Tensor, windows: Windows, dim: int = 1) -> Tensor:
    """Channels (…, G·C, …) → (…, G, C, …)."""
    return data.unflatten(dim, (windows.groups, -1))


REFERENCE = Kernel(
    "reference",
    fits=lambda task: True,
    cost=lambda task: math.inf,  # only for those who ask for it
    correlate=correlate,
    full_convolution=full_convolution,
    weight_gradient=weight_gradient,
)

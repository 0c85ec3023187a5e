"""Every window of an input written out as a column, and columns summed back to where they came from.

    Unfold  y[n, (c, k), o] = x[n, c, o·s + k·d − p]
    Fold    x[n, c, i] = Σ y[n, (c, k), o] over all windows o and taps k that look at i

One copies from and the other adds to the same positions. Both are linear and each is the other's transpose,
so that each is the other's derivative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable
from torchfromscratch.kernels.memory import no_view
from torchfromscratch.kernels.windows import Windows

# Few large planes are added up tap by tap in a tenth of the time that an index takes, which small ones are faster by.
TAPS_ONE_BY_ONE = 64


class Unfold(Function):
    """x (N, C, *input) → y (N, C·∏kernel, ∏output)."""

    @staticmethod
    def forward(input: Tensor, windows: Windows) -> Tensor:
        batch, channels = input.shape[:2]
        seen = windows.slide(windows.pad(input))  # (N, C, *output, *kernel)
        taps_first = seen.movedim(tuple(range(2, 2 + windows.dims)), tuple(range(-windows.dims, 0)))
        size = math.prod(windows.output_size(input.shape[2:]))
        columns = taps_first.clone(memory_format=torch.contiguous_format)
        return no_view(columns, (batch, channels * windows.tap_count, size))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, ctx.windows = inputs
        ctx.input_size = input.shape[2:]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        return fold(grad_output, ctx.windows, ctx.input_size), None

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, _: None) -> Tensor:
        return unfold(input_t, ctx.windows)


class Fold(Function):
    """y (N, C·∏kernel, ∏output) → x (N, C, *input)."""

    @staticmethod
    def forward(columns: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
        padded_size, size = windows.padded_size(input_size), windows.output_size(input_size)
        batch, channels = columns.shape[0], columns.shape[1] // windows.tap_count
        if windows.tap_count <= TAPS_ONE_BY_ONE and batch * channels < math.prod(size):
            padded = columns.new_zeros(batch, channels, *padded_size)
            by_tap = columns.reshape(batch, channels, windows.tap_count, *size)
            for tap, shares in zip(windows.taps, by_tap.unbind(2), strict=True):
                windows.seen_by(tap, padded, size).add_(shares)
            return windows.unpad(padded, input_size)
        positions = _positions(windows, input_size, columns.device)
        nothing = columns.new_zeros(batch, channels, math.prod(padded_size))
        padded = nothing.index_add(2, positions.view(-1), columns.reshape(batch, channels, positions.numel()))
        return windows.unpad(no_view(padded, (batch, channels, *padded_size)), input_size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.windows, ctx.input_size = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return unfold(grad, ctx.windows), None, None

    @staticmethod
    def jvp(ctx: Any, columns_t: Tensor, *_: None) -> Tensor:
        return fold(columns_t, ctx.windows, ctx.input_size)


unfold = differentiable(Unfold)
fold = differentiable(Fold)


def _positions(windows: Windows, input_size: Sequence[int], device: torch.device) -> Tensor:
    """Where in the flattened padded input each tap of each window looks: (∏kernel, ∏output)."""
    padded_size = windows.padded_size(input_size)
    numbers = torch.arange(math.prod(padded_size), device=device).view(padded_size)
    seen = windows.slide(numbers, at=0)
    return seen.reshape(-1, math.prod(windows.kernel_size)).mT.contiguous()

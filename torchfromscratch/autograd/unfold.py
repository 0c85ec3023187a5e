"""Every window of an input written out as a column, and columns summed back to where they came from.

    unfold  y[n, (c, k), o] = x[n, c, o·s + k·d − p]
    fold    x[n, c, i] = Σ y[n, (c, k), o] over all windows o and taps k that look at i

One copies from and the other adds to the same positions: each is the other's transpose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.autograd.linear_map import linear_pair
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.windows import Windows

# Few large images are folded tap by tap, for up to so many taps: that takes a tenth of the time of an index. For many
# small ones the index is faster.
TAPS_ONE_BY_ONE = 64


def _unfold(input: Tensor, windows: Windows) -> Tensor:
    """x (N, C, *input) → y (N, C·∏kernel, ∏output)."""
    batch, channels = input.shape[:2]
    view = windows.slide(windows.pad(input))  # (N, C, *output, *kernel)
    taps_first = view.movedim(tuple(range(2, 2 + windows.dims)), tuple(range(-windows.dims, 0)))
    size = math.prod(windows.output_size(input.shape[2:]))
    columns = taps_first.clone(memory_format=torch.contiguous_format)
    return no_view(columns, (batch, channels * windows.tap_count, size))


def _fold(columns: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """y (N, C·∏kernel, ∏output) → x (N, C, *input)."""
    padded_size, size = windows.padded_size(input_size), windows.output_size(input_size)
    batch, channels = columns.shape[0], columns.shape[1] // windows.tap_count
    if windows.tap_count <= TAPS_ONE_BY_ONE and batch * channels < math.prod(size):
        padded = columns.new_zeros(batch, channels, *padded_size)
        by_tap = columns.reshape(batch, channels, windows.tap_count, *size)
        for tap, shares in zip(windows.taps, by_tap.unbind(2), strict=True):
            windows.tap_view(tap, padded, size).add_(shares)
        return windows.unpad(padded, input_size)
    positions = _positions(windows, input_size, columns.device)
    nothing = columns.new_zeros(batch, channels, math.prod(padded_size))
    padded = nothing.index_add(2, positions.view(-1), columns.reshape(batch, channels, positions.numel()))
    return windows.unpad(no_view(padded, (batch, channels, *padded_size)), input_size)


def _positions(windows: Windows, input_size: Sequence[int], device: torch.device) -> Tensor:
    """The position of each tap of each window in the flattened padded input: (∏kernel, ∏output)."""
    padded_size = windows.padded_size(input_size)
    numbers = torch.arange(math.prod(padded_size), device=device).view(padded_size)
    return windows.slide(numbers, at=0).reshape(-1, windows.tap_count).mT.contiguous()


# ---------------- torch's side: what is saved, vmap, forward mode

unfold, fold = linear_pair("Unfold", _unfold, _fold, remember=lambda x, windows: (x.shape[2:],), per_sample=True)

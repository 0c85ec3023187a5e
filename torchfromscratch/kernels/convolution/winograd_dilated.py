"""Dilated convolution by Winograd's method: of samples of every d-th pixel.

The taps of a window with dilation d lie d pixels apart. With stride 1, windows that lie d pixels apart see the same
pixels as windows without gaps over a sample of every d-th pixel. There are d such samples along each dimension, one for
each first pixel r, and each gives every d-th output:

    y[a·d + r] = Σₖ w[k] · x[(a + k)·d + r − p] = Σₖ w[k] · xᵣ[a + k]        xᵣ[a] = x[a·d + r − p]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from torchfromscratch.kernels.convolution import winograd
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.layout import any_channels_last, empty, to_memory_format
from torchfromscratch.kernels.windows import Windows, phases

# Samples that one sample is split into. 2×2 take 0.5 to 0.9 times as long as im2col; of 64 channels 4×4 take as long,
# and 8×8 up to 1.6 times as long.
MOST_SAMPLES = 4


def fits(task: Task) -> bool:
    return winograd.is_made_for(replace(task.windows, dilation=(1,) * task.windows.dims))


def cost(task: Task) -> float:
    """The cost of the samples. Copying them pays if they save half of the multiplications."""
    samples = math.prod(task.windows.dilation)
    if samples > MOST_SAMPLES or not winograd.pays(task):
        return math.inf
    split = SpaceToBatch(task.windows, task.input_size)
    cost = winograd.multiplications(task.batch * samples, task.channels, split.size, split.windows)
    return cost + max(cost, winograd.PREPARATION)


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in the package."""
    split = SpaceToBatch(windows, input.shape[2:])
    y = winograd.correlate(split.split_input(input), weight, bias, split.windows)
    size, channels_last = windows.output_size(input.shape[2:]), any_channels_last(input, weight)
    return split.merge(y, size, split.windows.padding, channels_last)


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in the package."""
    split = SpaceToBatch(windows, input_size)
    dx = winograd.full_convolution(split.split_output(grad_output), weight, split.windows, split.size)
    return split.merge(dx, input_size, windows.padding, any_channels_last(grad_output, weight))


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in the package."""
    split = SpaceToBatch(windows, input.shape[2:])
    grad_weight = winograd.weight_gradient(split.split_input(input), split.split_output(grad_output), split.windows)
    return to_memory_format(grad_weight, any_channels_last(input, grad_output))


def gradients(input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw, shapes as in the package."""
    split = SpaceToBatch(windows, input.shape[2:])
    x, g = split.split_input(input), split.split_output(grad_output)
    dx, grad_weight = winograd.gradients(x, weight, g, split.windows)
    grad_input = split.merge(dx, input.shape[2:], windows.padding, any_channels_last(grad_output, weight))
    return grad_input, to_memory_format(grad_weight, any_channels_last(input, grad_output))


class SpaceToBatch:
    """The samples of every d-th pixel of a sample, d along each dimension, as a batch."""

    def __init__(self, windows: Windows, input_size: Sequence[int]) -> None:
        self.dilation, self.padding = windows.dilation, windows.padding
        self.windows = replace(windows, dilation=(1,) * windows.dims, padding=(0,) * windows.dims)
        axes = zip(input_size, self.padding, self.dilation, strict=True)
        self.size = tuple(math.ceil((size + 2 * p) / d) for size, p, d in axes)
        self.output_size = self.windows.output_size(self.size)

    def split_input(self, input: Tensor) -> Tensor:
        """With the padding around it: (N, C, *input) → (N·∏d, C, *size)."""
        return self._to_batch(input, self.size, self.padding)

    def split_output(self, output: Tensor) -> Tensor:
        """(N, O, *output) → (N·∏d, O, *split output)."""
        return self._to_batch(output, self.output_size, self.windows.padding)

    def _to_batch(self, data: Tensor, size: Sequence[int], padding: Sequence[int]) -> Tensor:
        batch, channels = data.shape[:2]
        shape = (batch * math.prod(self.dilation), channels, *size)
        phase_batch = empty(shape, any_channels_last(data), like=data).zero_()
        by_phase = self._by_phase(phase_batch)
        for phase, phase_index, whole_index in phases(self.dilation, padding, data.shape[2:]):
            by_phase[phase][phase_index] = data[whole_index]
        return phase_batch

    def merge(self, phase_batch: Tensor, size: Sequence[int], padding: Sequence[int], channels_last: bool) -> Tensor:
        """The inverse of splitting, without the padding: (N·∏d, C, *split) → (N, C, *size)."""
        shape = (phase_batch.shape[0] // math.prod(self.dilation), phase_batch.shape[1], *size)
        merged = empty(shape, channels_last, like=phase_batch)
        by_phase = self._by_phase(phase_batch)
        for phase, phase_index, whole_index in phases(self.dilation, padding, size):
            merged[whole_index] = by_phase[phase][phase_index]
        return merged

    def _by_phase(self, phase_batch: Tensor) -> Tensor:
        """(N·∏d, C, *split) → (*d, N, C, *split), as a view."""
        return phase_batch.unflatten(0, (-1, *self.dilation)).movedim(0, len(self.dilation))


WINOGRAD_DILATED = Kernel("winograd", fits, cost, correlate, full_convolution, weight_gradient, gradients)

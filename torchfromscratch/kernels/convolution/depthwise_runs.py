"""Depthwise convolution where the channels lie one after the other: in runs as long as a channel.

The formulas are those of `depthwise`, but here the rows of a sample are short, and views without the padding have a gap
behind each row. So the input is copied with its padding. Tap k sees a view xₖ of the copy, whose rows are as long as
those in memory; what a row holds behind its outputs is not used:

    y = Σₖ wₖ · xₖ        dL/dwₖ = Σ dL/dy · xₖ        dL/dx as y, of dL/dy and the rotated kernel
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import batch_blocks, take_block
from torchfromscratch.kernels.convolution import depthwise
from torchfromscratch.kernels.convolution.depthwise import as_factors, split_channels, sum_over_samples, tap_factors
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.convolution.rotation import as_correlation, rotate180
from torchfromscratch.kernels.execution import has_concrete_values, in_cpu_memory
from torchfromscratch.kernels.windows import Windows, phases


def fits(task: Task) -> bool:
    """Depthwise windows over contiguous channels. Traced tensors have no memory."""
    return depthwise.fits(task) and not task.channels_last and not task.is_tracing


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in the package."""
    if in_cpu_memory(weight) and has_concrete_values(weight) and not weight.isfinite().all():
        # an infinity times the zeros around the samples would be NaN
        return depthwise.correlate(input, weight, bias, windows)
    size = windows.output_size(input.shape[2:])
    output = input.new_empty((input.shape[0], weight.shape[0], *size))
    factors = tap_factors(weight, windows)
    constants = None if bias is None else as_factors(bias, windows)
    blocks = batch_blocks(output, math.prod(output.shape[1:]))
    padded = PaddedViews(take_block(input, blocks[0]), windows, size)
    for block in blocks:
        views = padded.fill(take_block(input, block))
        accumulate(views, factors, constants, split_channels(take_block(output, block), windows))
    return output


def accumulate(views: list[Tensor], factors: list[Tensor], bias: Tensor | None, y: Tensor) -> None:
    """Σₖ wₖ · xₖ + b, into y (n, G, m, *output)."""
    shape = *y.shape[:-1], views[0].shape[-1]
    sums = torch.mul(views[0], factors[0], out=y if shape == y.shape else y.new_empty(shape))
    for x, w in zip(views[1:], factors[1:], strict=True):
        sums.addcmul_(x, w)
    if bias is not None:
        torch.add(sums[..., : y.shape[-1]], bias, out=y)
    elif shape != y.shape:
        y.copy_(sums[..., : y.shape[-1]])


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in the package. With a stride it has no runs."""
    if turns_into_correlation(weight, windows):
        return correlate(*as_correlation(grad_output, weight, windows, input_size))
    return depthwise.full_convolution(grad_output, weight, windows, input_size)


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in the package."""
    if in_cpu_memory(input, grad_output) and has_concrete_values(input, grad_output):
        shares = input.new_empty((windows.tap_count, *grad_output.shape[:2]))  # of each sample
        blocks = batch_blocks(grad_output, math.prod(grad_output.shape[1:]))
        padded = PaddedViews(take_block(input, blocks[0]), windows, grad_output.shape[2:])
        buffer = WeightGradientBuffer(take_block(grad_output, blocks[0]), padded.row, windows)
        for block in blocks:
            buffer.accumulate(
                take_block(grad_output, block), padded.fill(take_block(input, block)), take_block(shares, block, 1)
            )
        grad_weight = sum_over_samples(shares, windows)
        if grad_weight.isfinite().all():
            return grad_weight
    return depthwise.weight_gradient(input, grad_output, windows)


def gradients(input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw, shapes as in the package.

    Where dL/dx is a correlation of dL/dy with the rotated kernel, the gradient of the rotated kernel is the sum of x
    times the views that its taps see of dL/dy. So both gradients come from the same views.
    """
    operands = input, weight, grad_output
    are_concrete = in_cpu_memory(*operands) and has_concrete_values(*operands)
    if not (turns_into_correlation(weight, windows) and are_concrete and weight.isfinite().all()):
        grad_input = full_convolution(grad_output, weight, windows, input.shape[2:])
        return grad_input, weight_gradient(input, grad_output, windows)
    g, rotated, _, rotated_windows = as_correlation(grad_output, weight, windows, input.shape[2:])
    grad_input = input.new_empty(input.shape)
    factors = tap_factors(rotated, rotated_windows)
    shares = input.new_empty((rotated_windows.tap_count, *input.shape[:2]))
    blocks = batch_blocks(input, math.prod(input.shape[1:]))
    padded = PaddedViews(take_block(g, blocks[0]), rotated_windows, input.shape[2:])
    buffer = WeightGradientBuffer(take_block(input, blocks[0]), padded.row, rotated_windows)
    for block in blocks:
        views = padded.fill(take_block(g, block))
        accumulate(views, factors, None, split_channels(take_block(grad_input, block), rotated_windows))
        buffer.accumulate(take_block(input, block), views, take_block(shares, block, 1))
    grad_weight = rotate180(sum_over_samples(shares, rotated_windows), windows.groups)
    if not grad_weight.isfinite().all():
        return grad_input, weight_gradient(input, grad_output, windows)
    return grad_input, grad_weight


def turns_into_correlation(weight: Tensor, windows: Windows) -> bool:
    """Whether dL/dx is a depthwise correlation itself."""
    return set(windows.stride) == {1} and weight.shape[0] == windows.groups


class WeightGradientBuffer:
    """Memory for the products of dL/dy with what each tap sees: each block of the batch takes it in turn.

    Where the rows of the views go on behind the outputs, dL/dy is continued with zeros. Zero times an infinity is NaN,
    so only finite sums are right.
    """

    def __init__(self, longest: Tensor, row: int, windows: Windows) -> None:
        """For blocks like the longest one of dL/dy (n, G·m, *output), and views with rows of such a length."""
        factor = split_channels(longest, windows)
        self.windows = windows
        self.rows = factor.new_zeros((*factor.shape[:-1], row)) if row > factor.shape[-1] else None
        self.memory = torch.empty_like(factor if self.rows is None else self.rows)

    def accumulate(self, data: Tensor, views: list[Tensor], shares: Tensor) -> None:
        """Writes Σ data (n, G·m, *output) · xₖ over the outputs, for each tap, sample and kernel, to the shares."""
        batch, width, factor = data.shape[0], data.shape[-1], split_channels(data, self.windows)
        if self.rows is not None:
            self.rows[:batch, ..., :width] = factor
            factor = self.rows[:batch]
        dims = tuple(range(3, factor.dim()))
        products = (torch.mul(factor, x, out=self.memory[:batch]) for x in views)
        shares.copy_(torch.stack([product.sum(dims) for product in products]).flatten(2))


class PaddedViews:
    """The views (n, G, 1, *output) that the taps see of memory that each block of the batch is copied to in turn.

    With a stride, that memory holds a sample for each phase, the positions that lie a stride apart: runs without gaps.
    """

    def __init__(self, longest: Tensor, windows: Windows, output_size: Sequence[int]) -> None:
        """For blocks like the longest one (n, G, *input)."""
        self.windows = windows
        extent = windows.padded_size(longest.shape[2:])
        size = [-(-length // s) for length, s in zip(extent, windows.stride, strict=True)]
        self.row = output_size[-1]
        if windows.dims > 1:
            if windows.stride[-1] == 1:  # what is before a row is behind the one above as well
                size[-1] = max(size[-1] - windows.padding[-1], self.row)
            self.row = size[-1]
            size[-2] += math.ceil((windows.extent[-1] - 1) / self.row)  # the views' last row goes on behind its outputs
        shape = (math.prod(windows.stride) * longest.shape[0], longest.shape[1], *size)
        self.memory = longest.new_zeros(shape).unflatten(0, (*windows.stride, longest.shape[0]))
        self.views = [self._tap_view(tap, (*output_size[:-1], self.row)) for tap in windows.taps]

    def fill(self, samples: Tensor) -> list[Tensor]:
        """Copies some samples (n, G, *input); their views."""
        windows, batch = self.windows, samples.shape[0]
        for phase, phase_index, whole_index in phases(windows.stride, windows.padding, samples.shape[2:]):
            self.memory[phase][:batch][phase_index] = samples[whole_index]
        return [view[:batch] for view in self.views]

    def _tap_view(self, tap: Sequence[int], size: Sequence[int]) -> Tensor:
        start = [k * d for k, d in zip(tap, self.windows.dilation, strict=True)]
        stride = self.windows.stride
        phase = self.memory[tuple(position % s for position, s in zip(start, stride, strict=True))]
        steps = phase.stride()[2:]
        offset = sum(position // s * step for position, s, step in zip(start, stride, steps, strict=True))
        shape, strides = (*phase.shape[:2], 1, *size), (*phase.stride()[:2], 0, *steps)
        return phase.as_strided(shape, strides, phase.storage_offset() + offset)


DEPTHWISE_RUNS = Kernel("depthwise", fits, depthwise.cost, correlate, full_convolution, weight_gradient, gradients)

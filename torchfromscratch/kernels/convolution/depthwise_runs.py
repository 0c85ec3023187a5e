"""Depthwise convolution where the channels lie one after the other: in runs as long as a channel.

The formulas are those of `depthwise`, but the rows of a sample are short, and views without its padding have gaps
behind each. So the input is copied with its padding, and what tap k sees is a view xₖ of the copy whose rows are as
long as those in memory. What is behind the outputs in a row is of no use:

    y = Σₖ wₖ · xₖ        dL/dwₖ = Σ dL/dy · xₖ        dL/dx as y, of dL/dy and the rotated kernel
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import batch_blocks, take_block
from torchfromscratch.kernels.convolution import depthwise
from torchfromscratch.kernels.convolution.depthwise import by_channel, factors, factors_by_tap, filters_from
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.convolution.rotation import as_correlation, rotate180
from torchfromscratch.kernels.execution import has_concrete_values, in_cpu_memory
from torchfromscratch.kernels.windows import Windows, phases


def fits(task: Task) -> bool:
    """What depthwise windows see of channels that lie apart from each other; what is recorded has no memory."""
    return depthwise.fits(task) and not task.channels_last and not task.is_tracing


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in the package."""
    if (
        in_cpu_memory(weight) and has_concrete_values(weight) and not weight.isfinite().all()
    ):  # and with zeros around the samples make NaN
        return depthwise.correlate(input, weight, bias, windows)
    size = windows.output_size(input.shape[2:])
    output = input.new_empty((input.shape[0], weight.shape[0], *size))
    numbers = factors_by_tap(weight, windows)
    constants = None if bias is None else factors(bias, windows)
    parts = batch_blocks(output, math.prod(output.shape[1:]))
    padded = PaddedViews(take_block(input, parts[0]), windows, size)
    for part in parts:
        add_up(padded.of(take_block(input, part)), numbers, constants, by_channel(take_block(output, part), windows))
    return output


def add_up(seen: list[Tensor], numbers: list[Tensor], bias: Tensor | None, y: Tensor) -> None:
    """Σₖ wₖ · xₖ + b, into y (n, G, m, *output)."""
    shape = *y.shape[:-1], seen[0].shape[-1]
    sums = torch.mul(seen[0], numbers[0], out=y if shape == y.shape else y.new_empty(shape))
    for x, w in zip(seen[1:], numbers[1:], strict=True):
        sums.addcmul_(x, w)
    if bias is not None:
        torch.add(sums[..., : y.shape[-1]], bias, out=y)
    elif shape != y.shape:
        y.copy_(sums[..., : y.shape[-1]])


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in the package; where it is seen in strides, there are no runs in it."""
    if turns_into_correlation(weight, windows):
        return correlate(*as_correlation(grad_output, weight, windows, input_size))
    return depthwise.full_convolution(grad_output, weight, windows, input_size)


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in the package."""
    if in_cpu_memory(input, grad_output) and has_concrete_values(input, grad_output):
        shares = input.new_empty((windows.tap_count, *grad_output.shape[:2]))  # of each sample
        parts = batch_blocks(grad_output, math.prod(grad_output.shape[1:]))
        padded = PaddedViews(take_block(input, parts[0]), windows, grad_output.shape[2:])
        buffer = WeightGradientBuffer(take_block(grad_output, parts[0]), padded.row, windows)
        for part in parts:
            buffer.accumulate(
                take_block(grad_output, part), padded.of(take_block(input, part)), take_block(shares, part, 1)
            )
        grad_weight = filters_from(shares, windows)
        if grad_weight.isfinite().all():
            return grad_weight
    return depthwise.weight_gradient(input, grad_output, windows)


def gradients(input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw, shapes as in the package.

    Where dL/dx is a correlation of dL/dy with the rotated kernel, the gradient of that one is the sum of x times what
    its taps see of dL/dy: both come from the same views.
    """
    operands = input, weight, grad_output
    looked_at = in_cpu_memory(*operands) and has_concrete_values(*operands)
    if not (turns_into_correlation(weight, windows) and looked_at and weight.isfinite().all()):
        grad_input = full_convolution(grad_output, weight, windows, input.shape[2:])
        return grad_input, weight_gradient(input, grad_output, windows)
    g, rotated, _, turned = as_correlation(grad_output, weight, windows, input.shape[2:])
    grad_input = input.new_empty(input.shape)
    numbers, shares = factors_by_tap(rotated, turned), input.new_empty((turned.tap_count, *input.shape[:2]))
    parts = batch_blocks(input, math.prod(input.shape[1:]))
    padded = PaddedViews(take_block(g, parts[0]), turned, input.shape[2:])
    buffer = WeightGradientBuffer(take_block(input, parts[0]), padded.row, turned)
    for part in parts:
        views = padded.of(take_block(g, part))
        add_up(views, numbers, None, by_channel(take_block(grad_input, part), turned))
        buffer.accumulate(take_block(input, part), views, take_block(shares, part, 1))
    grad_weight = rotate180(filters_from(shares, turned), windows.groups)
    if not grad_weight.isfinite().all():
        return grad_input, weight_gradient(input, grad_output, windows)
    return grad_input, grad_weight


def turns_into_correlation(weight: Tensor, windows: Windows) -> bool:
    """Whether dL/dx is a depthwise correlation itself."""
    return set(windows.stride) == {1} and weight.shape[0] == windows.groups


class WeightGradientBuffer:
    """The products of dL/dy with what each tap sees, in memory that one part of the batch after the other takes.

    Where the rows of the views go on behind the outputs, dL/dy is continued with zeros. Zero times an infinity is NaN:
    only finite sums are right.
    """

    def __init__(self, longest: Tensor, row: int, windows: Windows) -> None:
        """For parts like the longest one of dL/dy (n, G·m, *output), and views with rows of such a length."""
        factor = by_channel(longest, windows)
        self.windows = windows
        self.rows = factor.new_zeros((*factor.shape[:-1], row)) if row > factor.shape[-1] else None
        self.memory = torch.empty_like(factor if self.rows is None else self.rows)

    def accumulate(self, data: Tensor, seen: list[Tensor], shares: Tensor) -> None:
        """Σ over the outputs of data (n, G·m, *output) · xₖ, of each sample and kernel: shares (taps, n, G·m)."""
        batch, width, factor = data.shape[0], data.shape[-1], by_channel(data, self.windows)
        if self.rows is not None:
            self.rows[:batch, ..., :width] = factor
            factor = self.rows[:batch]
        over = tuple(range(3, factor.dim()))
        products = (torch.mul(factor, x, out=self.memory[:batch]) for x in seen)
        shares.copy_(torch.stack([product.sum(over) for product in products]).flatten(2))


class PaddedViews:
    """What each tap sees, as views (n, G, 1, *output) of memory that part after part of the batch is copied to.

    Samples that are seen in strides are split there into those that lie a stride apart, for runs without gaps.
    """

    def __init__(self, longest: Tensor, windows: Windows, output_size: Sequence[int]) -> None:
        """For parts like the longest one (n, G, *input)."""
        self.windows = windows
        extent = windows.padded_size(longest.shape[2:])
        size = [-(-length // s) for length, s in zip(extent, windows.stride, strict=True)]
        self.row = output_size[-1]
        if windows.dims > 1:
            if windows.stride[-1] == 1:  # what is before a row is behind the one above as well
                size[-1] = max(size[-1] - windows.padding[-1], self.row)
            self.row = size[-1]
            size[-2] += math.ceil((windows.extent[-1] - 1) / self.row)  # for what the views' last row has behind it
        shape = (math.prod(windows.stride) * longest.shape[0], longest.shape[1], *size)
        self.memory = longest.new_zeros(shape).unflatten(0, (*windows.stride, longest.shape[0]))
        self.views = [self._seen_by(tap, (*output_size[:-1], self.row)) for tap in windows.taps]

    def of(self, samples: Tensor) -> list[Tensor]:
        """Of some samples (n, G, *input)."""
        windows, batch = self.windows, samples.shape[0]
        for phase, of_phase, of_whole in phases(windows.stride, windows.padding, samples.shape[2:]):
            self.memory[phase][:batch][of_phase] = samples[of_whole]
        return [view[:batch] for view in self.views]

    def _seen_by(self, tap: Sequence[int], size: Sequence[int]) -> Tensor:
        at = [k * d for k, d in zip(tap, self.windows.dilation, strict=True)]
        stride = self.windows.stride
        apart = self.memory[tuple(position % s for position, s in zip(at, stride, strict=True))]
        steps = apart.stride()[2:]
        offset = sum(position // s * step for position, s, step in zip(at, stride, steps, strict=True))
        shape, strides = (*apart.shape[:2], 1, *size), (*apart.stride()[:2], 0, *steps)
        return apart.as_strided(shape, strides, apart.storage_offset() + offset)


DEPTHWISE_RUNS = Kernel("depthwise", fits, depthwise.cost, correlate, full_convolution, weight_gradient, gradients)

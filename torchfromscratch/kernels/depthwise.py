"""Depthwise convolution: every channel has kernels of its own, so each tap is an elementwise product.

As in `direct`, what tap k of every window sees is a view xₖ, but wₖ is a number for each channel:

    y = Σₖ wₖ · xₖ        (dL/dx)ₖ += wₖ · dL/dy        dL/dwₖ = Σ dL/dy · xₖ

A few pictures at a time, so that the sum stays in the cache while taps are added to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torchfromscratch.kernels.chunks import chunks, part_of
from torchfromscratch.kernels.layout import any_channels_last, empty
from torchfromscratch.kernels.windows import Windows, spatial


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in `convolution.correlate`."""
    size = windows.output_size(input.shape[2:])
    output = empty((input.shape[0], weight.shape[0], *size), any_channels_last(input, weight), like=input)
    for part in chunks(output, 2 * output.shape[1:].numel()):
        padded, sums = windows.pad(part_of(input, part)).unsqueeze(2), by_channel(part_of(output, part), windows)
        if bias is None:
            sums.zero_()
        else:
            sums.copy_(factors(bias, windows))
        for tap in windows.taps:
            sums.addcmul_(windows.seen_by(tap, padded, size, at=3), factors(weight[spatial(tap)], windows))
    return output


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in `convolution.full_convolution`."""
    batch, size = grad_output.shape[0], grad_output.shape[2:]
    channels_last = any_channels_last(grad_output, weight)
    output = empty((batch, windows.groups, *input_size), channels_last, like=grad_output)
    multiplier = weight.shape[0] // windows.groups
    for part in chunks(output, 2 * output.shape[1:].numel()):
        gradients = by_channel(part_of(grad_output, part), windows)
        shape = (gradients.shape[0], windows.groups, *windows.padded_size(input_size))
        padded = empty(shape, channels_last, like=grad_output).zero_()
        for tap in windows.taps:
            there, matrix = windows.seen_by(tap, padded, size), factors(weight[spatial(tap)], windows)
            for number in range(multiplier):
                there.addcmul_(gradients[:, :, number], matrix[:, number])
        part_of(output, part).copy_(windows.unpad(padded, input_size))
    return output


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in `convolution.weight_gradient`."""
    size, dims = grad_output.shape[2:], windows.dims
    total = input.new_zeros((len(windows.taps), grad_output.shape[1]))
    over = (0, *range(3, 3 + dims))
    for part in chunks(grad_output, 2 * grad_output.shape[1:].numel()):
        padded, gradients = (
            windows.pad(part_of(input, part)).unsqueeze(2),
            by_channel(part_of(grad_output, part), windows),
        )
        for number, tap in enumerate(windows.taps):
            product = gradients * windows.seen_by(tap, padded, size, at=3)
            total[number] += product.sum(over).view(-1)
    shape = (grad_output.shape[1], 1, *windows.kernel_size)
    return empty(shape, any_channels_last(input, grad_output), like=input).copy_(total.mT.view(shape))


def by_channel(data: Tensor, windows: Windows) -> Tensor:
    """(n, G·m, *size) → (n, G, m, *size), as a view: m is the number of kernels that a channel has."""
    return data.view(data.shape[0], windows.groups, data.shape[1] // windows.groups, *data.shape[2:])


def factors(values: Tensor, windows: Windows) -> Tensor:
    """A number for each kernel, (G·m) or (G·m, 1) → (G, m, 1, …), side by side as vectorised loops want them."""
    return values.contiguous().view(windows.groups, values.shape[0] // windows.groups, *[1] * windows.dims)

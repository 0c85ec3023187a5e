"""Depthwise convolution: every channel has kernels of its own, so each tap is an elementwise product.

As in `direct`, what tap k of every window sees is a view xₖ, but wₖ is a number for each channel:

    y = Σₖ wₖ · xₖ        (dL/dx)ₖ += wₖ · dL/dy        dL/dwₖ = Σ dL/dy · xₖ

A few pictures at a time, so that the sum stays in the cache while taps are added to it, and in long runs:
of whole rows where the channels lie together, of whole channels where they lie one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.chunks import chunks, part_of
from torchfromscratch.kernels.layout import any_channels_last, empty, lies_channels_last
from torchfromscratch.kernels.memory import in_cpu_memory
from torchfromscratch.kernels.rotation import as_correlation
from torchfromscratch.kernels.windows import Windows, spatial


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in `convolution.correlate`."""
    size = windows.output_size(input.shape[2:])
    output = empty((input.shape[0], weight.shape[0], *size), any_channels_last(input, weight), like=input)
    numbers = [factors(weight[spatial(tap)], windows) for tap in windows.taps]
    for part in chunks(output, 2 * output.shape[1:].numel()):
        seen, y = seen_by_taps(part_of(input, part), windows, size), by_channel(part_of(output, part), windows)
        in_place = in_cpu_memory(input, weight) and seen[0].shape[-1] == size[-1]
        sums = torch.mul(seen[0], numbers[0], out=y) if in_place else seen[0] * numbers[0]
        for x, w in zip(seen[1:], numbers[1:], strict=True):
            sums.addcmul_(x, w)
        if bias is not None:
            sums += factors(bias, windows)
        if not in_place:
            y.copy_(sums[..., : size[-1]])
    return output


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in `convolution.full_convolution`."""
    if set(windows.stride) == {1} and weight.shape[0] == windows.groups:
        return correlate(*as_correlation(grad_output, weight, windows, input_size))
    batch, size = grad_output.shape[0], grad_output.shape[2:]
    channels_last = any_channels_last(grad_output, weight)
    output = empty((batch, windows.groups, *input_size), channels_last, like=grad_output)
    multiplier = weight.shape[0] // windows.groups
    for part in chunks(output, 2 * output.shape[1:].numel()):
        gradients = by_channel(part_of(grad_output, part), windows)
        shape = (gradients.shape[0], windows.groups, *windows.padded_size(input_size))
        padded = empty(shape, channels_last, like=grad_output).zero_()
        for tap in windows.taps:
            there = windows.seen_by(tap, padded, size)
            matrix = factors(weight[spatial(tap)], windows)
            for number in range(multiplier):
                there.addcmul_(gradients[:, :, number], matrix[:, number])
        part_of(output, part).copy_(windows.unpad(padded, input_size))
    return output


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in `convolution.weight_gradient`."""
    size, over = grad_output.shape[2:], tuple(range(3, 3 + windows.dims))
    shares = input.new_empty((len(windows.taps), *grad_output.shape[:2]))  # of each picture
    for part in chunks(grad_output, 2 * grad_output.shape[1:].numel()):
        seen, gradients = seen_by_taps(part_of(input, part), windows, size), part_of(grad_output, part)
        behind = seen[0].shape[-1] - size[-1]
        gradients = by_channel(torch.constant_pad_nd(gradients, [0, behind]) if behind else gradients, windows)
        for x, share in zip(seen, part_of(shares, part, 1), strict=True):
            share.copy_((gradients * x)[..., : size[-1]].sum(over).flatten(1))
    shape = (grad_output.shape[1], 1, *windows.kernel_size)
    return empty(shape, any_channels_last(input, grad_output), like=input).copy_(shares.sum(1).mT.view(shape))


def seen_by_taps(pictures: Tensor, windows: Windows, output_size: Sequence[int]) -> list[Tensor]:
    """What each tap sees of some pictures (n, G, *input), as views (n, G, 1, *output).

    Where the channels lie one after the other, the rows of the views are as long as those of the padded
    pictures, so that those of a channel are one run: what is behind the outputs in a row is of no use. And
    pictures that are seen in strides are parted into those that lie a stride apart, for runs without gaps.
    """
    if lies_channels_last(pictures) or windows.dims == 1:
        padded = windows.pad(pictures)
        return [windows.seen_by(tap, padded, output_size).unsqueeze(2) for tap in windows.taps]
    dims, stride, extent = windows.dims, windows.stride, windows.padded_size(pictures.shape[2:])
    size = [math.ceil(length / s) for length, s in zip(extent, stride, strict=True)]
    size[-2] += 1  # for what the last row of the views has behind it
    amounts = []
    for length, p, i, s in reversed(list(zip(size, windows.padding, pictures.shape[2:], stride, strict=True))):
        amounts += [p, length * s - p - i]
    padded = torch.constant_pad_nd(pictures, amounts)
    split = padded.view(*pictures.shape[:2], *[length for pair in zip(size, stride, strict=True) for length in pair])
    apart = split.permute(*range(3, 3 + 2 * dims, 2), 0, 1, *range(2, 2 + 2 * dims, 2)).contiguous()
    seen = []
    for tap in windows.taps:
        at = [k * d for k, d in zip(tap, windows.dilation, strict=True)]
        those = apart[tuple(position % s for position, s in zip(at, stride, strict=True))]
        steps = those.stride()[2:]
        offset = sum(position // s * step for position, s, step in zip(at, stride, steps, strict=True))
        shape = (*those.shape[:2], 1, *output_size[:-1], size[-1])
        strides = (*those.stride()[:2], 0, *steps)
        seen.append(those.as_strided(shape, strides, those.storage_offset() + offset))
    return seen


def by_channel(data: Tensor, windows: Windows) -> Tensor:
    """(n, G·m, *size) → (n, G, m, *size), as a view: m is the number of kernels that a channel has."""
    return data.view(data.shape[0], windows.groups, data.shape[1] // windows.groups, *data.shape[2:])


def factors(values: Tensor, windows: Windows) -> Tensor:
    """A number for each kernel, (G·m) or (G·m, 1) → (G, m, 1, …), side by side as vectorised loops want them."""
    return values.contiguous().view(windows.groups, values.shape[0] // windows.groups, *[1] * windows.dims)

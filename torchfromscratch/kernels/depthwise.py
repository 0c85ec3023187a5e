"""Depthwise convolution: every channel has kernels of its own, so each tap is an elementwise product.

As in `direct`, what tap k of every window sees is a view xₖ, but wₖ is a number for each channel:

    y = Σₖ wₖ · xₖ        (dL/dx)ₖ += wₖ · dL/dy        dL/dwₖ = Σ dL/dy · xₖ

A few pictures at a time, so that the sum stays in the cache while taps are added to it, and in long runs:
of whole pixels where the channels lie together, of whole channels where they lie one after the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.chunks import chunks, part_of
from torchfromscratch.kernels.layout import any_channels_last, empty, in_format, lies_channels_last
from torchfromscratch.kernels.memory import computed, may_be_looked_at
from torchfromscratch.kernels.rotation import as_correlation, rotate180
from torchfromscratch.kernels.windows import Windows, spatial


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in `convolution.correlate`."""
    size = windows.output_size(input.shape[2:])
    output = empty((input.shape[0], weight.shape[0], *size), any_channels_last(input, weight), like=input)
    numbers = factors_by_tap(weight, windows)
    constants = None if bias is None else factors(bias, windows)
    parts = chunks(output, math.prod(output.shape[1:]))
    seen = Seen(part_of(input, parts[0]), windows, size)
    for part in parts:
        add_up(seen.by_taps(part_of(input, part)), numbers, constants, by_channel(part_of(output, part), windows))
    return output


def add_up(seen: list[Tensor], numbers: list[Tensor], bias: Tensor | None, y: Tensor) -> None:
    """Σₖ wₖ · xₖ + b, into y (n, G, m, *output)."""
    shape = *y.shape[:-1], seen[0].shape[-1]
    sums = computed(torch.mul, seen[0], numbers[0], y if shape == y.shape else y.new_empty(shape))
    for x, w in zip(seen[1:], numbers[1:], strict=True):
        sums.addcmul_(x, w)
    if bias is not None:
        computed(torch.add, sums[..., : y.shape[-1]], bias, y)
    elif shape != y.shape:
        y.copy_(sums[..., : y.shape[-1]])


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in `convolution.full_convolution`."""
    if turns_into_correlation(weight, windows):
        return correlate(*as_correlation(grad_output, weight, windows, input_size))
    batch, size = grad_output.shape[0], grad_output.shape[2:]
    channels_last = any_channels_last(grad_output, weight)
    output = empty((batch, windows.groups, *input_size), channels_last, like=grad_output)
    numbers, multiplier = factors_by_tap(weight, windows), weight.shape[0] // windows.groups
    for part in chunks(output, math.prod(output.shape[1:])):
        gradients = by_channel(part_of(grad_output, part), windows)
        shape = (gradients.shape[0], windows.groups, *windows.padded_size(input_size))
        padded = empty(shape, channels_last, like=grad_output).zero_()
        for tap, of_tap in zip(windows.taps, numbers, strict=True):
            there = windows.seen_by(tap, padded, size)
            for number in range(multiplier):
                there.addcmul_(gradients[:, :, number], of_tap[:, number])
        part_of(output, part).copy_(windows.unpad(padded, input_size))
    return output


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in `convolution.weight_gradient`."""
    if may_be_looked_at(input, grad_output):
        grad_weight = summed_products(input, grad_output, windows, exact=False)
        if grad_weight.isfinite().all():
            return grad_weight
    return summed_products(input, grad_output, windows, exact=True)


def gradients(input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw, shapes as in `convolution.gradients`.

    Where dL/dx is a correlation of dL/dy with the rotated kernel, the gradient of that one is the sum of x times what
    its taps see of dL/dy: both come from the same views.
    """
    if not (turns_into_correlation(weight, windows) and may_be_looked_at(input, grad_output)):
        grad_input = full_convolution(grad_output, weight, windows, input.shape[2:])
        return grad_input, weight_gradient(input, grad_output, windows)
    g, rotated, _, turned = as_correlation(grad_output, weight, windows, input.shape[2:])
    grad_input = empty(input.shape, any_channels_last(grad_output, weight), like=input)
    numbers, shares = factors_by_tap(rotated, turned), input.new_empty((len(turned.taps), *input.shape[:2]))
    parts = chunks(input, math.prod(input.shape[1:]))
    seen = Seen(part_of(g, parts[0]), turned, input.shape[2:])
    products = Products(part_of(input, parts[0]), seen.row, turned)
    for part in parts:
        views = seen.by_taps(part_of(g, part))
        add_up(views, numbers, None, by_channel(part_of(grad_input, part), turned))
        products.sum_up(part_of(input, part), views, part_of(shares, part, 1), exact=False)
    grad_weight = rotate180(filters_from(shares, turned), windows.groups)
    if not grad_weight.isfinite().all():
        return grad_input, weight_gradient(input, grad_output, windows)
    return grad_input, in_format(grad_weight, any_channels_last(input, grad_output))


def turns_into_correlation(weight: Tensor, windows: Windows) -> bool:
    """Whether dL/dx is a depthwise correlation itself."""
    return set(windows.stride) == {1} and weight.shape[0] == windows.groups


def summed_products(input: Tensor, grad_output: Tensor, windows: Windows, exact: bool) -> Tensor:
    """dL/dw; what `exact` is for says `Products`."""
    shares = input.new_empty((len(windows.taps), *grad_output.shape[:2]))  # of each picture
    parts = chunks(grad_output, math.prod(grad_output.shape[1:]))
    seen = Seen(part_of(input, parts[0]), windows, grad_output.shape[2:])
    products = Products(part_of(grad_output, parts[0]), seen.row, windows)
    for part in parts:
        views = seen.by_taps(part_of(input, part))
        products.sum_up(part_of(grad_output, part), views, part_of(shares, part, 1), exact)
    return in_format(filters_from(shares, windows), any_channels_last(input, grad_output))


def filters_from(shares: Tensor, windows: Windows) -> Tensor:
    """Each picture's share in dL/dw (taps, N, O), summed over the pictures: (O, 1, *k)."""
    return shares.sum(1).mT.view(shares.shape[2], 1, *windows.kernel_size)


class Products:
    """The products of dL/dy with what each tap sees, in memory that one part of the batch after the other takes.

    Where the rows of the views go on behind the outputs, dL/dy is continued with zeros. Zero times an infinity is NaN,
    so the sums are exact only if they leave out what is there, which takes longer, or are finite.
    """

    def __init__(self, longest: Tensor, row: int, windows: Windows) -> None:
        """For parts like the longest one of dL/dy (n, G·m, *output), and views with rows of such a length."""
        factor = by_channel(longest, windows)
        self.windows = windows
        self.rows = factor.new_zeros((*factor.shape[:-1], row)) if row > factor.shape[-1] else None
        self.memory = torch.empty_like(factor if self.rows is None else self.rows)

    def sum_up(self, data: Tensor, seen: list[Tensor], shares: Tensor, exact: bool) -> None:
        """Σ over the outputs of data (n, G·m, *output) · xₖ, of each picture and kernel: shares (taps, n, G·m)."""
        batch, width, factor = data.shape[0], data.shape[-1], by_channel(data, self.windows)
        if self.rows is not None:
            self.rows[:batch, ..., :width] = factor
            factor = self.rows[:batch]
        over, sums = tuple(range(3, factor.dim())), []
        for x in seen:
            product = computed(torch.mul, factor, x, self.memory[:batch])
            sums.append((product[..., :width] if exact else product).sum(over))
        shares.copy_(torch.stack(sums).flatten(2))


class Seen:
    """What each tap sees, as views (n, G, 1, *output) of memory that part after part of the batch is copied to.

    Pictures that are seen in strides are parted there into those that lie a stride apart, for runs without gaps. And
    where the channels lie one after the other, the rows of the views are as long as those in memory, so that those
    of a channel are one run: what is behind the outputs in a row is of no use.
    """

    def __init__(self, longest: Tensor, windows: Windows, output_size: Sequence[int]) -> None:
        """For parts like the longest one (n, G, *input)."""
        self.windows = windows
        channels_last, extent = lies_channels_last(longest), windows.padded_size(longest.shape[2:])
        size = [-(-length // s) for length, s in zip(extent, windows.stride, strict=True)]
        self.row = output_size[-1]
        if windows.dims > 1 and not channels_last:
            self.row = size[-1]
            size[-2] += 1  # for what the last row of the views has behind it
        shape = (math.prod(windows.stride) * longest.shape[0], longest.shape[1], *size)
        memory = empty(shape, channels_last, like=longest).zero_()
        self.memory = memory.unflatten(0, (*windows.stride, longest.shape[0]))
        self.views = [self._seen_by(tap, (*output_size[:-1], self.row)) for tap in windows.taps]

    def by_taps(self, pictures: Tensor) -> list[Tensor]:
        """Of some pictures (n, G, *input)."""
        windows, batch = self.windows, pictures.shape[0]
        for phase in itertools.product(*map(range, windows.stride)):
            there, here = [], []
            for r, p, s, length in zip(phase, windows.padding, windows.stride, pictures.shape[2:], strict=True):
                first = max(0, -(-(p - r) // s))  # position of the memory that holds a picture's
                start = first * s + r - p
                there.append(slice(first, first + max(0, -(-(length - start) // s))))
                here.append(slice(start, None, s))
            self.memory[phase][:batch][spatial(there)] = pictures[spatial(here)]
        return [view[:batch] for view in self.views]

    def _seen_by(self, tap: Sequence[int], size: Sequence[int]) -> Tensor:
        at = [k * d for k, d in zip(tap, self.windows.dilation, strict=True)]
        stride = self.windows.stride
        apart = self.memory[tuple(position % s for position, s in zip(at, stride, strict=True))]
        steps = apart.stride()[2:]
        offset = sum(position // s * step for position, s, step in zip(at, stride, steps, strict=True))
        shape, strides = (*apart.shape[:2], 1, *size), (*apart.stride()[:2], 0, *steps)
        return apart.as_strided(shape, strides, apart.storage_offset() + offset)


def by_channel(data: Tensor, windows: Windows) -> Tensor:
    """(n, G·m, *size) → (n, G, m, *size), as a view: m is the number of kernels that a channel has."""
    return data.unflatten(1, (windows.groups, -1))


def factors_by_tap(weight: Tensor, windows: Windows) -> list[Tensor]:
    """wₖ for each tap k."""
    return [factors(weight[spatial(tap)], windows) for tap in windows.taps]


def factors(values: Tensor, windows: Windows) -> Tensor:
    """A number for each kernel, (G·m) or (G·m, 1) → (G, m, 1, …), side by side as vectorised loops want them."""
    return values.contiguous().view(windows.groups, values.shape[0] // windows.groups, *[1] * windows.dims)

"""Depthwise convolution: every channel has kernels of its own, so each tap is an elementwise product.

What tap k sees of the input, and not of its padding, is a view xₖ of it, and yₖ is a view of the outputs that see
it so. With wₖ, a number for each channel, the convolution and its two gradients are

    yₖ += wₖ · xₖ        (dL/dx)ₖ += wₖ · (dL/dy)ₖ        dL/dwₖ = Σ (dL/dy)ₖ · xₖ

A few pictures at a time, so that sums stay in the cache while taps are added to them. That is fast where the
channels lie together: rows of the views have gaps between them, which `depthwise_runs` closes for the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.chunks import all_parts, chunks
from torchfromscratch.kernels.layout import any_channels_last, dense_strides, empty, in_format, laid_out
from torchfromscratch.kernels.memory import computed, in_cpu_memory
from torchfromscratch.kernels.windows import Windows

Pairs = list[tuple[Tensor, Tensor]]


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in `convolution.correlate`."""
    size, channels_last = windows.output_size(input.shape[2:]), any_channels_last(input, weight)
    output = empty((input.shape[0], weight.shape[0], *size), channels_last, like=input)
    pairs = [(y, x) for x, y in pairs_by_tap(laid_out(input, channels_last), output, windows)]
    constants = weight.new_zeros(()) if bias is None else factors(bias, windows)
    add_up(by_channel(output, windows), pairs, factors_by_tap(weight, windows), constants)
    return output


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in `convolution.full_convolution`."""
    channels_last = any_channels_last(grad_output, weight)
    grad_input = empty((grad_output.shape[0], windows.groups, *input_size), channels_last, like=grad_output)
    pairs: Pairs = []
    numbers: list[Tensor] = []
    by_tap = pairs_by_tap(grad_input, laid_out(grad_output, channels_last), windows)
    for (x, g), w in zip(by_tap, factors_by_tap(weight, windows), strict=True):
        pairs += [(x, of_kernel) for of_kernel in g.split(1, 2)]  # of the m kernels that a channel has
        numbers += w.split(1, 1)
    add_up(by_channel(grad_input, windows), pairs, numbers, weight.new_zeros(()))
    return grad_input


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in `convolution.weight_gradient`."""
    channels_last = any_channels_last(input, grad_output)
    input, grad_output = laid_out(input, channels_last), laid_out(grad_output, channels_last)
    pairs = pairs_by_tap(input, grad_output, windows)
    parts = chunks(grad_output, math.prod(grad_output.shape[1:]))
    products = memory_of_products(pairs, parts[0].stop, channels_last)
    dims, shares = tuple(range(3, pairs[0][0].dim())), []
    for of_part in by_part(pairs, parts):
        sums = [
            (x * g if memory is None else torch.mul(x, g, out=memory[: g.shape[0]])).sum(dims)
            for (x, g), memory in zip(of_part, products, strict=True)
        ]
        shares.append(torch.stack(sums).flatten(2))
    return in_format(filters_from(torch.cat(shares, 1), windows), channels_last)


def memory_of_products(pairs: Pairs, batch: int, channels_last: bool) -> list[Tensor | None]:
    """Where to put xₖ · (dL/dy)ₖ of so many pictures, for each tap k: without gaps, and in the same memory."""
    if not in_cpu_memory(*pairs[0]):
        return [None] * len(pairs)
    memory = pairs[0][1].new_empty(batch * max(g[0].numel() for _, g in pairs))
    found: list[Tensor | None] = []
    for _, g in pairs:
        shape = batch, g.shape[1] * g.shape[2], *g.shape[3:]
        found.append(memory.as_strided(shape, dense_strides(shape, channels_last)).unflatten(1, g.shape[1:3]))
    return found


def add_up(total: Tensor, pairs: Pairs, numbers: list[Tensor], bias: Tensor) -> None:
    """total = bias, and then the first of each pair, a view of the total, += number · the second."""
    covering = [there.shape == total.shape for there, _ in pairs]
    first = covering.index(True) if True in covering else None
    parts = chunks(total, math.prod(total.shape[1:]))
    for sums, of_part in zip(all_parts(total, parts), by_part(pairs, parts), strict=True):
        if first is None:
            sums.copy_(bias)
        else:
            computed(torch.addcmul, bias, of_part[first][1], numbers[first], memory=sums)
        for which, ((there, data), number) in enumerate(zip(of_part, numbers, strict=True)):
            if which != first:
                there.addcmul_(data, number)


def pairs_by_tap(input: Tensor, output: Tensor, windows: Windows) -> Pairs:
    """xₖ (n, G, 1, *size) and yₖ (n, G, m, *size) for each tap k, of inputs and outputs or of gradients of these."""
    x, y = by_channel(input, windows), by_channel(output, windows)
    indices = [windows.inside(tap, input.shape[2:], output.shape[2:]) for tap in windows.taps]
    return [(x[here], y[there]) for here, there in indices]


def by_part(pairs: Pairs, parts: list[slice]) -> Iterator[Pairs]:
    """The pairs' parts of the batch, part by part."""
    return map(list, zip(*[zip(all_parts(a, parts), all_parts(b, parts), strict=True) for a, b in pairs], strict=True))


def filters_from(shares: Tensor, windows: Windows) -> Tensor:
    """Each picture's share in dL/dw (taps, N, O), summed over the pictures: (O, 1, *k)."""
    return shares.sum(1).mT.contiguous().view(shares.shape[2], 1, *windows.kernel_size)


def by_channel(data: Tensor, windows: Windows) -> Tensor:
    """(n, G·m, *size) → (n, G, m, *size), as a view: m is the number of kernels that a channel has."""
    return data.unflatten(1, (windows.groups, -1))


def factors_by_tap(weight: Tensor, windows: Windows) -> list[Tensor]:
    """wₖ for each tap k."""
    return [factors(of_tap, windows) for of_tap in weight.flatten(1).t().contiguous().unbind()]


def factors(values: Tensor, windows: Windows) -> Tensor:
    """A number for each kernel, (G·m) → (G, m, 1, …)."""
    return values.view(windows.groups, -1, *[1] * windows.dims)

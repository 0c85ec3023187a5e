"""Depthwise convolution: every channel has kernels of its own, so each tap is an elementwise product.

Tap k sees a view xₖ of the input, without the padding, and yₖ is the view of the outputs that it sees xₖ for. With wₖ,
a number for each channel, the convolution and its two gradients are

    yₖ += wₖ · xₖ        (dL/dx)ₖ += wₖ · (dL/dy)ₖ        dL/dwₖ = Σ (dL/dy)ₖ · xₖ

A few samples are computed at a time, so that their sums stay in the cache while taps are added to them. That is fast
where the channels lie together. Elsewhere the rows of the views have gaps between them, which `depthwise_runs` closes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import batch_blocks, take_block
from torchfromscratch.kernels.buffers import call_out
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.execution import in_cpu_memory, is_tracing
from torchfromscratch.kernels.layout import (
    any_channels_last,
    copy_to_memory_format,
    dense_strides,
    empty,
    to_memory_format,
)
from torchfromscratch.kernels.windows import Windows

# A multiplication of elements takes about as long as so many of a product of matrices.
ELEMENTWISE_COST = 5

Pairs = list[tuple[Tensor, Tensor]]
Term = tuple[tuple, Tensor, Tensor]  # an index of where to add, what to add, and how often


def fits(task: Task) -> bool:
    """No view shows a window over nothing but padding."""
    return task.is_depthwise and task.windows.all_see_input


def cost(task: Task) -> float:
    return ELEMENTWISE_COST * task.multiplications


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in the package."""
    size, channels_last = windows.output_size(input.shape[2:]), any_channels_last(input, weight)
    input, factors = to_memory_format(input, channels_last), tap_factors(weight, windows)
    if is_tracing():  # for any size: a compiler makes one loop of it
        views = windows.slide(split_channels(windows.pad(input), windows), at=3)
        indices: list[Any] = [(..., *tap) for tap in windows.taps]
        products = [w * views[index] for index, w in zip(indices, factors, strict=True)]
        y = functools.reduce(torch.add, products if bias is None else [as_factors(bias, windows), *products])
        return to_memory_format(y.flatten(1, 2), channels_last)
    output = empty((input.shape[0], weight.shape[0], *size), channels_last, like=input)
    x, terms = split_channels(input, windows), []
    for tap, w in zip(windows.taps, factors, strict=True):
        input_slices, output_slices = windows.valid_slices(tap, input.shape[2:], size)
        terms.append((output_slices, x[input_slices], w))
    accumulate(
        split_channels(output, windows), terms, weight.new_zeros(()) if bias is None else as_factors(bias, windows)
    )
    return output


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in the package."""
    size, channels_last = grad_output.shape[2:], any_channels_last(grad_output, weight)
    grad_input = empty((grad_output.shape[0], windows.groups, *input_size), channels_last, like=grad_output)
    g, terms = split_channels(to_memory_format(grad_output, channels_last), windows), []
    for tap, w in zip(windows.taps, tap_factors(weight, windows), strict=True):
        input_slices, output_slices = windows.valid_slices(tap, input_size, size)
        terms += [(input_slices, *term) for term in zip(g[output_slices].split(1, 2), w.split(1, 1), strict=True)]
    accumulate(split_channels(grad_input, windows), terms, weight.new_zeros(()))
    return grad_input


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in the package."""
    channels_last = any_channels_last(input, grad_output)
    input, grad_output = to_memory_format(input, channels_last), to_memory_format(grad_output, channels_last)
    inputs, outputs = split_channels(input, windows), split_channels(grad_output, windows)
    indices = [windows.valid_slices(tap, input.shape[2:], grad_output.shape[2:]) for tap in windows.taps]
    pairs = [(inputs[input_slices], outputs[output_slices]) for input_slices, output_slices in indices]
    blocks = batch_blocks(grad_output, math.prod(grad_output.shape[1:]))
    products = product_buffers(pairs, blocks[0].stop, channels_last)
    dims, shares = tuple(range(3, pairs[0][0].dim())), []
    for block in blocks:
        sums = []
        for pair, memory in zip(pairs, products, strict=True):
            x, g = [take_block(view, block) for view in pair]
            product = x * g if memory is None else torch.mul(x, g, out=memory[: g.shape[0]])
            sums.append(product.sum(dims))
        shares.append(torch.stack(sums).flatten(2))
    return copy_to_memory_format(sum_over_samples(torch.cat(shares, 1), windows), channels_last)


def product_buffers(pairs: Pairs, batch: int, channels_last: bool) -> list[Tensor | None]:
    """A buffer for xₖ · (dL/dy)ₖ of so many samples, for each tap k: without gaps, all in the same memory."""
    if not in_cpu_memory(*pairs[0]):
        return [None] * len(pairs)
    memory = pairs[0][1].new_empty(batch * max(g[0].numel() for _, g in pairs))
    buffers: list[Tensor | None] = []
    for _, g in pairs:
        shape = batch, g.shape[1] * g.shape[2], *g.shape[3:]
        buffers.append(memory.as_strided(shape, dense_strides(shape, channels_last)).unflatten(1, g.shape[1:3]))
    return buffers


def accumulate(total: Tensor, terms: list[Term], bias: Tensor) -> None:
    """total (n, G, m, *size) = bias + Σ terms. A term that covers all of it comes first, if there is one."""
    covering = [n for n, (target, _, _) in enumerate(terms) if total[target].shape == total.shape]
    first = terms.pop(covering[0]) if covering else None
    for block in batch_blocks(total, math.prod(total.shape[1:])):
        sums = take_block(total, block)
        if first is None:
            sums.copy_(bias)
        else:
            _, data, factor = first
            sums.copy_(call_out(torch.addcmul, bias, take_block(data, block), factor, out=sums))
        for target, data, factor in terms:
            sums[target].addcmul_(take_block(data, block), factor)


def sum_over_samples(shares: Tensor, windows: Windows) -> Tensor:
    """dL/dw (O, 1, *k), the sum of the samples' shares (taps, N, O)."""
    return shares.sum(1).mT.contiguous().view(shares.shape[2], 1, *windows.kernel_size)


def split_channels(data: Tensor, windows: Windows) -> Tensor:
    """(n, G·m, *size) → (n, G, m, *size), as a view: m is the number of kernels that a channel has."""
    return data.unflatten(1, (windows.groups, -1))


def tap_factors(weight: Tensor, windows: Windows) -> list[Tensor]:
    """wₖ for each tap k."""
    return [as_factors(values, windows) for values in weight.flatten(1).t().contiguous().unbind()]


def as_factors(values: Tensor, windows: Windows) -> Tensor:
    """A number for each kernel, (G·m) → (G, m, 1, …)."""
    return values.view(windows.groups, -1, *[1] * windows.dims)


DEPTHWISE = Kernel("depthwise", fits, cost, correlate, full_convolution, weight_gradient)

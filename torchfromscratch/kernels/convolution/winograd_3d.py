"""Convolution of volumes by Winograd's method, plane by plane.

A window that is k planes deep sees k planes of the input. They are one sample of k·C channels to a kernel of two
dimensions:

    y[d] = Σₖ w[:, :, k] ∗ x[d·s + k·δ − p] = w' ∗ x'[d]        x'[d]: (k·C, height, width), w': (O, k·C, 3, 3)

The gradient of a plane is the sum of what dL/dx' holds of it for each window that sees it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import block_size
from torchfromscratch.kernels.convolution import winograd
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.layout import any_channels_last, copy_to_memory_format, empty
from torchfromscratch.kernels.windows import Windows

# Each plane is copied for each tap in depth. At most so many bytes of copies are made at a time.
BLOCK_BYTES = 32 * 2**20

Block = tuple[slice, slice]  # some volumes of a batch, and some planes of their outputs


def fits(task: Task) -> bool:
    return task.windows.dims == 3 and winograd.is_made_for(in_plane(task.windows))


def cost(task: Task) -> float:
    """The cost of the planes. Copying them pays if they save half of the multiplications."""
    windows = task.windows
    if set(windows.stride) != {1} or not winograd.pays(task):
        return math.inf
    planes = task.batch * windows.output_size(task.input_size)[0]
    cost = windows.kernel_size[0] * winograd.multiplications(
        planes, task.channels, task.input_size[1:], in_plane(windows)
    )
    return cost + max(cost, winograd.PREPARATION)


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in the package."""
    size, channels_last = windows.output_size(input.shape[2:]), any_channels_last(input, weight)
    output = empty((input.shape[0], weight.shape[0], *size), channels_last, like=input)
    for block in blocks(input, size[0], windows):
        y = winograd.correlate(input_planes(input, block, windows), fold_depth(weight), bias, in_plane(windows))
        planes = planes_first(output)[block]
        planes.copy_(y.view(*planes.shape))
    return output


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in the package."""
    shape = (grad_output.shape[0], weight.shape[1], *input_size)
    grad_input = empty(shape, any_channels_last(grad_output, weight), like=grad_output).zero_()
    for block in blocks(grad_input, grad_output.shape[2], windows):
        g, flat = output_planes(grad_output, block), in_plane(windows)
        dx = winograd.full_convolution(g, fold_depth(weight), flat, input_size[1:])
        add_to_grad_input(dx, grad_input, block, windows)
    return grad_input


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in the package."""
    shares = [
        winograd.weight_gradient(
            input_planes(input, block, windows), output_planes(grad_output, block), in_plane(windows)
        )
        for block in blocks(input, grad_output.shape[2], windows)
    ]
    return unfold_depth(functools.reduce(torch.add, shares), windows, any_channels_last(input, grad_output))


def gradients(input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw, shapes as in the package."""
    grad_input = empty(input.shape, any_channels_last(grad_output, weight), like=input).zero_()
    shares = []
    for block in blocks(input, grad_output.shape[2], windows):
        x, g = input_planes(input, block, windows), output_planes(grad_output, block)
        dx, share = winograd.gradients(x, fold_depth(weight), g, in_plane(windows))
        add_to_grad_input(dx, grad_input, block, windows)
        shares.append(share)
    return grad_input, unfold_depth(functools.reduce(torch.add, shares), windows, any_channels_last(input, grad_output))


def in_plane(windows: Windows) -> Windows:
    """The windows within a plane."""
    return windows.along(slice(1, None))


def blocks(input: Tensor, depth: int, windows: Windows) -> list[Block]:
    """Blocks of several volumes, or of some planes of the output of one."""
    batch, channels, _, *size = input.shape
    plane_bytes = windows.kernel_size[0] * channels * math.prod(size) * input.element_size()
    most = BLOCK_BYTES // max(1, plane_bytes)
    volumes, planes = block_size(batch, max(1, most // depth)), block_size(depth, max(1, most))
    return [
        (slice(n, min(n + volumes, batch)), slice(d, min(d + planes, depth)))
        for n in range(0, batch, volumes)
        for d in range(0, depth, planes)
    ]


def planes_first(volumes: Tensor) -> Tensor:
    """(N, C, D, H, W) → (N, D, C, H, W), as a view."""
    return volumes.transpose(1, 2)


def output_planes(output: Tensor, block: Block) -> Tensor:
    """dL/dy' of a block: (N, O, D, H, W) → (n·planes, O, H, W)."""
    return planes_first(output)[block].flatten(0, 1)


def input_planes(input: Tensor, block: Block, windows: Windows) -> Tensor:
    """x' of a block of the outputs: (N, C, D, H, W) → (n·planes, k·C, H, W)."""
    volumes, outputs = block
    channels, planes, *size = input.shape[1:]
    shape = (volumes.stop - volumes.start, outputs.stop - outputs.start, windows.kernel_size[0], channels, *size)
    x = empty((shape[0] * shape[1], shape[2] * channels, *size), any_channels_last(input), like=input)
    by_tap = x.view(shape)
    for tap, input_slices, output_slices in depth_taps(windows, planes, outputs):
        by_tap[:, : output_slices.start, tap] = 0
        by_tap[:, output_slices, tap] = planes_first(input)[volumes, input_slices]
        by_tap[:, output_slices.stop :, tap] = 0
    return x


def add_to_grad_input(grad: Tensor, grad_input: Tensor, block: Block, windows: Windows) -> None:
    """Adds dL/dx' (n·planes, k·C, H, W) to dL/dx (N, C, D, H, W)."""
    volumes, outputs = block
    channels, planes, *size = grad_input.shape[1:]
    by_tap = grad.view(volumes.stop - volumes.start, -1, windows.kernel_size[0], channels, *size)
    for tap, input_slices, output_slices in depth_taps(windows, planes, outputs):
        planes_first(grad_input)[volumes, input_slices] += by_tap[:, output_slices, tap]


def depth_taps(windows: Windows, planes: int, outputs: slice) -> Iterator[tuple[int, slice, slice]]:
    """For each tap in depth, the planes that it sees for some outputs, and which of those outputs see them."""
    padding = windows.padding[0] - outputs.start * windows.stride[0]  # before the first of these outputs
    in_depth = replace(windows.along(slice(1)), padding=(padding,))
    for tap in in_depth.taps:
        (_, input_slices), (_, output_slices) = in_depth.valid_slices(tap, (planes,), (outputs.stop - outputs.start,))
        yield tap[0], input_slices, output_slices


def fold_depth(weight: Tensor) -> Tensor:
    """w': (O, C, k, 3, 3) → (O, k·C, 3, 3)."""
    return weight.transpose(1, 2).flatten(1, 2)


def unfold_depth(weight: Tensor, windows: Windows, channels_last: bool) -> Tensor:
    """The inverse of `fold_depth`, in a memory format."""
    return copy_to_memory_format(weight.unflatten(1, (windows.kernel_size[0], -1)).transpose(1, 2), channels_last)


WINOGRAD_3D = Kernel("winograd", fits, cost, correlate, full_convolution, weight_gradient, gradients)

"""Convolution with a kernel of one tap: one product of matrices, without copies.

The tap sees a strided view x₀ of the padded input. With the kernel's matrix w₀,

    y = w₀ · x₀        dL/dx₀ = w₀ᵀ · dL/dy        dL/dw₀ = dL/dy · x₀ᵀ
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import batch_blocks
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.layout import any_channels_last, empty, is_channels_last
from torchfromscratch.kernels.precision import NARROW_TYPES
from torchfromscratch.kernels.windows import Windows


def fits(task: Task) -> bool:
    return task.windows.tap_count == 1 and task.on_cpu and task.dtype not in NARROW_TYPES


def cost(task: Task) -> float:
    return task.cost_of_matrices


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in the package."""
    size = windows.output_size(input.shape[2:])
    output = empty((input.shape[0], weight.shape[0], *size), any_channels_last(input, weight), like=input)
    multiply(matrix_of(weight, windows), input_view(input, windows, size), out=output)
    if bias is not None:
        output += bias.view(-1, *[1] * windows.dims)
    return output


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in the package."""
    batch, channels = grad_output.shape[0], weight.shape[1] * windows.groups
    channels_last, size = any_channels_last(grad_output, weight), grad_output.shape[2:]
    share = empty((batch, channels, *size), channels_last, like=grad_output)
    multiply(matrix_of(weight, windows).mT, grad_output, out=share)
    if size == tuple(input_size) and not any(windows.padding):
        return share
    padded = empty((batch, channels, *windows.padded_size(input_size)), channels_last, like=grad_output).zero_()
    windows.tap_view((0,) * windows.dims, padded, size).copy_(share)
    return windows.unpad(padded, input_size)


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in the package."""
    shape = (grad_output.shape[1], input.shape[1] // windows.groups, *windows.kernel_size)
    grad_weight = empty(shape, any_channels_last(input, grad_output), like=input)
    x = input_view(input, windows, grad_output.shape[2:])
    matrix_of(grad_weight, windows).copy_(sum_of_products(grad_output, x, windows.groups))
    return grad_weight


def input_view(input: Tensor, windows: Windows, output_size: Sequence[int]) -> Tensor:
    """x₀ (N, C, *output), as a view of the padded input."""
    return windows.tap_view((0,) * windows.dims, windows.pad(input), output_size)


def matrix_of(weight: Tensor, windows: Windows) -> Tensor:
    """w₀ of the kernel (O, C/G, *1): (G, O/G, C/G)."""
    return weight.flatten(1).unflatten(0, (windows.groups, -1))


def multiply(matrix: Tensor, data: Tensor, out: Tensor) -> Tensor:
    """Each group's matrix (G, A, B) times what each position of the data (n, G·B, *size) has: (n, G·A, *size)."""
    groups = matrix.shape[0]
    if is_channels_last(out):
        torch.bmm(as_rows(data, groups), matrix.mT, out=as_rows(out, groups))
    else:
        torch.matmul(matrix, as_columns(data, groups), out=as_columns(out, groups))
    return out


def sum_of_products(left: Tensor, right: Tensor, groups: int) -> Tensor:
    """Σ over samples and positions of left (n, G·A, *size) times right (n, G·B, *size), by group: (G, A, B)."""
    if is_channels_last(left):
        return torch.bmm(as_rows(left, groups).mT, as_rows(right, groups))
    elements = left.shape[1] * right.shape[1] // groups
    left, right = as_columns(left, groups), as_columns(right, groups)
    blocks = [torch.matmul(left[block], right[block].mT).sum(0) for block in batch_blocks(left, elements)]
    return functools.reduce(torch.add, blocks)


def as_rows(data: Tensor, groups: int) -> Tensor:
    """(n, G·C, *size) → (G, n·size, C), a view where the data lie channels last."""
    last = data.movedim(1, -1)
    return last.reshape(-1, groups, last.shape[-1] // groups).transpose(0, 1)


def as_columns(data: Tensor, groups: int) -> Tensor:
    """(n, G·C, *size) → (n, G, C, size), a view where the data are contiguous."""
    return data.reshape(data.shape[0], groups, data.shape[1] // groups, data.shape[2:].numel())


POINTWISE = Kernel("pointwise", fits, cost, correlate, full_convolution, weight_gradient, rounds_once=True)

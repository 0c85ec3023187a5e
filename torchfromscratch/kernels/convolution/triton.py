"""Convolution on a GPU: the kernels of `kernels/triton`, by products of matrices or, of single channels, without."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from torch import Tensor

from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.windows import Windows


def fits(task: Task) -> bool:
    return task.by_triton


def cost(task: Task) -> float:
    """Nothing to choose: it is there for what no other algorithm is made for."""
    return 0


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in the package."""
    if is_depthwise(weight.shape[1], windows):
        return depthwise().depthwise(input, weight, bias, windows)
    return convolution().correlate(input, weight, bias, windows)


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in the package."""
    if is_depthwise(weight.shape[1], windows):
        return depthwise().depthwise_full_convolution(grad_output, weight, windows, input_size)
    return convolution().full_convolution(grad_output, weight, windows, input_size)


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in the package."""
    if is_depthwise(input.shape[1] // windows.groups, windows):
        return depthwise().depthwise_weight_gradient(input, grad_output, windows)
    return convolution().weight_gradient(input, grad_output, windows)


def is_depthwise(channels_of_group: int, windows: Windows) -> bool:
    """Whether each channel has kernels of its own."""
    return channels_of_group == 1 and windows.groups > 1


def convolution() -> ModuleType:
    """The kernels by products of matrices, which import triton."""
    from torchfromscratch.kernels.triton import convolution

    return convolution


def depthwise() -> ModuleType:
    """The kernels of single channels."""
    from torchfromscratch.kernels.triton import depthwise

    return depthwise


TRITON = Kernel("triton", fits, cost, correlate, full_convolution, weight_gradient, rounds_once=True)

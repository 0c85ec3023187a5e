"""Convolution as the layers call it: to a compiler, one operation that is computed at run time as in eager code.

Traced whole, the formulas of `winograd` take a compiler minutes and come out slower: it fuses a transform, but
keeps nothing in the cache between the transforms and the products. So on a CPU torch.compile is handed these
operations, and fuses what lies between them. A graph to be exported holds plain operations, as it is to run
where this package is not; so does one for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.kernels import convolution as kernel
from torchfromscratch.kernels.layout import any_channels_last, empty
from torchfromscratch.kernels.windows import Windows


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in `convolution.correlate`."""
    if _is_compiled(input):
        return torch.ops.torchfromscratch.correlate(input, weight, bias, *_written_out(windows))
    return kernel.correlate(input, weight, bias, windows)


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in `convolution.full_convolution`."""
    if _is_compiled(grad_output):
        return torch.ops.torchfromscratch.full_convolution(grad_output, weight, input_size, *_written_out(windows))
    return kernel.full_convolution(grad_output, weight, windows, input_size)


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in `convolution.weight_gradient`."""
    if _is_compiled(input):
        return torch.ops.torchfromscratch.weight_gradient(input, grad_output, *_written_out(windows))
    return kernel.weight_gradient(input, grad_output, windows)


def _is_compiled(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def _written_out(windows: Windows) -> tuple:
    """Windows in the types that an operation may take; `ceil_mode` is pooling's."""
    w = windows
    return w.kernel_size, w.stride, w.padding, w.dilation, w.groups, w.algorithm


def _windows(
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    algorithm: str | None,
) -> Windows:
    return Windows(tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation), groups, algorithm=algorithm)


# What the operations answer with, for compilers, and how it is computed.


def _correlate_like(input: Tensor, weight: Tensor, bias: Tensor | None, *written: Any) -> Tensor:
    size = _windows(*written).output_size(input.shape[2:])
    return empty((input.shape[0], weight.shape[0], *size), any_channels_last(input, weight), like=input)


def _correlate(input: Tensor, weight: Tensor, bias: Tensor | None, *written: Any) -> Tensor:
    return kernel.correlate(input, weight, bias, _windows(*written))


def _full_convolution_like(grad_output: Tensor, weight: Tensor, input_size: Sequence[int], *written: Any) -> Tensor:
    shape = (grad_output.shape[0], weight.shape[1] * _windows(*written).groups, *input_size)
    return empty(shape, any_channels_last(grad_output, weight), like=grad_output)


def _full_convolution(grad_output: Tensor, weight: Tensor, input_size: Sequence[int], *written: Any) -> Tensor:
    return kernel.full_convolution(grad_output, weight, _windows(*written), input_size)


def _weight_gradient_like(input: Tensor, grad_output: Tensor, *written: Any) -> Tensor:
    windows = _windows(*written)
    shape = (grad_output.shape[1], input.shape[1] // windows.groups, *windows.kernel_size)
    return empty(shape, any_channels_last(input, grad_output), like=input)


def _weight_gradient(input: Tensor, grad_output: Tensor, *written: Any) -> Tensor:
    return kernel.weight_gradient(input, grad_output, _windows(*written))


GEOMETRY = "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, SymInt[] dilation, int groups, str? algorithm"

for name, operands, compute, like in (
    ("correlate", "Tensor input, Tensor weight, Tensor? bias", _correlate, _correlate_like),
    (
        "full_convolution",
        "Tensor grad_output, Tensor weight, SymInt[] input_size",
        _full_convolution,
        _full_convolution_like,
    ),
    ("weight_gradient", "Tensor input, Tensor grad_output", _weight_gradient, _weight_gradient_like),
):
    torch.library.define(f"torchfromscratch::{name}", f"({operands}, {GEOMETRY}) -> Tensor")
    torch.library.impl(f"torchfromscratch::{name}", "CPU", compute)
    torch.library.register_fake(f"torchfromscratch::{name}", like)

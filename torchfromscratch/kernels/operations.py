"""Convolution and max pooling as the layers call them: to a compiler, operations that are computed as in eager code.

Traced whole, the formulas of `winograd` take a compiler minutes and come out slower: it fuses a transform, but
keeps nothing in the cache between the transforms and the products. Those of `pooling` become loops over single
elements, which take six times as long. So on a CPU torch.compile is handed these operations, and fuses what lies
between them. A graph to be exported holds plain operations, as it is to run where this package is not; so does
one for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.kernels import convolution, pooling
from torchfromscratch.kernels.execution import in_compiled_cpu_code
from torchfromscratch.kernels.layout import any_channels_last, empty
from torchfromscratch.kernels.windows import Windows


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in `convolution.correlate`."""
    if in_compiled_cpu_code(input):
        return torch.ops.torchfromscratch.correlate(input, weight, bias, *_written_out(windows))
    return convolution.correlate(input, weight, bias, windows)


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in `convolution.full_convolution`."""
    if in_compiled_cpu_code(grad_output):
        return torch.ops.torchfromscratch.full_convolution(grad_output, weight, input_size, *_written_out(windows))
    return convolution.full_convolution(grad_output, weight, windows, input_size)


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in `convolution.weight_gradient`."""
    if in_compiled_cpu_code(input):
        return torch.ops.torchfromscratch.weight_gradient(input, grad_output, *_written_out(windows))
    return convolution.weight_gradient(input, grad_output, windows)


def gradients(input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw, shapes as in `convolution.gradients`."""
    if in_compiled_cpu_code(input):
        return torch.ops.torchfromscratch.gradients(input, weight, grad_output, *_written_out(windows))
    return convolution.gradients(input, weight, grad_output, windows)


def max_windows(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """y and its winners, shapes as in `pooling`."""
    if in_compiled_cpu_code(input):
        return torch.ops.torchfromscratch.max_windows(input, *_written_out(windows))
    return pooling.max_windows(input, windows)


def send_back(grad_output: Tensor, winners: Tensor, windows: Windows | None, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in `pooling`."""
    if windows is not None and in_compiled_cpu_code(grad_output):
        return torch.ops.torchfromscratch.send_back(grad_output, winners, input_size, *_written_out(windows))
    return pooling.send_back(grad_output, winners, windows, input_size)


def _written_out(windows: Windows) -> tuple:
    """Windows in the types that an operation may take."""
    w = windows
    return w.kernel_size, w.stride, w.padding, w.dilation, w.groups, w.ceil_mode, w.algorithm


def _windows(
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *others: Any,
) -> Windows:
    return Windows(tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation), *others)


# What the operations answer with, for compilers, and how it is computed.


def _correlate_like(input: Tensor, weight: Tensor, bias: Tensor | None, *written: Any) -> Tensor:
    size = _windows(*written).output_size(input.shape[2:])
    return empty((input.shape[0], weight.shape[0], *size), any_channels_last(input, weight), like=input)


def _correlate(input: Tensor, weight: Tensor, bias: Tensor | None, *written: Any) -> Tensor:
    return convolution.correlate(input, weight, bias, _windows(*written))


def _full_convolution_like(grad_output: Tensor, weight: Tensor, input_size: Sequence[int], *written: Any) -> Tensor:
    shape = (grad_output.shape[0], weight.shape[1] * _windows(*written).groups, *input_size)
    return empty(shape, any_channels_last(grad_output, weight), like=grad_output)


def _full_convolution(grad_output: Tensor, weight: Tensor, input_size: Sequence[int], *written: Any) -> Tensor:
    return convolution.full_convolution(grad_output, weight, _windows(*written), input_size)


def _weight_gradient_like(input: Tensor, grad_output: Tensor, *written: Any) -> Tensor:
    windows = _windows(*written)
    shape = (grad_output.shape[1], input.shape[1] // windows.groups, *windows.kernel_size)
    return empty(shape, any_channels_last(input, grad_output), like=input)


def _weight_gradient(input: Tensor, grad_output: Tensor, *written: Any) -> Tensor:
    return convolution.weight_gradient(input, grad_output, _windows(*written))


def _gradients_like(input: Tensor, weight: Tensor, grad_output: Tensor, *written: Any) -> tuple[Tensor, Tensor]:
    grad_input = _full_convolution_like(grad_output, weight, input.shape[2:], *written)
    return grad_input, _weight_gradient_like(input, grad_output, *written)


def _gradients(input: Tensor, weight: Tensor, grad_output: Tensor, *written: Any) -> tuple[Tensor, Tensor]:
    return convolution.gradients(input, weight, grad_output, _windows(*written))


def _max_windows_like(input: Tensor, *written: Any) -> tuple[Tensor, Tensor]:
    return pooling.empty_maxima(input, _windows(*written))


def _max_windows(input: Tensor, *written: Any) -> tuple[Tensor, Tensor]:
    return pooling.max_windows(input, _windows(*written))


def _send_back_like(grad_output: Tensor, winners: Tensor, input_size: Sequence[int], *written: Any) -> Tensor:
    return empty((*grad_output.shape[:2], *input_size), any_channels_last(grad_output), like=grad_output)


def _send_back(grad_output: Tensor, winners: Tensor, input_size: Sequence[int], *written: Any) -> Tensor:
    return pooling.send_back(grad_output, winners, _windows(*written), input_size)


GEOMETRY = (
    "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, SymInt[] dilation, "
    "int groups, bool ceil_mode, str? algorithm"
)

for name, operands, result, compute, like in (
    ("correlate", "Tensor input, Tensor weight, Tensor? bias", "Tensor", _correlate, _correlate_like),
    (
        "full_convolution",
        "Tensor grad_output, Tensor weight, SymInt[] input_size",
        "Tensor",
        _full_convolution,
        _full_convolution_like,
    ),
    ("weight_gradient", "Tensor input, Tensor grad_output", "Tensor", _weight_gradient, _weight_gradient_like),
    ("gradients", "Tensor input, Tensor weight, Tensor grad_output", "(Tensor, Tensor)", _gradients, _gradients_like),
    ("max_windows", "Tensor input", "(Tensor, Tensor)", _max_windows, _max_windows_like),
    (
        "send_back",
        "Tensor grad_output, Tensor winners, SymInt[] input_size",
        "Tensor",
        _send_back,
        _send_back_like,
    ),
):
    torch.library.define(f"torchfromscratch::{name}", f"({operands}, {GEOMETRY}) -> {result}")
    torch.library.impl(f"torchfromscratch::{name}", "CPU", compute)
    torch.library.register_fake(f"torchfromscratch::{name}", like)

"""Convolution and transposed convolution in one, two and three dimensions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from torchfromscratch.autograd.convolution import correlation, full_convolution
from torchfromscratch.functional.arguments import MANY, Size, as_batch, is_int, per_dimension, require_memory
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.choice import chosen_algorithm
from torchfromscratch.kernels.planning import cache_plans
from torchfromscratch.kernels.windows import Windows

__all__ = ["conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

Padding = Size | Literal["same", "valid"]


@autocast(cpu="lower", cuda="lower")
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation in one dimension: see `conv2d`.

    Shapes: input (N, C, L) or (C, L), weight (O, C/groups, k), bias (O) → (N, O, L') or (O, L').
    """
    return _convolution(1, input, weight, bias, stride, padding, dilation, groups)


@autocast(cpu="lower", cuda="lower")
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation: y[n, o, i] = b[o] + Σ_{c,k} w[o, c, k] · x[n, c, i·s + k·d − p].

    dL/dw is the cross-correlation of x with dL/dy, dL/dx the full convolution of dL/dy with w (that is,
    with w rotated by 180°), dL/db the sum of dL/dy.

    Shapes: input (N, C, H, W) or (C, H, W), weight (O, C/groups, kH, kW), bias (O) → (N, O, H', W') or
    (O, H', W'), H' = ⌊(H + 2p − d(kH − 1) − 1) / s⌋ + 1. `padding` is a number per dimension, "valid"
    (0) or "same" (H' = H; stride 1 only).
    Raises RuntimeError where shapes, types or options do not fit, TypeError for options that are no ints.
    Source: lecture notes, "Convolution layer" and "CNN Backpropagation".
    """
    return _convolution(2, input, weight, bias, stride, padding, dilation, groups)


@autocast(cpu="lower", cuda="lower")
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation in three dimensions: see `conv2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W), weight (O, C/groups, kD, kH, kW), bias (O) → (N, O, D', H', W').
    """
    return _convolution(3, input, weight, bias, stride, padding, dilation, groups)


@autocast(cpu="lower", cuda="lower")
def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """`conv1d` of a sequence that is first in memory: y[t] = b + Σ_k x[t + k − p] w[k].

    Shapes: input (T, N, C), weight (k, C, O), bias (O) → (T', N, O). Raises RuntimeError where shapes do not fit.
    """
    if input.dim() != 3 or weight.dim() != 3 or bias.dim() != 1:
        raise RuntimeError(
            "conv_tbc needs an input (time, batch, channels), a weight (kernel, in_channels, out_channels) and a bias, "
            f"but got {list(input.shape)}, {list(weight.shape)} and {list(bias.shape)}"
        )
    if input.shape[2] != weight.shape[1] or weight.shape[2] != bias.shape[0]:
        raise RuntimeError(
            f"conv_tbc: a weight {list(weight.shape)} takes {weight.shape[1]} channels and {weight.shape[2]} biases, "
            f"but got an input {list(input.shape)} and a bias {list(bias.shape)}"
        )
    output = _convolution(1, input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, 1, pad, 1, 1)
    return output.permute(2, 0, 1).contiguous()


@autocast(cpu="lower", cuda="lower")
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """The transpose of `conv1d`: see `conv_transpose2d`.

    Shapes: input (N, C, L) or (C, L), weight (C, O/groups, k), bias (O) → (N, O, L') or (O, L').
    """
    return _convolve_transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@autocast(cpu="lower", cuda="lower")
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """The transpose of `conv2d`: y = b + the gradient that a convolution with w would send to its input.

    y[n, o, j] = b[o] + Σ_{c,k} w[c, o, k] · x[n, c, i] over all i and k with i·s + k·d − p = j, the full
    convolution of x with w. So dL/dx is the cross-correlation of dL/dy with w.

    Shapes: input (N, C, H, W) or (C, H, W), weight (C, O/groups, kH, kW), bias (O) → (N, O, H', W') or
    (O, H', W'), H' = (H − 1)·s − 2p + d(kH − 1) + output_padding + 1.
    Raises RuntimeError where shapes, types or options do not fit, TypeError for options that are no ints.
    Source: V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", 2016.
    """
    return _convolve_transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@autocast(cpu="lower", cuda="lower")
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """The transpose of `conv3d`: see `conv_transpose2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W), weight (C, O/groups, kD, kH, kW), bias (O) → (N, O, D', H', W').
    """
    return _convolve_transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def _convolution(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int,
) -> Tensor:
    """Check, make a batch, and correlate."""
    name = f"conv{dims}d"
    _check_operands(name, dims, input, weight, bias, groups)
    batch = input if input.dim() == dims + 2 else as_batch(name, input, dims)
    stride, dilation = per_dimension("stride", stride, dims), per_dimension("dilation", dilation, dims)
    if isinstance(padding, str):
        batch, padding = _resolve_padding(padding, batch, weight, stride, dilation)
    padding = per_dimension("padding", padding, dims)
    windows, elements = _correlation_windows(
        name, batch.shape, weight.shape, None if bias is None else bias.shape, stride, padding, dilation, groups
    )
    if type(elements) is int and elements > MANY:
        require_memory((elements,), batch)
    output = correlation(batch, weight, bias, windows, chosen_algorithm())
    return output if input.dim() == dims + 2 else no_view(output, output.shape[1:])


@cache_plans
def _correlation_windows(
    name: str,
    input: torch.Size,
    weight: torch.Size,
    bias: torch.Size | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> tuple[Windows, int]:
    """The windows of operands of these shapes, which are checked, and how many elements the output has."""
    _check_shapes(name, weight, bias, groups, out_channels=0)
    windows = _check_windows(weight, stride, padding, dilation, groups)
    if input[1] != weight[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(weight)}, expected input{list(input)} to have "
            f"{weight[1] * groups} channels, but got {input[1]} channels instead"
        )
    padded_size = tuple(size + 2 * p for size, p in zip(input[2:], padding, strict=True))
    if any([extent > size for extent, size in zip(windows.extent, padded_size, strict=True)]):
        raise RuntimeError(
            f"Calculated padded input size per channel: {_times(padded_size)}. Kernel size: {_times(windows.extent)}. "
            "Kernel size can't be greater than actual input size; pad more or use a smaller kernel"
        )
    _check_positions(input)
    return windows, math.prod((input[0], weight[0], *windows.output_size(input[2:])))


def _convolve_transposed(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Size,
    output_padding: Size,
    groups: int,
    dilation: Size,
) -> Tensor:
    """Check, make a batch, and convolve fully."""
    name = f"conv_transpose{dims}d"
    _check_operands(name, dims, input, weight, bias, groups)
    batch = input if input.dim() == dims + 2 else as_batch(name, input, dims)
    windows, output_size, elements = _transposed_windows(
        name,
        batch.shape,
        weight.shape,
        None if bias is None else bias.shape,
        per_dimension("stride", stride, dims),
        per_dimension("padding", padding, dims),
        per_dimension("output_padding", output_padding, dims),
        per_dimension("dilation", dilation, dims),
        groups,
    )
    if type(elements) is int and elements > MANY:
        require_memory((elements,), batch)
    output = full_convolution(batch, weight, bias, windows, output_size, chosen_algorithm())
    return output if input.dim() == dims + 2 else no_view(output, output.shape[1:])


@cache_plans
def _transposed_windows(
    name: str,
    input: torch.Size,
    weight: torch.Size,
    bias: torch.Size | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    output_padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> tuple[Windows, tuple[int, ...], int]:
    """The windows of operands of these shapes, which are checked, the output's size, and how many elements it has."""
    _check_shapes(name, weight, bias, groups, out_channels=1)
    if input[1] != weight[0]:
        raise RuntimeError(
            f"Given transposed=1, weight of size {list(weight)}, expected input{list(input)} to have "
            f"{weight[0]} channels, but got {input[1]} channels instead"
        )
    windows = _check_windows(weight, stride, padding, dilation, groups)
    for extra, s, d in zip(output_padding, stride, dilation, strict=True):
        if not 0 <= extra < max(s, d):
            raise RuntimeError(
                f"output padding must be smaller than either stride or dilation, but got output_padding="
                f"{output_padding}, stride={stride}, dilation={dilation}"
            )
    geometry = zip(input[2:], stride, padding, windows.extent, output_padding, strict=True)
    output_size = tuple([(i - 1) * s - 2 * p + extent + extra for i, s, p, extent, extra in geometry])
    least = 1 if input[0] else 0  # an empty batch has no samples that could be too small
    if any([size < least for size in output_size]):
        raise RuntimeError(
            f"Given input size per channel: {_times(input[2:])}. Calculated output size per channel: "
            f"{_times(output_size)}. Output size is too small; use less padding"
        )
    _check_positions(input)
    return windows, output_size, math.prod((input[0], weight[1] * groups, *output_size))


def _resolve_padding(
    padding: str, input: Tensor, weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[Tensor, Size]:
    """Numbers for "same" and "valid"; "same" with an odd total pads the input once more at its end."""
    if padding == "valid":
        return input, 0
    if padding != "same":
        raise RuntimeError(f"Invalid padding string: {padding!r}; it must be 'same', 'valid' or numbers")
    if set(stride) != {1}:
        raise RuntimeError(f"padding='same' is not supported for strided convolutions, but got stride={stride}")
    totals = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
    at_the_end = [amount for total in reversed(totals) for amount in (0, total % 2)]
    if any(at_the_end):
        input = torch.constant_pad_nd(input, at_the_end)
    return input, tuple(total // 2 for total in totals)


def _check_operands(name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    """Types, and the number of the weight's dimensions."""
    if type(groups) is not int and not is_int(groups):
        raise TypeError(f"groups must be an int, but got {groups!r}")
    if weight.dim() != dims + 2:
        raise RuntimeError(_wrong_dims(name, dims, input, weight))
    for what, operand in (("weight", weight), ("bias", bias)):
        if operand is not None and operand.dtype != input.dtype:
            raise RuntimeError(f"Input type ({input.dtype}) and {what} type ({operand.dtype}) should be the same")


def _check_shapes(name: str, weight: torch.Size, bias: torch.Size | None, groups: int, out_channels: int) -> None:
    """Those of weight and bias; `out_channels` is the dimension of weight that counts them."""
    if groups <= 0:
        raise RuntimeError(f"non-positive groups is not supported, but got groups={groups}")
    if weight[0] < groups or weight[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0 and divisible by "
            f"{groups}, but got weight of size {list(weight)} instead"
        )
    if 0 in weight[2:]:
        raise RuntimeError(f"{name} expects a kernel of at least one tap, but got weight of size {list(weight)}")
    channels = weight[out_channels] * (groups if out_channels else 1)
    if bias is not None and bias != (channels,):
        raise RuntimeError(
            f"Given weight of size {list(weight)}, expected bias to be 1-dimensional with {channels} elements, "
            f"but got bias of size {list(bias)} instead"
        )


def _wrong_dims(name: str, dims: int, input: Tensor, weight: Tensor) -> str:
    """What is wrong with a weight of other than `dims` spatial dimensions."""
    if weight.dim() < 3:
        return f"{name}: weight should have at least three dimensions, but got weight of size {list(weight.shape)}"
    return (
        f"Expected {weight.dim()}-dimensional input for {weight.dim()}-dimensional weight {list(weight.shape)}, but "
        f"got {input.dim()}-dimensional input of size {list(input.shape)} instead; {name} takes a weight of "
        f"{dims + 2} dimensions"
    )


def _check_windows(
    weight: torch.Size, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Windows:
    """Windows of plain numbers: torch.jit.trace, which draws TensorBoard's graph, makes tensors of sizes."""
    if min(padding) < 0:
        raise RuntimeError(f"negative padding is not supported, but got padding={padding}")
    if min(stride) <= 0:
        raise RuntimeError(f"non-positive stride is not supported, but got stride={stride}")
    if min(dilation) <= 0:
        raise RuntimeError(f"dilation should be greater than zero, but got dilation={dilation}")
    return Windows(tuple([int(size) for size in weight[2:]]), stride, padding, dilation, groups)


def _check_positions(input: torch.Size) -> None:
    if input[0] and input[1] and 0 in input[2:]:
        raise RuntimeError(f"Only zero batch or zero channel inputs are supported, but got input shape: {list(input)}")


def _times(sizes: tuple[int, ...] | torch.Size) -> str:
    return f"({' x '.join(str(size) for size in sizes)})"

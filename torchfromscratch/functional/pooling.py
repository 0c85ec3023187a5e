"""Max, average and adaptive pooling in one, two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd import pooling as autograd
from torchfromscratch.autograd.loss import absolute
from torchfromscratch.functional.arguments import (
    Size,
    as_batch,
    inexact,
    is_int,
    per_dimension,
    require_memory,
    scalar_type,
)
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.execution import has_concrete_values
from torchfromscratch.kernels.layout import any_channels_last
from torchfromscratch.kernels.planning import cache_plans
from torchfromscratch.kernels.spans import Spans, as_windows, dividing_spans, sliding_spans
from torchfromscratch.kernels.windows import Windows

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]

AdaptiveSize = int | Sequence[int | None] | None


def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window: see `max_pool2d`.

    Shapes: input (N, C, L) or (C, L) → (N, C, L') or (C, L').
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool1d` with the winners' positions, whatever `return_indices` says, as in torch."""
    output, positions = _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, True)
    return output, positions


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window: y[o] = max_k x[o·s + k·d − p]; dL/dx sends dL/dy to the winners alone.

    Of equal elements the first wins; NaN wins over numbers. Padding never wins. With `return_indices`
    also the winners' positions in the (flattened) input channel.

    Shapes: input (N, C, H, W) or (C, H, W) → (N, C, H', W') or (C, H', W'), H' = ⌊(H + 2p − d(k − 1) − 1) / s⌋ + 1,
    or ⌈ ⌉ with `ceil_mode`. `stride` is `kernel_size` where it is not given.
    Raises RuntimeError where sizes do not fit, NotImplementedError for booleans and complex numbers.
    Source: lecture notes, "Max Pooling" and "Backward through max pooling".
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool2d` with the winners' positions, whatever `return_indices` says, as in torch."""
    output, positions = _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, True)
    return output, positions


def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window: see `max_pool2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W) → (N, C, D', H', W') or (C, D', H', W').
    """
    pool = _max_pool if return_indices else _max_pool_with_casts
    return pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool3d` with the winners' positions, whatever `return_indices` says, as in torch."""
    output, positions = _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, True)
    return output, positions


def avg_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window: see `avg_pool2d`.

    Shapes: input (N, C, L) or (C, L) → (N, C, L') or (C, L').
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window: y[o] = Σ_k x[o·s + k − p] / n; dL/dx spreads dL/dy / n over the window.

    n counts the window's elements, those in the padding only with `count_include_pad`, and is
    `divisor_override` where that is given.

    Shapes: input (N, C, H, W) or (C, H, W) → (N, C, H', W') or (C, H', W'), H' = ⌊(H + 2p − k) / s⌋ + 1, or ⌈ ⌉ with
    `ceil_mode`. `stride` is `kernel_size` where it is not given.
    Raises RuntimeError where sizes do not fit, NotImplementedError for booleans and complex numbers.
    Source: lecture notes, "Average Pooling".
    """
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@autocast(cpu="float32", cuda="as given")
def avg_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window: see `avg_pool2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W) → (N, C, D', H', W') or (C, D', H', W').
    """
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def adaptive_max_pool1d(input: Tensor, output_size: Size, return_indices: bool = False) -> Any:
    """The largest element of each span: see `adaptive_max_pool2d`.

    Shapes: input (N, C, L) or (C, L) → (N, C, L') or (C, L').
    """
    return _adaptive_max_pool(1, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Size, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool1d` with the winners' positions, whatever `return_indices` says, as in torch."""
    return _adaptive_max_pool(1, input, output_size, return_indices=True)


def adaptive_max_pool2d(input: Tensor, output_size: AdaptiveSize, return_indices: bool = False) -> Any:
    """The largest element of each of the spans that divide the input into `output_size`: see `max_pool2d`.

    Output o of O looks at the positions [⌊o·H/O⌋, ⌈(o + 1)·H/O⌉) of each dimension. None keeps a size.

    Shapes: input (N, C, H, W) or (C, H, W) → (N, C, H', W') or (C, H', W') with (H', W') = output_size.
    Raises as `adaptive_avg_pool2d` does.
    """
    return _adaptive_max_pool(2, input, output_size, return_indices)


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: AdaptiveSize, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool2d` with the winners' positions, whatever `return_indices` says, as in torch."""
    return _adaptive_max_pool(2, input, output_size, return_indices=True)


@autocast(cpu="float32", cuda="as given")
def adaptive_max_pool3d(input: Tensor, output_size: AdaptiveSize, return_indices: bool = False) -> Any:
    """The largest element of each span: see `adaptive_max_pool2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W) → (N, C, D', H', W') or (C, D', H', W').
    """
    return _adaptive_max_pool(3, input, output_size, return_indices)


@autocast(cpu="float32", cuda="as given")
def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: AdaptiveSize, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool3d` with the winners' positions, whatever `return_indices` says, as in torch."""
    return _adaptive_max_pool(3, input, output_size, return_indices=True)


def lp_pool1d(
    input: Tensor, norm_type: int | float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window: see `lp_pool2d`.

    Shapes: input (N, C, L) or (C, L) → (N, C, L') or (C, L').
    """
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: int | float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """(Σ xᵖ)^(1/p) over each window, with dL/dx = dL/dy · (x / y)^(p−1), and no gradient where the sum is 0.

    p = ∞ is the largest |x|, p = −∞ the least. Numbers below 0 are for exponents that are even.

    Shapes: those of `avg_pool2d` without padding. Raises ValueError for p = 0, RuntimeError where sizes do not fit.
    Source: P. Sermanet et al., "Convolutional neural networks applied to house numbers digit classification", 2012.
    """
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: int | float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window: see `lp_pool2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W) → (N, C, D', H', W') or (C, D', H', W').
    """
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


@autocast(cpu="float32", cuda="as given")
def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Each maximum in the place it was taken from: see `max_unpool2d`.

    Shapes: input and indices (N, C, L) or (C, L) → (N, C, L') or (C, L').
    """
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


@autocast(cpu="float32", cuda="as given")
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """y[i] = x[o] for the index i of o, 0 elsewhere: what `max_pool2d` took, put back; dL/dx[o] = dL/dy[i].

    Of maxima with one index, one remains, and all get its gradient, as in torch.

    Shapes: input and indices (N, C, H, W) or (C, H, W) → (N, C, H', W') or (C, H', W'), with `output_size`, which may
    have N and C in front, or H' = (H − 1)·s + k − 2p. `stride` is `kernel_size` where it is not given.
    Raises ValueError for an output size s or more away from that, RuntimeError for shapes, types and indices that do
    not fit. Source: M. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", 2014.
    """
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


@autocast(cpu="float32", cuda="as given")
def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Each maximum in the place it was taken from: see `max_unpool2d`.

    Shapes: input and indices (N, C, D, H, W) or (C, D, H, W) → (N, C, D', H', W') or (C, D', H', W').
    """
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


def adaptive_avg_pool1d(input: Tensor, output_size: Size) -> Tensor:
    """The mean of each span: see `adaptive_avg_pool2d`.

    Shapes: input (N, C, L) or (C, L) → (N, C, L') or (C, L').
    """
    return _adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: AdaptiveSize) -> Tensor:
    """The mean of each of the spans that divide the input into `output_size`; dL/dx spreads dL/dy / n over it.

    Output o of O looks at the n positions [⌊o·H/O⌋, ⌈(o + 1)·H/O⌉) of each dimension. None keeps a size.

    Shapes: input (N, C, H, W) or (C, H, W) → (N, C, H', W') or (C, H', W') with (H', W') = output_size.
    For (1, 1) it is the mean: of complex numbers too, and behind any number of dimensions.
    Raises RuntimeError where sizes do not fit, TypeError for sizes that are no ints, NotImplementedError
    for anything but floating-point numbers. Source: lecture notes, "Global Average Pooling".
    """
    return _adaptive_avg_pool(2, input, output_size)


@autocast(cpu="float32", cuda="as given")
def adaptive_avg_pool3d(input: Tensor, output_size: AdaptiveSize) -> Tensor:
    """The mean of each span: see `adaptive_avg_pool2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W) → (N, C, D', H', W') or (C, D', H', W').
    """
    return _adaptive_avg_pool(3, input, output_size)


def _max_pool(
    dims: int,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    """Check, make a batch, and pool."""
    name = f"max_pool{dims}d"
    windows = _windows(dims, kernel_size, stride, padding, dilation, ceil_mode)
    batch = _batch(name, dims, input)
    _require_room(name, dims, batch.shape, windows)
    _require_winners(name, batch.shape, windows)
    if input.dtype == torch.bool or input.is_complex():
        raise NotImplementedError(f"{name} is not defined for {input.dtype}")
    pool = autograd.max_position if return_indices else autograd.max_pool
    output, winners = pool(batch if any_channels_last(batch) else batch.contiguous(), windows)
    output = _unbatch(output, input, dims)
    return (output, _unbatch(winners, input, dims)) if return_indices else output


_max_pool_with_casts = autocast(cpu="float32", cuda="as given")(_max_pool)


def _avg_pool(
    dims: int,
    input: Tensor,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Check, make a batch, and average."""
    name = f"avg_pool{dims}d"
    if divisor_override is not None and not is_int(divisor_override):
        raise TypeError(f"divisor_override must be an int or None, but got {divisor_override!r}")
    if dims == 2 and input.dim() < 3:
        raise IndexError(f"{name} needs (N, C, H, W) or (C, H, W), but got input of size {list(input.shape)}")
    windows = _windows(dims, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override == 0:
        raise RuntimeError("divisor must be not zero, but got divisor_override=0")
    batch = _batch(name, dims, input)
    _require_room(name, dims, batch.shape, windows)
    if dims == 3 and any([k > size for k, size in zip(windows.kernel_size, batch.shape[2:], strict=True)]):
        raise RuntimeError(
            f"{name}: the input {tuple(batch.shape[2:])} must not be smaller than the kernel {windows.kernel_size}"
        )
    if not input.is_floating_point() and input.dtype != torch.int64:
        raise NotImplementedError(f"{name} is not defined for {input.dtype}")
    spans = sliding_spans(windows, batch.shape[2:], count_include_pad, divisor_override)
    return _unbatch(autograd.average(batch, spans), input, dims)


def _lp_pool(dims: int, input: Tensor, p: float, kernel_size: Size, stride: Size | None, ceil_mode: bool) -> Tensor:
    """The maximum of |x|, or the root of the average of powers."""
    if p == 0:
        raise ValueError(f"norm_type must be a non-zero value, but got {p}")
    if math.isinf(p):
        max_pool, sign = (max_pool1d, max_pool2d, max_pool3d)[dims - 1], 1 if p > 0 else -1
        largest = max_pool(sign * absolute(input), kernel_size, stride, 0, 1, ceil_mode)
        return sign * largest
    avg_pool: Any = (avg_pool1d, avg_pool2d, avg_pool3d)[dims - 1]
    mean = avg_pool(autograd.power(inexact(input), p), kernel_size, stride, 0, ceil_mode)
    return autograd.root(mean, math.prod(per_dimension("kernel_size", kernel_size, dims)), p)


def _max_unpool(
    dims: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    output_size: Sequence[int] | None,
) -> Tensor:
    """Check, make a batch, and put the maxima back."""
    name = f"max_unpool{dims}d"
    kernel = per_dimension("kernel_size", kernel_size, dims)
    strides = kernel if stride is None else per_dimension("stride", stride, dims)
    paddings = per_dimension("padding", padding, dims)
    if min(strides) <= 0:
        raise RuntimeError(f"{name}: strides should be greater than zero, but got stride: {strides}")
    size = _unpool_size(name, input, kernel, strides, paddings, output_size)
    if input.dim() not in (dims + 1, dims + 2):
        raise RuntimeError(f"{name} needs {dims + 1}D or {dims + 2}D input, but got {input.dim()} dimensions")
    if indices.dtype != torch.int64:
        raise RuntimeError(f"{name}: elements in indices should be type int64 but got: {scalar_type(indices.dtype)}")
    if indices.shape != input.shape:
        raise RuntimeError(
            f"{name}: Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) "
            f"but got indices tensor with shape: {list(indices.shape)}"
        )
    if 0 in input.shape[-dims - 1 :]:
        raise RuntimeError(f"{name} needs an input that is empty in the batch at most, but got {list(input.shape)}")
    if not input.is_floating_point():
        raise NotImplementedError(f"{name} is not defined for {input.dtype}")
    if has_concrete_values(indices) and indices.numel() and not indices.is_cuda:  # which would wait for the device
        low, high = indices.aminmax()
        if low < 0 or high >= math.prod(size):
            raise RuntimeError(
                f"{name}: Found an invalid max index: {int(low if low < 0 else high)} (output is of size {size})"
            )
    batch, positions = (as_batch(name, tensor, dims) for tensor in (input, indices))
    return _unbatch(autograd.unpool(batch, positions, size), input, dims)


def _unpool_size(
    name: str,
    input: Tensor,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    paddings: tuple[int, ...],
    output_size: Sequence[int] | None,
) -> tuple[int, ...]:
    """The size that pooling had as input: the least, or the one that is asked for."""
    dims = len(kernel)
    given = zip(input.shape[-dims:], strides, kernel, paddings, strict=True)
    least = [(size - 1) * s + k - 2 * p for size, s, k, p in given]
    if output_size is None:
        size = least
    else:
        size = list(output_size[2:] if len(output_size) == dims + 2 else output_size)
        if len(size) != dims:
            raise ValueError(
                f"output_size should be a sequence containing {dims} or {dims + 2} elements, "
                f"but it has a length of '{len(output_size)}'"
            )
        for dim, (asked, default, s) in enumerate(zip(size, least, strides, strict=True)):
            if not default - s < asked < default + s:
                raise ValueError(
                    f'invalid output_size "{tuple(size)}" (dim {dim} must be between {default - s} and {default + s})'
                )
    if min(size) < 0:
        raise ValueError(f"{name}: output_size must contain non-negative spatial dimensions, but got {tuple(size)}")
    return tuple(size)


def _adaptive_max_pool(dims: int, input: Tensor, output_size: AdaptiveSize, return_indices: bool) -> Any:
    """Check, make a batch, and pool each span."""
    name = f"adaptive_max_pool{dims}d"
    sizes = _adaptive_size(name, dims, input, output_size)
    batch = _batch(name, dims, input)
    if 0 in input.shape[1:]:
        raise RuntimeError(f"{name}: only the first dimension may be empty, but got input of size {list(input.shape)}")
    _require_floating(name, input)
    spans = _adaptive_spans(batch, sizes)
    batch = batch if dims < 3 else batch.contiguous()  # as torch answers
    windows = as_windows(spans)
    pool = autograd.max_position if return_indices or windows is None else autograd.max_pool
    output, positions = pool(batch, windows or spans)
    output = _unbatch(output, input, dims)
    return (output, _unbatch(positions, input, dims)) if return_indices else output


def _adaptive_avg_pool(dims: int, input: Tensor, output_size: AdaptiveSize) -> Tensor:
    """Average every span."""
    name = f"adaptive_avg_pool{dims}d"
    sizes = _adaptive_size(name, dims, input, output_size)
    if dims > 1 and set(sizes) == {1}:
        return _mean(name, dims, input)
    batch = _batch(name, dims, input)
    if set(sizes) == {1}:
        return _unbatch(_mean(name, 2, batch), input, dims)
    if 0 in batch.shape[2:]:
        raise RuntimeError(f"{name}: only batch and channels may be empty, but got input of size {list(input.shape)}")
    _require_floating(name, input)
    return _unbatch(autograd.average(batch, _adaptive_spans(batch, sizes)), input, dims)


def _mean(name: str, dims: int, input: Tensor) -> Tensor:
    """The average of one span of everything: of complex numbers too, behind any number of dimensions, as in torch."""
    if input.dim() < dims:
        raise IndexError(f"{name} averages over {dims} dimensions, but got input of size {list(input.shape)}")
    if not (input.is_floating_point() or input.is_complex()):
        raise RuntimeError(f"{name} takes the mean of floating-point or complex numbers, but got {input.dtype}")
    leading, spatial = input.shape[:-dims], input.shape[-dims:]
    batch = input if len(leading) == 2 else input.reshape(1, leading.numel(), *spatial)
    return no_view(autograd.average(batch, dividing_spans(spatial, [1] * dims)), (*leading, *[1] * dims))


def _adaptive_size(name: str, dims: int, input: Tensor, output_size: AdaptiveSize) -> tuple[int, ...]:
    """The size of the output in every dimension: None keeps the input's."""
    wanted: Any = output_size
    if dims > 1 and isinstance(output_size, Sequence):
        if input.dim() <= len(output_size):
            raise ValueError(
                f"{name}: Input dimension should be at least {len(output_size) + 1} for output_size={output_size!r}, "
                f"but got input of size {list(input.shape)}; "
                f"it must be (N, C, *) or (C, *) with {dims} dimensions for *"
            )
        if len(output_size) != dims and all([size is None or is_int(size) for size in output_size]):
            raise RuntimeError(f"{name}: output_size must be {dims} ints, but got {output_size!r}")
        given = zip(output_size, input.shape[-len(output_size) :], strict=True)
        wanted = [size if chosen is None else chosen for chosen, size in given]
    sizes = per_dimension("output_size", wanted, dims)
    if min(sizes) < 0:
        raise RuntimeError(
            f"{name}: elements of output_size must be greater than or equal to 0, but got {output_size!r}: "
            f"Trying to create tensor with negative dimension {min(sizes)}"
        )
    return sizes


def _adaptive_spans(batch: Tensor, sizes: tuple[int, ...]) -> tuple[Spans, ...]:
    """The spans that divide a batch into this many, of one row if its input has one dimension."""
    require_memory((*batch.shape[:2], *sizes), batch)
    return dividing_spans(batch.shape[2:], (1, *sizes) if len(sizes) == 1 else sizes)


def _windows(
    dims: int, kernel_size: Size, stride: Size | None, padding: Size, dilation: Size, ceil_mode: bool
) -> Windows:
    """The options, checked: torch.nn.functional takes None, [] and () for a stride of `kernel_size`."""
    kernel = per_dimension("kernel_size", kernel_size, dims)
    own_stride = stride is not None and stride not in ((), [])
    strides = per_dimension("stride", stride, dims) if own_stride else kernel
    paddings = per_dimension("padding", padding, dims)
    dilations = per_dimension("dilation", dilation, dims)
    return _checked_windows(kernel, strides, paddings, dilations, ceil_mode)


@cache_plans
def _checked_windows(
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    paddings: tuple[int, ...],
    dilations: tuple[int, ...],
    ceil_mode: bool,
) -> Windows:
    """Windows of these options; in one dimension, over images of one row."""
    for what, values in (("kernel_size", kernel), ("stride", strides), ("dilation", dilations)):
        if min(values) <= 0:
            raise RuntimeError(f"{what} must be greater than zero, but got {min(values)} in {values}")
    if min(paddings) < 0:
        raise RuntimeError(f"pad must be non-negative, but got pad: {min(paddings)}")
    if any([p > k // 2 for p, k in zip(paddings, kernel, strict=True)]):
        raise RuntimeError(
            f"pad should be at most half of effective kernel size, but got pad={paddings}, kernel_size={kernel} "
            f"and dilation={dilations}"
        )
    if len(kernel) == 1:
        kernel, strides, paddings, dilations = (1, *kernel), (1, *strides), (0, *paddings), (1, *dilations)
    return Windows(kernel, strides, paddings, dilations, ceil_mode=ceil_mode)


def _batch(name: str, dims: int, input: Tensor) -> Tensor:
    """A batch of images or volumes: what has one dimension is an image of one row, as in torch."""
    if input.dim() not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"{name}: non-empty {dims + 1}D or {dims + 2}D (batch mode) tensor expected for input: "
            f"{_expected_shape(dims, input.shape)}"
        )
    batch = as_batch(name, input, dims)
    return batch.unsqueeze(2) if dims == 1 else batch


def _expected_shape(dims: int, shape: torch.Size) -> str:
    return (
        f"Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with optional 0 dim batch size for input, "
        f"but got: {list(shape)}"
    )


def _unbatch(output: Tensor, input: Tensor, dims: int) -> Tensor:
    """Pooling's output without the dimensions that `_batch` has put before those of the input."""
    if dims == 1:
        output = output.squeeze(2)
    return output if input.dim() == dims + 2 else no_view(output, output.shape[1:])


@cache_plans
def _require_room(name: str, dims: int, shape: torch.Size, windows: Windows) -> None:
    """RuntimeError unless there is at least one window."""
    if 0 in shape[1:]:
        raise RuntimeError(
            f"{name}: Expected input's non-batch dimensions to have positive length: {_expected_shape(dims, shape)}"
        )
    output_size = windows.output_size(shape[2:])
    if min(output_size) < 1:
        raise RuntimeError(
            f"{name}: Given input size: {tuple(shape[2:])} and kernel_size {windows.kernel_size}. Invalid "
            f"computed output size: {min(output_size)} in {output_size}. Output size is too small; pad more or use a "
            "smaller kernel"
        )


@cache_plans
def _require_winners(name: str, shape: torch.Size, windows: Windows) -> None:
    """RuntimeError where all of a window's taps lie in the padding: torch sends its gradient anywhere in memory."""
    each = zip(
        shape[2:],
        windows.output_size(shape[2:]),
        windows.stride,
        windows.padding,
        windows.dilation,
        strict=True,
    )
    for size, outputs, s, p, d in each:
        in_padding = range(min(outputs, -(-p // s))) if size < d else ()  # windows that begin there
        if any([(o * s - p) % d >= size for o in in_padding]):  # the first position that is not in the padding
            raise RuntimeError(
                f"{name}: with dilation {windows.dilation} and padding {windows.padding}, a window over an input "
                f"of size {tuple(shape[2:])} sees nothing but padding; pad less or dilate less"
            )


def _require_floating(name: str, input: Tensor) -> None:
    if not input.is_floating_point():
        raise NotImplementedError(f"{name} needs floating-point numbers, but got {input.dtype}")

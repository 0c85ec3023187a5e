"""Max, average and adaptive pooling in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd import pooling as autograd
from torchfromscratch.functional.arguments import Size, as_batch, is_int, per_dimension, require_tensor
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.kernels.pooling import flat_positions
from torchfromscratch.kernels.spans import Spans, adaptive_spans, window_spans
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
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
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
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


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
    output, positions = _adaptive_max_pool(1, input, output_size)
    return (output, positions) if return_indices else output


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Size, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool1d` with the winners' positions, whatever `return_indices` says, as in torch."""
    return _adaptive_max_pool(1, input, output_size)


def adaptive_max_pool2d(input: Tensor, output_size: AdaptiveSize, return_indices: bool = False) -> Any:
    """The largest element of each of the spans that divide the input into `output_size`: see `max_pool2d`.

    Output o of O looks at the positions [⌊o·H/O⌋, ⌈(o + 1)·H/O⌉) of each dimension. None keeps a size.

    Shapes: input (N, C, H, W) or (C, H, W) → (N, C, H', W') or (C, H', W') with (H', W') = output_size.
    Raises as `adaptive_avg_pool2d` does.
    """
    output, positions = _adaptive_max_pool(2, input, output_size)
    return (output, positions) if return_indices else output


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: AdaptiveSize, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool2d` with the winners' positions, whatever `return_indices` says, as in torch."""
    return _adaptive_max_pool(2, input, output_size)


def adaptive_max_pool3d(input: Tensor, output_size: AdaptiveSize, return_indices: bool = False) -> Any:
    """The largest element of each span: see `adaptive_max_pool2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W) → (N, C, D', H', W') or (C, D', H', W').
    """
    output, positions = _adaptive_max_pool(3, input, output_size)
    return (output, positions) if return_indices else output


def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: AdaptiveSize, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool3d` with the winners' positions, whatever `return_indices` says, as in torch."""
    return _adaptive_max_pool(3, input, output_size)


def adaptive_avg_pool1d(input: Tensor, output_size: Size) -> Tensor:
    """The mean of each span: see `adaptive_avg_pool2d`.

    Shapes: input (N, C, L) or (C, L) → (N, C, L') or (C, L').
    """
    batch, spans = _adaptive("adaptive_avg_pool1d", 1, input, output_size)
    return _unbatched(autograd.average(batch, spans), input, 1)


def adaptive_avg_pool2d(input: Tensor, output_size: AdaptiveSize) -> Tensor:
    """The mean of each of the spans that divide the input into `output_size`; dL/dx spreads dL/dy / n over it.

    Output o of O looks at the n positions [⌊o·H/O⌋, ⌈(o + 1)·H/O⌉) of each dimension. None keeps a size.

    Shapes: input (N, C, H, W) or (C, H, W) → (N, C, H', W') or (C, H', W') with (H', W') = output_size.
    Raises RuntimeError where sizes do not fit, TypeError for sizes that are no ints, NotImplementedError
    for anything but floating-point numbers. Source: lecture notes, "Global Average Pooling".
    """
    batch, spans = _adaptive("adaptive_avg_pool2d", 2, input, output_size)
    return _unbatched(autograd.average(batch, spans), input, 2)


def adaptive_avg_pool3d(input: Tensor, output_size: AdaptiveSize) -> Tensor:
    """The mean of each span: see `adaptive_avg_pool2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W) → (N, C, D', H', W') or (C, D', H', W').
    """
    batch, spans = _adaptive("adaptive_avg_pool3d", 3, input, output_size)
    return _unbatched(autograd.average(batch, spans), input, 3)


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
    batch = _checked_batch(name, dims, input)
    _require_room(name, batch, windows)
    output, winners = autograd.max_pool(batch, windows)
    if not return_indices:
        return _unbatched(output, input, dims)
    positions = flat_positions(winners, windows, batch.shape[2:])
    return _unbatched(output, input, dims), _unbatched(positions, input, dims)


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
    if divisor_override == 0:
        raise RuntimeError("divisor_override must not be zero")
    require_tensor("input", input)
    if dims == 2 and input.dim() < 3:
        raise IndexError(f"{name} needs (N, C, H, W) or (C, H, W), but got input of size {list(input.shape)}")
    windows = _windows(dims, kernel_size, stride, padding, 1, ceil_mode)
    batch = _checked_batch(name, dims, input)
    _require_room(name, batch, windows)
    if not input.is_floating_point() and input.dtype != torch.int64:
        raise NotImplementedError(f"{name} is not defined for {input.dtype}")
    if dims == 3 and any([k > size for k, size in zip(windows.kernel_size, batch.shape[2:], strict=True)]):
        raise RuntimeError(
            f"{name}: the input {tuple(batch.shape[2:])} must not be smaller than the kernel {windows.kernel_size}"
        )
    spans = window_spans(windows, batch.shape[2:], count_include_pad)
    if divisor_override is not None:
        divisors = [divisor_override, *[1] * (dims - 1)]  # the dimensions' divisors multiply
        spans = tuple(
            Spans(span.starts, span.ends, (divisor,) * len(span.starts))
            for span, divisor in zip(spans, divisors, strict=True)
        )
    return _unbatched(autograd.average(batch, spans), input, dims)


def _adaptive_max_pool(dims: int, input: Tensor, output_size: AdaptiveSize) -> tuple[Tensor, Tensor]:
    """Write every span out, then pool each of them; with the winners' positions."""
    batch, spans = _adaptive(f"adaptive_max_pool{dims}d", dims, input, output_size)
    if batch.shape[1] == 0:
        raise RuntimeError(f"adaptive_max_pool{dims}d: expected at least one channel, but got {list(input.shape)}")
    longest = tuple(span.positions(input.device)[0].shape[1] for span in spans)
    windows = Windows(longest, longest, (0,) * dims, (1,) * dims)
    taken = autograd.take(batch, spans)
    output, winners = autograd.max_pool(taken, windows)
    in_input = torch.arange(batch.shape[2:].numel(), device=input.device).view(1, 1, *batch.shape[2:])
    in_taken = flat_positions(winners, windows, taken.shape[2:])
    positions = autograd.take(in_input, spans).view(-1)[in_taken]
    return _unbatched(output, input, dims), _unbatched(positions, input, dims)


def _adaptive(name: str, dims: int, input: Tensor, output_size: AdaptiveSize) -> tuple[Tensor, tuple[Spans, ...]]:
    """The batch, and the spans that divide it into `output_size`."""
    require_tensor("input", input)
    if dims > 1 and isinstance(output_size, Sequence) and input.dim() <= len(output_size):
        raise ValueError(
            f"{name}: an input of size {list(input.shape)} has too few dimensions for output_size={output_size!r}; "
            f"it must be (N, C, *) or (C, *) with {dims} dimensions for *"
        )
    batch = _checked_batch(name, dims, input, channels_may_be_missing=True)
    if not input.is_floating_point():
        raise NotImplementedError(f"{name} needs floating-point numbers, but got {input.dtype}")
    if output_size is None or (dims == 1 and isinstance(output_size, Sequence) and None in output_size):
        raise TypeError(f"{name}: output_size must be an int or a tuple of {dims} ints, but got {output_size!r}")
    if isinstance(output_size, Sequence):
        if not all([size is None or is_int(size) for size in output_size]):
            raise TypeError(f"{name}: output_size must be an int or a tuple of {dims} ints, but got {output_size!r}")
        if len(output_size) != dims:
            raise RuntimeError(f"{name}: output_size must have {dims} elements, but got {output_size!r}")
        wanted = [size if o is None else o for o, size in zip(output_size, batch.shape[2:], strict=True)]
    else:
        wanted = [output_size] * dims
    sizes = per_dimension("output_size", wanted, dims)
    if min(sizes) < 0:
        raise RuntimeError(f"{name}: elements of output_size must not be negative, but got {output_size!r}")
    return batch, adaptive_spans(batch.shape[2:], sizes)


def _windows(
    dims: int, kernel_size: Size, stride: Size | None, padding: Size, dilation: Size, ceil_mode: bool
) -> Windows:
    """The options, checked: torch.nn.functional takes None, [] and () for a stride of `kernel_size`."""
    kernel = per_dimension("kernel_size", kernel_size, dims)
    own_stride = stride is not None and stride not in ((), [])
    strides = per_dimension("stride", stride, dims) if own_stride else kernel
    windows = Windows(
        kernel,
        strides,
        per_dimension("padding", padding, dims),
        per_dimension("dilation", dilation, dims),
        ceil_mode=ceil_mode,
    )
    for what, values in (("kernel_size", kernel), ("stride", strides), ("dilation", windows.dilation)):
        if min(values) <= 0:
            raise RuntimeError(f"{what} must be greater than zero, but got {values}")
    if any([p < 0 or p > k // 2 for p, k in zip(windows.padding, kernel, strict=True)]):
        raise RuntimeError(
            f"padding must be non-negative and at most half of the kernel size, but got padding={windows.padding} "
            f"and kernel_size={kernel}"
        )
    return windows


def _checked_batch(name: str, dims: int, input: Tensor, channels_may_be_missing: bool = False) -> Tensor:
    require_tensor("input", input)
    batch = as_batch(name, input, dims)
    if input.dtype == torch.bool or input.is_complex():
        raise NotImplementedError(f"{name} is not defined for {input.dtype}")
    if 0 in batch.shape[2 if channels_may_be_missing else 1 :]:
        raise RuntimeError(f"{name}: only the batch may be empty, but got input of size {list(input.shape)}")
    return batch


def _require_room(name: str, batch: Tensor, windows: Windows) -> None:
    output_size = windows.output_size(batch.shape[2:])
    if min(output_size) < 1:
        raise RuntimeError(
            f"{name}: given input size {tuple(batch.shape[2:])} and kernel_size {windows.kernel_size}, the output "
            f"size would be {output_size}, which is too small; pad more or use a smaller kernel"
        )


def _unbatched(output: Tensor, input: Tensor, dims: int) -> Tensor:
    return output if input.dim() == dims + 2 else output.squeeze(0)

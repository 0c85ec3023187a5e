"""Windows written out as columns, and back."""

from __future__ import annotations

import math

from torch import Tensor

from torchfromscratch.autograd import unfold as autograd
from torchfromscratch.functional.arguments import Size, per_dimension
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.windows import Windows

__all__ = ["fold", "unfold"]


def unfold(input: Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> Tensor:
    """Every window as a column: y[n, (c, k), o] = x[n, c, o·s + k·d − p]; dL/dx = fold(dL/dy).

    Shapes: input (N, C, H, W) or (C, H, W) → (N, C·K, L) or (C·K, L), with K elements in a window and L windows.
    Raises RuntimeError where sizes do not fit, IndexError for fewer than three dimensions, NotImplementedError for
    integers.
    Source: K. Chellapilla et al., "High Performance Convolutional Neural Networks for Document Processing", 2006.
    """
    _require_floating_point("unfold", input)
    if input.dim() not in (3, 4) or 0 in input.shape[-3:]:
        error = IndexError if input.dim() < 3 and 0 not in input.shape[1:] else RuntimeError
        raise error(
            "unfold needs an input (C, H, W) or (N, C, H, W) with at most the batch empty, "
            f"but got input of size: {list(input.shape)}"
        )
    windows = _windows(kernel_size, dilation, padding, stride)
    _require_windows(windows, input.shape[-2:])
    batch = input if input.dim() == 4 else input.unsqueeze(0)
    columns = autograd.unfold(batch, windows)
    return columns if input.dim() == 4 else no_view(columns, columns.shape[1:])


def fold(
    input: Tensor, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> Tensor:
    """Columns summed where their windows overlap: y[n, c, i] = Σ x[n, (c, k), o] over o·s + k·d − p = i.

    The transpose of `unfold`; dL/dx = unfold(dL/dy).

    Shapes: input (N, C·K, L) or (C·K, L), with K elements in a window and L windows over an output of
    `output_size` (H, W) → (N, C, H, W) or (C, H, W).
    Raises RuntimeError where sizes do not fit, NotImplementedError for integers.
    """
    _require_floating_point("fold", input)
    if input.dim() not in (2, 3) or 0 in input.shape[-2:]:
        raise RuntimeError(
            "fold needs an input (C·K, L) or (N, C·K, L) with at most the batch empty, "
            f"but got input of size: {list(input.shape)}"
        )
    windows = _windows(kernel_size, dilation, padding, stride)
    size = per_dimension("output_size", output_size, 2)
    if min(size) < 1:
        raise RuntimeError(f"output_size must be positive, but got {output_size}")
    _require_windows(windows, size)
    elements, count = math.prod(windows.kernel_size), math.prod(windows.output_size(size))
    if input.shape[-2] % elements or input.shape[-1] != count:
        raise RuntimeError(
            f"windows of {list(windows.kernel_size)} over an output of {list(size)} are {count} columns of a multiple "
            f"of {elements} elements, but got input of size: {list(input.shape)}"
        )
    columns = input if input.dim() == 3 else input.unsqueeze(0)
    output = autograd.fold(columns, windows, size)
    return output if input.dim() == 3 else no_view(output, output.shape[1:])


def _windows(kernel_size: Size, dilation: Size, padding: Size, stride: Size) -> Windows:
    windows = Windows(
        kernel_size=per_dimension("kernel_size", kernel_size, 2),
        stride=per_dimension("stride", stride, 2),
        padding=per_dimension("padding", padding, 2),
        dilation=per_dimension("dilation", dilation, 2),
    )
    if min(*windows.kernel_size, *windows.stride, *windows.dilation) < 1 or min(windows.padding) < 0:
        raise RuntimeError(f"kernel_size, stride and dilation must be positive, padding 0 or more, but got {windows}")
    return windows


def _require_windows(windows: Windows, size: tuple[int, ...]) -> None:
    if min(windows.output_size(size)) < 1:
        raise RuntimeError(
            f"no window of {list(windows.kernel_size)} with dilation {list(windows.dilation)} fits into "
            f"{list(size)} with padding {list(windows.padding)}"
        )


def _require_floating_point(function: str, input: Tensor) -> None:
    if not (input.is_floating_point() or input.is_complex()):
        raise NotImplementedError(f"{function} needs floating-point or complex numbers, but got {input.dtype}")

"""Resizing of signals, images and volumes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.autograd import resizing as autograd
from torchfromscratch.functional.arguments import is_int, require_memory
from torchfromscratch.functional.pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from torchfromscratch.kernels.execution import is_tracing, warn_of_constants
from torchfromscratch.kernels.layout import is_channels_last
from torchfromscratch.kernels.precision import wide_type, widen
from torchfromscratch.kernels.resampling import FILTERS, Axis, filter_taps, nearest

__all__ = ["interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]

# The filter of each mode, where it has one, and how many spatial dimensions it takes.
FILTER = {"linear": "linear", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic", "lanczos": "lanczos"}
DIMS: dict[str, tuple[int, ...]] = {
    "linear": (1,),
    "bilinear": (2,),
    "trilinear": (3,),
    "bicubic": (2,),
    "lanczos": (2,),
}
DIMS |= dict.fromkeys(("nearest", "nearest-exact", "area"), (1, 2, 3))

# Beyond int64. A float, as the lengths that torch.jit.trace records cannot be compared with so great an int.
NO_LENGTH = 2.0**63


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """y[o] = Σ_i w(u − i) x[i] with u the place of o among the inputs, one dimension after the other.

    dL/dx[i] = Σ_o w(u − i) dL/dy[o]. The weights of each mode stand in `torchfromscratch.kernels.resampling`;
    'area' is adaptive average pooling.

    Shapes: input (N, C, L), (N, C, H, W) or (N, C, D, H, W) → the same with the spatial size `size` or, of input
    size I, ⌊I · scale_factor⌋. 'linear' takes one spatial dimension, 'bilinear', 'bicubic' and 'lanczos' two,
    'trilinear' three, the others any. With `recompute_scale_factor` the positions follow from the sizes alone.
    Bytes are rounded to the nearest.
    Raises ValueError and TypeError for options that do not go together, NotImplementedError for a mode that the
    input has too few or many dimensions for, RuntimeError for an empty size.
    """
    dims = input.dim() - 2
    _check_options(input, mode, align_corners, antialias)
    if recompute_scale_factor and size is not None:
        raise ValueError("recompute_scale_factor goes with scale_factor, but got a size")
    sizes, factors = _sizes(input, size, scale_factor, recompute_scale_factor or mode == "area")
    if dims not in DIMS.get(mode, ()):
        takes = f"takes {[count + 2 for count in DIMS[mode]]}D input" if mode in DIMS else f"is none of {[*DIMS]}"
        raise NotImplementedError(f"mode {mode!r} {takes}, but got {input.dim()}D input")
    if min(*sizes, *input.shape[1:]) < 1:
        raise RuntimeError(
            f"only the batch may be empty, but got input of size {list(input.shape)} and the output size {sizes}"
        )
    require_memory((*input.shape[:2], *sizes), input)
    if mode == "area":
        return (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[dims - 1](input, sizes)
    if not input.is_floating_point() and (input.dtype != torch.uint8 or (mode in FILTER and dims != 2)):
        raise NotImplementedError(f"mode {mode!r} takes no {input.dtype}")
    given = zip(input.shape[2:], sizes, factors, strict=True)
    warn_of_constants("where resizing looks, for inputs of this size alone")
    # int: torch.jit.trace hands over sizes as tensors, whose quotients are float32
    axes = [Axis(int(inputs), int(outputs), factor, bool(align_corners)) for inputs, outputs, factor in given]
    if is_channels_last(input):
        return _resample(input.movedim(1, -1), axes, mode, antialias, first_dim=1).movedim(-1, 1)
    return _resample(input, axes, mode, antialias, first_dim=2)


def upsample(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`interpolate`, under the name that it had before."""
    _warn_of_old_name("upsample")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """`interpolate` to the nearest, under the name that it had before."""
    _warn_of_old_name("upsample_nearest")
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(
    input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """Bilinear `interpolate` with aligned corners, under the name that it had before."""
    _warn_of_old_name("upsample_bilinear")
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def _warn_of_old_name(name: str) -> None:
    if is_tracing():  # Dynamo traces no warning
        return
    warnings.warn(f"`nn.functional.{name}` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=4)


def _resample(input: Tensor, axes: Sequence[Axis], mode: str, antialias: bool, first_dim: int) -> Tensor:
    """The last dimension first: torch rounds bytes after each."""
    output = widen(input)
    for dim, axis in reversed([*enumerate(axes, first_dim)]):
        if mode in FILTER:
            position, weight = _filter_taps(axis, FILTER[mode], antialias, input)
        else:
            position, weight = _nearest(axis, mode, input, is_image=len(axes) == 2), None
        if weight is None:
            output = autograd.resample(output, position, None, dim)
        elif input.dtype == torch.uint8:
            output = autograd.resample(output.float(), position, weight, dim).round().clamp(0, 255)
        else:
            output = autograd.resample(output, position, weight, dim)
    return output.to(input.dtype)


def _nearest(axis: Axis, mode: str, input: Tensor, is_image: bool) -> Tensor:
    """As torch does: an image's positions follow from float32, and without the factor where sizes are 1:1 or 1:2."""
    if is_image and mode == "nearest" and axis.outputs in (axis.inputs, 2 * axis.inputs):
        axis = axis._replace(scale_factor=None)
    precision = torch.float64 if input.dtype == torch.float64 and not is_image else torch.float32
    return nearest(axis, mode == "nearest-exact", precision, input.device)


def _filter_taps(axis: Axis, filter: str, antialias: bool, input: Tensor) -> tuple[Tensor, Tensor | None]:
    """As torch does: what is linear or against aliasing leaves as many outputs as inputs, whatever the factor."""
    if axis.outputs == axis.inputs and (filter == "linear" or antialias):
        return nearest(axis._replace(scale_factor=None), False, torch.float32, input.device), None
    dtype = torch.float32 if input.dtype == torch.uint8 else wide_type(input.dtype)
    return filter_taps(axis, FILTERS[filter], antialias, dtype, input.device)


def _check_options(input: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    if align_corners is not None and mode not in FILTER:
        raise ValueError(f"align_corners goes with the modes {[*FILTER]}, but got mode {mode!r}")
    if antialias and not (mode in ("bilinear", "bicubic", "lanczos") and input.dim() == 4):
        raise ValueError(
            "antialias goes with the modes 'bilinear', 'bicubic' and 'lanczos' and 4D input, "
            f"but got mode {mode!r} and {input.dim()}D input"
        )
    if mode == "lanczos" and (align_corners or not antialias):
        raise ValueError("mode 'lanczos' needs antialias=True and has no align_corners")


def _sizes(
    input: Tensor,
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
    recompute_scale_factor: bool,
) -> tuple[list[int], list[float | None]]:
    """The spatial size of the output, and the scale factors if positions are to follow from them."""
    spatial = input.shape[2:]
    if (size is None) == (scale_factor is None):
        raise ValueError(f"either size or scale_factor must be given, but got {size} and {scale_factor}")
    if size is not None:
        sizes = _for_each("size", size, len(spatial))
        if not all([is_int(number) and abs(number) < NO_LENGTH for number in sizes]):
            raise TypeError(f"size must be of ints less than 2⁶³, but got {size}")
        return sizes, [None] * len(spatial)
    factors = _for_each("scale_factor", scale_factor, len(spatial))
    if not all([abs(length * factor) < NO_LENGTH for length, factor in zip(spatial, factors, strict=True)]):  # or NaN
        raise RuntimeError(
            f"value cannot be converted to type int64_t without overflow: scale_factor={scale_factor} of an input of "
            f"size {list(spatial)}"
        )
    sizes = [math.floor(length * factor) for length, factor in zip(spatial, factors, strict=True)]
    return sizes, [None] * len(spatial) if recompute_scale_factor else factors


def _for_each(name: str, value: object, dims: int) -> list:
    values = list(value) if isinstance(value, (tuple, list)) else [value] * dims
    if len(values) != dims:
        raise ValueError(f"{name} must have a number for each of {dims} spatial dimensions, but got {value}")
    return values

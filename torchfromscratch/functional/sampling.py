"""Sampling of images and volumes at places that a grid names, and the grids of affine maps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor

from torchfromscratch.autograd import sampling as autograd
from torchfromscratch.functional.arguments import not_implemented, scalar_type
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.kernels.buffers import no_view

__all__ = ["affine_grid", "grid_sample"]

MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")


@autocast(cpu="float32", cuda="float32")
def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """The elements of an image or volume at the places that `grid` names, between its pixels.

    y[p] = Σ_k w_k(p) · x[i_k(p)] over the pixels i_k around p, with dL/dx[i] = Σ w_k · dL/dy[p] over the k and p with
    i_k(p) = i, and dL/dgrid[p] = Σ_k dw_k/dgrid · Σ_c x[c, i_k] · dL/dy[c, p].

    Args:
        input: (N, C, H, W) or (N, C, D, H, W).
        grid: (N, H', W', 2) of (x, y) → y (N, C, H', W'), or (N, D', H', W', 3) of (x, y, z) → (N, C, D', H', W').
            −1 and 1 are the ends of an axis.
        mode: "bilinear" (in volumes: trilinear), "nearest", or of images "bicubic".
        padding_mode: outside there are "zeros", the "border"'s pixels, or those of a "reflection".
        align_corners: whether the ends are the outer pixels' centres, or their edges (False, also with a warning if
            nothing is said).

    Raises ValueError for another mode or padding, RuntimeError for shapes and types that do not fit.
    Source: M. Jaderberg et al., "Spatial Transformer Networks", 2015.
    """
    if mode not in MODES:
        raise ValueError(
            f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'"
        )
    if padding_mode not in PADDINGS:
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', "
            f"but got: '{padding_mode}'"
        )
    _check_sizes(input, grid, mode)
    places = grid.flatten(1, -2)
    output = autograd.grid_sample(input, places, mode, padding_mode, _align_corners(align_corners))
    return no_view(output, (*input.shape[:2], *grid.shape[1:-1]))


@autocast(cpu="lower", cuda="lower")
def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The places of `grid_sample` that an affine map makes of regular ones: grid[p] = A (p, 1).

    dL/dA = Σ_p dL/dgrid[p] (p, 1)ᵀ.
    theta (N, 2, 3) for a size (N, C, H, W) → (N, H, W, 2), or (N, 3, 4) for a size (N, C, D, H, W) → (N, D, H, W, 3).
    `align_corners` as in `grid_sample`. Raises ValueError for types, shapes and sizes that do not fit,
    NotImplementedError for a size of another length. Source: as of `grid_sample`.
    """
    align_corners = _align_corners(align_corners)
    if not theta.is_floating_point():
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    if len(size) not in (4, 5):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. "
            f"Got size {size}."
        )
    dims = len(size) - 2
    if theta.dim() != 3 or theta.shape[1:] != (dims, dims + 1):
        raise ValueError(
            f"Expected a batch of {dims}D affine matrices of shape Nx{dims}x{dims + 1} for size {size}. "
            f"Got {theta.shape}."
        )
    spatial = size[2:]
    if align_corners and min(spatial) == 1:
        warnings.warn("affine_grid with align_corners=True puts the one place of an axis in its middle", stacklevel=3)
    elif min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {size}")
    if theta.shape[0] != size[0]:
        raise RuntimeError(f"Expected a matrix for each of {size[0]} samples of size {size}, but got {theta.shape[0]}")
    grid = autograd.affine_grid(theta, tuple(spatial), align_corners)
    return no_view(grid, (size[0], *spatial, dims))


def _align_corners(align_corners: bool | None) -> bool:
    if align_corners is None:
        warnings.warn(
            "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. "
            "Please specify align_corners=True if the old behavior is desired.",
            stacklevel=4,
        )
    return bool(align_corners)


def _check_sizes(input: Tensor, grid: Tensor, mode: str) -> None:
    sizes = f"but got input with sizes {list(input.shape)} and grid with sizes {list(grid.shape)}"
    if input.dim() not in (4, 5) or input.dim() != grid.dim():
        if input.shape[:1] != grid.shape[:1]:
            raise RuntimeError(f"grid_sampler(): expected grid and input to have same batch size, {sizes}")
        raise RuntimeError(f"grid_sampler(): expected 4D or 5D input and grid with same number of dimensions, {sizes}")
    if input.shape[0] != grid.shape[0]:
        raise RuntimeError(f"grid_sampler(): expected grid and input to have same batch size, {sizes}")
    if grid.shape[-1] != input.dim() - 2:
        raise RuntimeError(
            f"grid_sampler(): expected grid to have size {input.dim() - 2} in last dimension, "
            f"but got grid with sizes {list(grid.shape)}"
        )
    if 0 in input.shape[2:]:
        raise RuntimeError(f"grid_sampler(): expected input to have non-empty spatial dimensions, {sizes}")
    if mode == "bicubic" and input.dim() == 5:
        raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
    if not input.is_floating_point():
        raise not_implemented("grid_sample", input.dtype)
    if input.dtype != grid.dtype:
        raise RuntimeError(
            f"grid_sampler(): expected scalar type {scalar_type(input.dtype)} but found {scalar_type(grid.dtype)}"
        )

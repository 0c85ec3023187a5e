"""Sampling of images and volumes at places between their pixels, which a grid names.

A place's coordinate from −1 to 1 becomes a position u among the pixels, which padding may move inside. Around it the
pixels i = ⌊u⌋ + k count with a weight w_k(t) of the fraction t = u − ⌊u⌋, the product of those along each axis:

    y[p] = Σ_k w_k(t_p) · x[i_k(p)]

    bilinear   1 − t, t
    nearest    1 for the nearest
    bicubic    Keys' polynomials of the distances 1 + t, t, 1 − t, 2 − t

    dL/dx[i] = Σ w_k · dL/dy[p] over the k and p with i_k(p) = i
    dL/du    = Σ_k dw_k/dt · Σ_c x[c, i_k] · dL/dy[c]          times du/dgrid

y is the partial gradient of a trilinear form of x, w and dL/dy, and so are the sums in its derivatives: three Functions
that are each other's derivatives. Of a grid that an affine map makes, the coordinates are linear in the map.

Source: M. Jaderberg et al., "Spatial Transformer Networks", 2015; R. Keys, "Cubic convolution interpolation for digital
image processing", 1981.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import (
    Function,
    bilinear_tangent,
    differentiable,
    map_over_batch,
    restore,
    save,
)
from torchfromscratch.autograd.linear_map import linear_pair
from torchfromscratch.kernels import sampling as kernel
from torchfromscratch.kernels import shifted_sampling as shifted_kernel
from torchfromscratch.kernels.blocking import batch_blocks
from torchfromscratch.kernels.positions import Axis, Taps
from torchfromscratch.kernels.precision import widen

BUFFERS = 6  # of each tap of each place: its index and weight, and what they are computed from


class GridSample(Function):
    """y[n, c, p] = Σ_k w_k(t) · x[n, c, i_k], of the positions that grid[n, p] names.

    x (N, C, *spatial), grid (N, P, dims), whose last dimension counts x's axes from the last → y (N, C, P).
    """

    @staticmethod
    def forward(input: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:
        if shifted_kernel.fits(input, grid, mode, padding):
            return shifted_kernel.sample(input, grid, mode, padding, align_corners).to(input.dtype)
        places = math.prod(grid.shape[1:-1])
        blocks = []
        for block in batch_blocks(input, BUFFERS * places * 2 ** len(input.shape[2:])):
            index, weights, _ = _positions(input.shape[2:], grid[block], mode, padding, align_corners, False)
            blocks.append(kernel.weighted_sum(_pixels(input[block]), weights, index))
        return torch.cat(blocks).to(input.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        input, grid = restore(ctx)
        needs_input, needs_grid, *_ = ctx.needs_input_grad
        mode, padding, align_corners = ctx.options
        if shifted_kernel.fits(grad_output, grid, mode, padding):
            given = input, grid, grad_output, ctx.spatial
            grads = shifted_kernel.gradients(*given, mode, padding, align_corners, needs_input, needs_grid)
            return *[None if grad is None else grad.to(grid.dtype) for grad in grads], None, None, None
        index, weights, slopes = _positions(ctx.spatial, grid, *ctx.options)
        g = widen(grad_output)
        grad_input = grad_grid = None
        if needs_input:
            grad_input = spread(g, weights, index, math.prod(ctx.spatial))
            grad_input = grad_input.view(*g.shape[:2], *ctx.spatial).to(grad_output.dtype)
        if needs_grid:
            products = dots(g, _pixels(input), index)
            grad_grid = torch.stack([(slope * products).sum(1) for slope in slopes], -1).to(grid.dtype)
        return grad_input, grad_grid, None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, grid, *ctx.options = inputs
        ctx.spatial = input.shape[2:]
        _, needs_grid, *_ = ctx.needs_input_grad
        save(ctx, (input, grid), (needs_grid, True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return map_over_batch(grid_sample, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor | None, grid_t: Tensor | None, *_: None) -> Tensor:
        input, grid = restore(ctx)
        index, weights, slopes = _positions(ctx.spatial, grid, *ctx.options)
        pixels_t = weights_t = None
        if input_t is not None:
            pixels_t = _pixels(input_t)
        if grid_t is not None:
            weights_t = reduce(torch.add, [slope * grid_t[..., n].unsqueeze(1) for n, slope in enumerate(slopes)])
        return bilinear_tangent(weighted_sum, (_pixels(input), weights), (pixels_t, weights_t), index).to(input.dtype)


class WeightedSum(Function):
    """y[n, c, p] = Σ_k w[n, k, p] · x[n, c, i[n, k, p]]: the gradient of the trilinear form by g."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, index: Tensor) -> Tensor:
        return kernel.weighted_sum(x, w, index)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        x, w, index = restore(ctx)
        needs_x, needs_w, _ = ctx.needs_input_grad
        grad_x = spread(grad_output, w, index, ctx.size) if needs_x else None
        return grad_x, dots(grad_output, x, index) if needs_w else None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, w, index = inputs
        ctx.size = x.shape[2]
        needs_x, needs_w, _ = ctx.needs_input_grad
        save(ctx, (x, w, index), (needs_w, needs_x, True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return map_over_batch(weighted_sum, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, w_t: Tensor | None, _: None) -> Tensor:
        x, w, index = restore(ctx)
        return bilinear_tangent(weighted_sum, (x, w), (x_t, w_t), index)


class Spread(Function):
    """x[n, c, i] = Σ w[n, k, p] · g[n, c, p] over the k and p with i[n, k, p] = i: the gradient of the form by x."""

    @staticmethod
    def forward(g: Tensor, w: Tensor, index: Tensor, size: int) -> Tensor:
        return kernel.weighted_sum_transpose(g, w, index, size)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        g, w, index = restore(ctx)
        needs_g, needs_w, *_ = ctx.needs_input_grad
        grad_g = weighted_sum(grad_output, w, index) if needs_g else None
        return grad_g, dots(g, grad_output, index) if needs_w else None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        g, w, index, ctx.size = inputs
        needs_g, needs_w, *_ = ctx.needs_input_grad
        save(ctx, (g, w, index), (needs_w, needs_g, True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return map_over_batch(spread, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, g_t: Tensor | None, w_t: Tensor | None, *_: None) -> Tensor:
        g, w, index = restore(ctx)
        return bilinear_tangent(spread, (g, w), (g_t, w_t), index, ctx.size)


class Dots(Function):
    """w[n, k, p] = Σ_c g[n, c, p] · x[n, c, i[n, k, p]]: the gradient of the form by w."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, index: Tensor) -> Tensor:
        return kernel.dots(g, x, index)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        g, x, index = restore(ctx)
        needs_g, needs_x, _ = ctx.needs_input_grad
        grad_g = weighted_sum(x, grad_output, index) if needs_g else None
        return grad_g, spread(g, grad_output, index, ctx.size) if needs_x else None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        g, x, index = inputs
        ctx.size = x.shape[2]
        needs_g, needs_x, _ = ctx.needs_input_grad
        save(ctx, (g, x, index), (needs_x, needs_g, True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return map_over_batch(dots, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, g_t: Tensor | None, x_t: Tensor | None, _: None) -> Tensor:
        g, x, index = restore(ctx)
        return bilinear_tangent(dots, (g, x), (g_t, x_t), index)


def _affine_grid(theta: Tensor, spatial: Sequence[int], align_corners: bool) -> Tensor:
    """grid[n, p] = A_n (p, 1): A (N, d, d + 1), places p of a regular grid → grid (N, P, d)."""
    return kernel.regular_grid(theta, spatial, align_corners) @ theta.mT


def _affine_grid_transpose(grad: Tensor, spatial: Sequence[int], align_corners: bool) -> Tensor:
    """dL/dA_n = Σ_p dL/dgrid[n, p] (p, 1)ᵀ."""
    return grad.mT @ kernel.regular_grid(grad, spatial, align_corners)


grid_sample = differentiable(GridSample)
weighted_sum = differentiable(WeightedSum)
spread = differentiable(Spread)
dots = differentiable(Dots)
affine_grid, _ = linear_pair("AffineGrid", _affine_grid, _affine_grid_transpose)


def _pixels(x: Tensor) -> Tensor:
    """(N, C, *spatial) → (N, C, all pixels)."""
    return widen(x).reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _positions(
    spatial: Sequence[int], grid: Tensor, mode: str, padding: str, align_corners: bool, with_slopes: bool = True
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The pixels i_k around each place, their weights, and how these change with each coordinate: (N, K, P) each."""
    axes = [
        Axis(length, mode, padding, align_corners).taps(widen(grid[..., axis]), with_slopes)
        for axis, length in enumerate(reversed(spatial))
    ]
    weights, numbers = [taps.weights for taps in axes], range(len(axes))
    slopes = [_product([_of_axis(axes[n], n == axis) for n in numbers]) for axis in numbers if with_slopes]
    return _flat_index(axes, spatial), _product(weights), slopes


def _of_axis(taps: Taps, moves: bool) -> Tensor:
    """The weights along an axis, or how they change as the position moves along it."""
    return taps.slopes if moves and taps.slopes is not None else taps.weights


def _product(factors: Sequence[Tensor]) -> Tensor:
    """Of the weights of each axis, the last axis first: all products, those of the last axis changing fastest."""
    return reduce(lambda inner, outer: (outer.unsqueeze(2) * inner.unsqueeze(1)).flatten(1, 2), factors)


def _flat_index(axes: Sequence[Taps], spatial: Sequence[int]) -> Tensor:
    index, stride = axes[0].pixels, spatial[-1]
    for taps, length in zip(axes[1:], reversed(spatial[:-1]), strict=True):
        index = ((taps.pixels * stride).unsqueeze(2) + index.unsqueeze(1)).flatten(1, 2)
        stride = stride * length
    return index

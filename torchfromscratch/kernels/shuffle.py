"""Depth to space, space to depth, and groups of channels transposed: one copy each, in the input's memory format."""

from __future__ import annotations

from torch import Tensor

from torchfromscratch.kernels.layout import any_channels_last, empty


def depth_to_space(x: Tensor, r: int) -> Tensor:
    """(N, C·r², H, W) → (N, C, H·r, W·r)."""
    n, c, h, w = x.shape
    output = empty((n, c // r**2, h * r, w * r), any_channels_last(x), like=x)
    output.view(n, c // r**2, h, r, w, r).copy_(x.view(n, c // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3))
    return output


def space_to_depth(x: Tensor, r: int) -> Tensor:
    """(N, C, H·r, W·r) → (N, C·r², H, W)."""
    n, c, h, w = x.shape[0], x.shape[1], x.shape[2] // r, x.shape[3] // r
    output = empty((n, c * r**2, h, w), any_channels_last(x), like=x)
    output.view(n, c, r, r, h, w).copy_(x.view(n, c, h, r, w, r).permute(0, 1, 3, 5, 2, 4))
    return output


def transpose_groups(x: Tensor, groups: int) -> Tensor:
    """(N, G·C, …) → (N, C·G, …): what were the first channels of the groups come first."""
    n, c, *spatial = x.shape
    output = empty(x.shape, any_channels_last(x), like=x)
    output.view(n, c // groups, groups, *spatial).copy_(x.view(n, groups, c // groups, *spatial).transpose(1, 2))
    return output

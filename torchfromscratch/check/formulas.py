"""Each layer's definition, by plain operations: what an implementation is judged by.

Nothing here is fast, and nothing is a layer's kernel. Autograd differentiates the definitions, to any order;
finite differences confirm it in every case. Signatures and argument names are torch.nn.functional's, but for
options that change nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Size = int | Sequence[int]


def as_tuple(size: Size, dims: int) -> tuple[int, ...]:
    """`size` along each of `dims` dimensions."""
    return (size,) * dims if isinstance(size, int) else tuple(size)


# Windows


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """`x` with `value` before and after its last dimensions; negative numbers crop."""
    for dim, (low, high) in enumerate(zip(before, after, strict=True), x.dim() - len(before)):
        x = x.narrow(dim, max(0, -low), x.shape[dim] - max(0, -low) - max(0, -high))
        borders = [x.new_full((*x.shape[:dim], max(0, n), *x.shape[dim + 1 :]), value) for n in (low, high)]
        x = torch.cat([borders[0], x, borders[1]], dim)
    return x


def windows(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """(…, O1, O2, K1, K2): what lies below the kernel, at each of its positions."""
    dims = len(kernel)
    for dim, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), x.dim() - dims):
        x = x.unfold(dim, d * (k - 1) + 1, s)
    taps = [slice(None, None, d) for d in dilation]
    index: Any = (..., *taps)
    return x[index]


def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """y[n, o, i] = b[o] + Σ w[o, c, k] · x[n, c, i·s + k·d − p]."""
    dims = weight.dim() - 2
    p = as_tuple(padding, dims)
    x = windows(pad(input, p, p), weight.shape[2:], as_tuple(stride, dims), as_tuple(dilation, dims))
    positions, taps = "ijk"[:dims], "xyz"[:dims]
    x = x.unflatten(1, (groups, input.shape[1] // groups))
    w = weight.unflatten(0, (groups, weight.shape[0] // groups))
    y = torch.einsum(f"ngc{positions}{taps},goc{taps}->ngo{positions}", x, w).flatten(1, 2)
    return y if bias is None else y + bias.view(-1, *[1] * dims)


def conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """y[n, o, i·s + k·d − p] += w[c, o, k] · x[n, c, i], and b[o] everywhere."""
    dims = weight.dim() - 2
    s, p, d = as_tuple(stride, dims), as_tuple(padding, dims), as_tuple(dilation, dims)
    kernel = weight.shape[2:]
    reach = [step * (k - 1) for step, k in zip(d, kernel, strict=True)]
    spread = spread_out(input, s)
    extra = [r - q for r, q in zip(reach, p, strict=True)]
    behind = [e + o for e, o in zip(extra, as_tuple(output_padding, dims), strict=True)]
    w = weight.unflatten(0, (groups, weight.shape[0] // groups)).transpose(1, 2).flatten(0, 1)
    return conv(pad(spread, extra, behind), w.flip(*range(2, 2 + dims)), bias, 1, 0, d, groups)


def spread_out(x: Tensor, stride: Sequence[int]) -> Tensor:
    """`x` with s − 1 zeros between neighbours."""
    for dim, s in enumerate(stride, x.dim() - len(stride)):
        if s > 1:
            zeros = x.new_zeros(*x.shape[: dim + 1], s - 1, *x.shape[dim + 1 :])
            x = torch.cat([x.unsqueeze(dim + 1), zeros], dim + 1).flatten(dim, dim + 1)
            x = x.narrow(dim, 0, max(0, x.shape[dim] - s + 1))
    return x

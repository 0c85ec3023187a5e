"""Distances between vectors, their cosines, and vectors of length one."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch.autograd import distance as autograd
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.precision import widen

__all__ = ["cosine_similarity", "normalize", "pairwise_distance", "pdist"]


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """x / max(‖x‖ₚ, ε) along `dim`, with dL/dx = (dL/dy − s · Σ dL/dy · y) / ‖x‖ₚ and s = d‖x‖ₚ/dx.

    The bound ε stops the second term. Of any shape, and of complex numbers; `out` takes the result in place.
    Raises RuntimeError for integers.
    """
    x = widen(input)
    n = autograd.clamped(autograd.norm(x, p, dim), eps).expand_as(x)
    normalized = autograd.quotient(x, n.to(x.dtype)).to(input.dtype)
    return normalized if out is None else torch.mul(normalized, 1, out=out)


@autocast(cpu="as given", cuda="float32")
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Σ x₁ · x₂ / (max(‖x₁‖, ε) · max(‖x₂‖, ε)) along `dim`, with dL/dx₁ = dL/dy · (x₂/‖x₂‖ − y · x₁/‖x₁‖) / ‖x₁‖.

    Shapes are broadcast, types promoted. Raises RuntimeError for integers.
    """
    dtype = torch.promote_types(x1.dtype, x2.dtype)
    if not dtype.is_floating_point:
        raise RuntimeError(f"expected common dtype to be floating point, yet common dtype is {dtype}")
    shape = torch.broadcast_shapes(x1.shape, x2.shape)
    units = []
    for x in (x1, x2):
        x = widen(x.to(dtype)).expand(shape)
        n = autograd.at_least(autograd.norm(x, 2.0, dim), eps)
        units.append(autograd.quotient(x, n.expand(shape)))
    return autograd.dot(*units, dim).to(dtype)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """‖x₁ − x₂ + ε‖ₚ along the last dimension, with dL/dx₁ = dL/dy · sgn(d) · (|d| / y)^(p−1), d = x₁ − x₂ + ε.

    Shapes are broadcast.
    """
    difference = x1 - x2 + float(eps)
    distance = autograd.norm(widen(difference), p, -1)
    if not keepdim:
        distance = no_view(distance, distance.shape[:-1])
    return distance if difference.is_complex() else distance.to(difference.dtype)


@autocast(cpu="as given", cuda="float32")
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """‖xᵢ − xⱼ‖ₚ of each pair of rows i < j, in their order.

    dL/dxᵢ = Σⱼ dL/dyᵢⱼ · sgn(d) · (|d| / yᵢⱼ)^(p−1) with d = xᵢ − xⱼ.

    Shapes: input (N, D) → (N·(N − 1) / 2). Raises RuntimeError for another number of dimensions, p < 0 and integers.
    """
    if input.dim() != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.dim()}D")
    if p < 0:
        raise RuntimeError(f"pdist only supports non-negative p values, but got {p}")
    if not input.is_floating_point():
        raise RuntimeError(f"pdist only supports floating-point dtypes, but got {input.dtype}")
    return autograd.pair_distances(widen(input), float(p)).to(input.dtype)

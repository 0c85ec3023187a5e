"""Distances: the length of a vector, and how two vectors meet.

    norm      n = (Σ |x|ᵖ)^(1/p)      dL/dx = dL/dn · sgn(x) · (|x| / n)^(p−1), 0 where n = 0
    dot       y = Σ a · b             dL/da = dL/dy · b        dL/db = dL/dy · a
    quotient  y = x / n               dL/dx = dL/dy / n        dL/dn = − dL/dy · x / n²

Cosines, normalised vectors and distances between pairs are made of these. The lengths to divide by are kept from 0 by
a least one, which either stops the gradient (`clamped`) or lets it pass (`at_least`), as each is defined in torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.elementwise import elementwise
from torchfromscratch.autograd.function import Function, differentiable, restore, save
from torchfromscratch.kernels.blocking import batch_blocks
from torchfromscratch.kernels.execution import has_concrete_values, in_cpu_memory, is_differentiating
from torchfromscratch.kernels.precision import widen

quotient = elementwise(
    "Quotient",
    lambda x, n: x / n,
    dx=lambda g, n: g / n,
    dn=lambda g, x, n: -g * (x / n) / n,
)
clamped = elementwise(
    "Clamped",  # max(n, ε)
    lambda n, least: n.clamp(min=least),
    dn=lambda g, n, least: g.masked_fill(n <= least, 0),
    exact=True,
)
at_least = elementwise(
    "AtLeast",  # the same, as if it had no bound when it is differentiated
    lambda n, least: n.clamp(min=least),
    dn=lambda g: g,
    exact=True,
)


class Norm(Function):
    """n = (Σ |x|ᵖ)^(1/p) over the dimensions `dim`, which are kept as ones; max |x| of p = ∞, min |x| of p = −∞."""

    @staticmethod
    def forward(x: Tensor, p: float, dim: int | tuple[int, ...]) -> Tensor:
        return torch.linalg.vector_norm(x, p, dim, keepdim=True)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        x, n = restore(ctx)
        return _norm_dx(grad_output, x, n, ctx.p, ctx.dim), None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, ctx.p, ctx.dim = inputs
        save(ctx, (x, output))

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, *_: None) -> Tensor:
        x, n = restore(ctx)
        moved = _norm_dx(torch.ones_like(n), x, n, ctx.p, ctx.dim).conj() * x_t
        return (moved.real if moved.is_complex() else moved).sum(ctx.dim, keepdim=True)


def _norm_dx(g: Tensor, x: Tensor, n: Tensor, p: float, dim: int | tuple[int, ...]) -> Tensor:
    """dL/dn · dn/dx; those that are the largest, or the least, share what there is between them."""
    if p == 0:
        return torch.zeros_like(x)
    if math.isinf(p):
        winners = x.abs() == n
        return x.sgn() * (g / winners.sum(dim, keepdim=True) * winners)
    if p == 1:
        return x.sgn() * g
    g, n = _over_length(g, n), n.masked_fill(n == 0, 1)
    if p == 2:
        return x * g
    slope = (x.abs() / n).pow(p - 1)
    return x.sgn() * (g * n * (slope.masked_fill(x == 0, 0) if p < 1 else slope))


def _over_length(g: Tensor, n: Tensor) -> Tensor:
    """g / n, 0 where n is, with derivatives that are numbers there."""
    return (g / n.masked_fill(n == 0, 1)).masked_fill(n == 0, 0)


class Dot(Function):
    """y = Σ a · b along `dim`, of real numbers. a, b of one shape → y without `dim`, in float32 or wider."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, dim: int) -> Tensor:
        return (widen(a) * widen(b)).sum(dim)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        a, b = restore(ctx)
        g = grad_output.unsqueeze(ctx.dim)
        needs_a, needs_b, _ = ctx.needs_input_grad
        grad_a = (g * widen(b)).to(b.dtype) if needs_a else None
        grad_b = (g * widen(a)).to(a.dtype) if needs_b else None
        return grad_a, grad_b, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        a, b, ctx.dim = inputs
        needs_a, needs_b, _ = ctx.needs_input_grad
        save(ctx, (a, b), needed=(needs_b, needs_a))

    @staticmethod
    def jvp(ctx: Any, a_t: Tensor, b_t: Tensor, _: None) -> Tensor:
        a, b = restore(ctx)
        return (widen(a_t) * widen(b) + widen(a) * widen(b_t)).sum(ctx.dim)


class PairDistances(Function):
    """n = ‖xᵢ − xⱼ‖ₚ of each pair of rows i < j, in their order.

    x (N, D) → n (N·(N − 1) / 2).
    """

    @staticmethod
    def forward(x: Tensor, p: float) -> Tensor:
        return torch.cat([_above_diagonal(torch.linalg.vector_norm(d, p, -1)) for _, d in _differences(x)])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        x, n = restore(ctx)
        g, n = _of_both_orders(grad_output, len(x)), _of_both_orders(n, len(x))
        return torch.cat([_pairs_dx(g[rows], d, n[rows], ctx.p) for rows, d in _differences_to_all(x)]), None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, ctx.p = inputs
        save(ctx, (x, output))

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, _: None) -> Tensor:
        x, n = restore(ctx)
        n = _of_both_orders(n, len(x)).unsqueeze(-1)
        moved = []
        for (rows, d), (__, d_t) in zip(_differences(x), _differences(x_t), strict=True):
            of_rows = n[rows, rows.start :]
            moved.append(_above_diagonal((_norm_dx(torch.ones_like(of_rows), d, of_rows, ctx.p, -1) * d_t).sum(-1)))
        return torch.cat(moved)


def _pairs_dx(g: Tensor, d: Tensor, n: Tensor, p: float) -> Tensor:
    """Σⱼ dL/dn · dn/dx of differences d (rows, N, D) and their norms n (rows, N); of p = 2, a product of matrices."""
    if p == 2:
        return (_over_length(g, n).unsqueeze(1) @ d).squeeze(1)
    return _norm_dx(g.unsqueeze(-1), d, n.unsqueeze(-1), p, -1).sum(1)


def _blocks_of_rows(x: Tensor) -> list[slice]:
    return batch_blocks(x, x.numel())


def _differences(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """xᵢ − xⱼ for a block of rows i at a time, and all rows j from its first on."""
    for rows in _blocks_of_rows(x):
        yield rows, x[rows, None] - x[None, rows.start :]


def _differences_to_all(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """xᵢ − xⱼ for a block of rows i at a time, and all rows j; on a CPU each block overwrites the one before."""
    memory: Tensor | None = None
    for rows in _blocks_of_rows(x):
        if is_differentiating() or not in_cpu_memory(x):
            yield rows, x[rows, None] - x
            continue
        memory = x.new_empty(len(x[rows]), *x.shape) if memory is None else memory
        yield rows, torch.sub(x[rows, None], x, out=memory[: len(x[rows])])


def _above_diagonal(matrix: Tensor) -> Tensor:
    """The elements of the columns behind the row's own, row after row."""
    if has_concrete_values(matrix):  # indices take longer to compute than the distances
        return matrix.masked_select(torch.ones_like(matrix, dtype=torch.bool).triu_(1))
    rows, columns = matrix.shape
    i, j = torch.triu_indices(rows, columns, 1, device=matrix.device)
    return matrix[i, j]


def _of_both_orders(values: Tensor, count: int) -> Tensor:
    """A value for each pair i < j of `count` as a symmetric matrix, 0 on its diagonal."""
    i, j = torch.triu_indices(count, count, 1, device=values.device)
    upper = values.new_zeros(count, count).index_put((i, j), values)
    return upper + upper.mT


norm = differentiable(Norm)
dot = differentiable(Dot)
pair_distances = differentiable(PairDistances)

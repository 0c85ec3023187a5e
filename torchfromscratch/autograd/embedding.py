"""Embedding: rows are looked up in a table, and gradients are added to the rows that they come from.

    gather       y[i] = W[index of i]
    scatter_add  W[v] = Σ y[i] over the i with index v      the transpose of gather

The layer, Lookup, is gather whose gradient leaves out the padding, if asked to, or is divided by frequency.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, save, saved
from torchfromscratch.autograd.linear_map import linear_pair
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.precision import widened


def _gather(weight: Tensor, index: Tensor) -> Tensor:
    """y[i] = W[index of i]: W (V, D), index (*) → y (*, D)."""
    rows = weight.index_select(0, index.reshape(-1))
    return no_view(rows, (*index.shape, weight.shape[1]))


def _scatter_add(grad: Tensor, index: Tensor, rows: int) -> Tensor:
    """W[v] = Σ y[i] over all i whose index is v: y (*, D), index (*) → W (rows, D)."""
    g = widened(grad).reshape(index.numel(), grad.shape[-1])
    return g.new_zeros(rows, g.shape[1]).index_add(0, index.reshape(-1), g).to(grad.dtype)


class Lookup(Function):
    """y[i] = W[index of i], with the gradient of torch.nn.functional.embedding.

    W (V, D), index (*) → y (*, D). Rows of `padding_idx` receive no gradient; `by_frequency` divides each
    row's by how often it is looked up; `sparse` makes the gradient a sparse tensor.
    """

    @staticmethod
    def forward(weight: Tensor, index: Tensor, padding_idx: int | None, by_frequency: bool, sparse: bool) -> Tensor:
        return _gather(weight, index)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        (index,) = saved(ctx)
        if ctx.sparse:
            if ctx.by_frequency:
                raise RuntimeError("a sparse gradient of an embedding cannot be scaled by frequency")
            return _sparse_rows(grad_output, index, ctx.rows, ctx.padding_idx), None, None, None, None
        if ctx.padding_idx is not None:
            grad_output = grad_output.masked_fill((index == ctx.padding_idx).unsqueeze(-1), 0)
        if ctx.by_frequency:
            grad_output = grad_output / _frequency(index, ctx.rows).unsqueeze(-1)
        return scatter_add(grad_output, index, ctx.rows), None, None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        weight, index, ctx.padding_idx, ctx.by_frequency, ctx.sparse = inputs
        ctx.rows = weight.shape[0]
        save(ctx, (index,))

    @staticmethod
    def jvp(ctx: Any, weight_t: Tensor, *_: None) -> Tensor:
        (index,) = saved(ctx)
        return gather(weight_t, index)


lookup = differentiable(Lookup)
gather, scatter_add = linear_pair(
    "Gather", _gather, _scatter_add, saves=1, remember=lambda weight, index: (weight.shape[0],)
)


def _frequency(index: Tensor, rows: int) -> Tensor:
    """How often each index occurs, in the place of each occurrence."""
    flat = index.reshape(-1)
    counts = flat.new_zeros(rows).index_add(0, flat, torch.ones_like(flat))
    return counts.index_select(0, flat).view(index.shape)


def _sparse_rows(grad: Tensor, index: Tensor, rows: int, padding_idx: int | None) -> Tensor:
    """ScatterAdd as the list of its terms, which is empty where they are."""
    index, grad = index.reshape(-1), grad.reshape(index.numel(), grad.shape[-1])
    if grad.numel() == 0:
        index, grad = index[:0], grad[:0]
    if padding_idx is not None:
        used = index != padding_idx
        index, grad = index[used], grad[used]
    return torch.sparse_coo_tensor(index.unsqueeze(0), grad, (rows, grad.shape[1]), check_invariants=False)

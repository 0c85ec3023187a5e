"""Embedding: rows are looked up in a table, and gradients are added to the rows that they come from.

    gather       y[i] = W[index of i]
    scatter_add  W[v] = Σ y[i] over the i with index v      the transpose of gather

The layer, Lookup, is gather whose gradient leaves out the padding, if asked to, or is divided by frequency.

A bag b of rows is reduced to one. Its sum is linear in the table W and in the weights s of its members:

    bag_sum      y[b] = Σ s[i] · W[index of i] over the i in b
    dL/dW = scatter_add(s[i] · dL/dy[bag of i])         dL/ds[i] = dL/dy[bag of i] · W[index of i]

Its maximum fetches each element from the row that wins it:

    take_rows    y[b, d] = W[winner of (b, d), d]       transpose: W[v, d] = Σ y[b, d] over the b that v wins
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, bilinear_tangent, differentiable, restore, save
from torchfromscratch.autograd.linear_map import linear_pair
from torchfromscratch.kernels import bags as kernel
from torchfromscratch.kernels import triton
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.execution import in_cpu_memory
from torchfromscratch.kernels.precision import widen


def _gather(weight: Tensor, index: Tensor) -> Tensor:
    """y[i] = W[index of i]: W (V, D), index (*) → y (*, D)."""
    kernels = _by_triton(weight, index)
    if kernels is not None:
        return kernels.look_up(weight, index)
    rows = weight.index_select(0, index.reshape(-1))
    return no_view(rows, (*index.shape, weight.shape[1]))


def _scatter_add(grad: Tensor, index: Tensor, rows: int) -> Tensor:
    """W[v] = Σ y[i] over all i whose index is v: y (*, D), index (*) → W (rows, D)."""
    kernels = _by_triton(grad, index) if rows else None
    if kernels is not None:
        return kernels.table_gradient(grad, index, rows)
    g = widen(grad).reshape(index.numel(), grad.shape[-1])
    total = g.new_zeros(rows, g.shape[1])
    add = total.index_add_ if in_cpu_memory(g, index) else total.index_add
    return add(0, index.reshape(-1), g).to(grad.dtype)


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
        (index,) = restore(ctx)
        gradient = _table_gradient(grad_output, index, ctx.rows, ctx.padding_idx, ctx.by_frequency, ctx.sparse)
        return gradient, None, None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        weight, index, ctx.padding_idx, ctx.by_frequency, ctx.sparse = inputs
        ctx.rows = weight.shape[0]
        save(ctx, (index,))

    @staticmethod
    def jvp(ctx: Any, weight_t: Tensor, *_: None) -> Tensor:
        (index,) = restore(ctx)
        return gather(weight_t, index)


class BagSum(Function):
    """y[b] = Σ s[i] · W[index of i] over the members i of each bag b, with the gradient of torch's embedding_bag.

    W (V, D), s (M) or None for ones, index (M), the offsets (B) of the bags → y (B, D). The other arguments as of
    Lookup; members that name `padding_idx` are in no bag.
    """

    @staticmethod
    def forward(
        weight: Tensor,
        scale: Tensor | None,
        index: Tensor,
        offsets: Tensor,
        padding_idx: int | None,
        by_frequency: bool,
        sparse: bool,
    ) -> Tensor:
        return kernel.bag_sum(weight, scale, index, offsets, padding_idx)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        weight, scale, index, offsets = restore(ctx)
        needs_weight, needs_scale, *_ = ctx.needs_input_grad
        of_member = gather(grad_output, kernel.bag_index(index, offsets))
        grad_weight = grad_scale = None
        if needs_weight:
            g = of_member if scale is None else of_member * scale.unsqueeze(-1)
            grad_weight = _table_gradient(g, index, ctx.rows, ctx.padding_idx, ctx.by_frequency, ctx.sparse)
        if needs_scale:
            products = (widen(of_member) * widen(gather(weight, index))).sum(-1).to(grad_output.dtype)
            grad_scale = _without_padding(products, index, ctx.padding_idx)
        return grad_weight, grad_scale, *[None] * 5

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        weight, scale, index, offsets, ctx.padding_idx, ctx.by_frequency, ctx.sparse = inputs
        ctx.rows = weight.shape[0]
        needs_weight, needs_scale, *_ = ctx.needs_input_grad
        save(ctx, (weight, scale, index, offsets), (needs_scale, needs_weight, True, True))

    @staticmethod
    def jvp(ctx: Any, weight_t: Tensor | None, scale_t: Tensor | None, *_: None) -> Tensor:
        weight, scale, index, offsets = restore(ctx)
        rest = index, offsets, ctx.padding_idx, False, False
        return bilinear_tangent(bag_sum, (weight, scale), (weight_t, scale_t), *rest)


lookup = differentiable(Lookup)
bag_sum = differentiable(BagSum)
gather, scatter_add = linear_pair(
    "Gather", _gather, _scatter_add, saves=1, remember=lambda weight, index: (weight.shape[0],)
)
take_rows, _ = linear_pair(
    "TakeRows",  # y[b, d] = W[winner of (b, d), d], and 0 where there is none
    kernel.take_rows,
    kernel.take_rows_transpose,
    saves=1,
    remember=lambda weight, winners: (weight.shape[0],),
)


def _table_gradient(
    grad: Tensor, index: Tensor, rows: int, padding_idx: int | None, by_frequency: bool, sparse: bool
) -> Tensor:
    """dL/dW[v] = Σ of the gradients of what was looked up in row v; 0 for the padding."""
    if sparse:
        if by_frequency:
            raise RuntimeError("a sparse gradient of an embedding cannot be scaled by frequency")
        return _sparse_rows(grad, index, rows, padding_idx)
    kernels = _by_triton(grad, index)
    if kernels is not None:
        return kernels.table_gradient(grad, index, rows, padding_idx, by_frequency)
    grad = _without_padding(grad, index, padding_idx)
    if by_frequency:
        grad = grad / _frequency(index, rows).unsqueeze(-1)
    return scatter_add(grad, index, rows)


def _by_triton(values: Tensor, index: Tensor) -> Any:
    """The kernels, where they can run and there are elements."""
    if values.numel() == 0 or index.numel() == 0 or index.device != values.device:
        return None
    return triton.kernels("embedding", values, indices=index)


def _without_padding(grad: Tensor, index: Tensor, padding_idx: int | None) -> Tensor:
    """0 in the place of what is padding."""
    if padding_idx is None:
        return grad
    is_padding = index == padding_idx
    return grad.masked_fill(is_padding.unsqueeze(-1) if grad.dim() > index.dim() else is_padding, 0)


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
    with torch.sparse.check_sparse_tensor_invariants(False):  # torch 2.11 warns in spite of check_invariants=False
        return torch.sparse_coo_tensor(index.unsqueeze(0), grad, (rows, grad.shape[1]))

"""Scaled dot-product attention: every query takes a weighted mean of the values.

    S = s·Q Kᵀ + B        P = softmax(S), row by row        Y = (P ∘ N) V

with a scale s, a bias B (a mask is a bias of −∞) and the noise N of dropout. Backwards, from dL/dY:

    dL/dV = (P ∘ N)ᵀ dL/dY
    dL/dP = N ∘ (dL/dY Vᵀ)
    dL/dS = P ∘ (dL/dP − Σ_j dL/dP ∘ P)        the softmax's Jacobian, diag(p) − p pᵀ in each row
    dL/dQ = s·dL/dS K        dL/dK = s·(dL/dS)ᵀ Q        dL/dB = dL/dS

The backward pass contains P, and P is an output of the Function: differentiating again leads back into it.

A row of Y depends on its own query alone, so `attend` may take a long sequence's queries in blocks: then
P is nowhere whole, and each block computes its rows of P once more in the backward pass.

Source: lecture notes, "Self-Attention Layer"; A. Vaswani et al., "Attention Is All You Need", 2017; for
the blocks T. Dao et al., "FlashAttention", 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, restore, save
from torchfromscratch.autograd.softmax import through_softmax
from torchfromscratch.kernels import triton
from torchfromscratch.kernels.buffers import call_out
from torchfromscratch.kernels.execution import is_batched, is_forward_mode
from torchfromscratch.kernels.precision import widen

LARGEST_KEPT = 2**24  # elements of P that are kept for the backward pass: 64 MB in float32
LARGEST_BLOCK = 2**20  # elements of P that a block computes at once: about what a processor's caches hold
FEWEST_ROWS = 64  # of a block: below, its matrix products are slow


class Attention(Function):
    """Y and P, which is kept for the backward pass.

    q (…, L, E), k (…, S, E), v (…, S, F), bias and noise (…, L, S) or None → y (…, L, F), P (…, L, S).
    """

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, noise: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        scores = (query * scale) @ key.mT
        weights = _softmax(_plus(scores, bias))
        return _times(weights, noise) @ value, weights

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, grad_weights: Tensor | None) -> tuple:
        query, key, value, noise, weights = restore(ctx)
        return _gradients(ctx, query, key, value, noise, weights, grad_output, grad_weights)

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        query, key, value, _, noise, ctx.scale = inputs
        _, weights = output
        ctx.set_materialize_grads(False)  # no zeros for dL/dP in a first derivative: None, and so with tangents
        needs_query, needs_key, _, needs_bias, *_ = ctx.needs_input_grad
        needs_scores = needs_query or needs_key or needs_bias
        if not (needs_scores or is_forward_mode()):  # where V alone wants a gradient
            ctx.mark_non_differentiable(weights)
        save(ctx, (query, key, value, noise, weights), needed=(needs_key, needs_query, needs_scores, True, True))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        query, key, value, noise, weights = restore(ctx)
        return _tangents(ctx.scale, query, key, value, noise, weights, *tangents)


class BlockOfQueries(Function):
    """Y alone; P is computed once more in the backward pass.

    Arguments as in `Attention`. `first`, if not None, is the block's first query in a causal sequence.
    """

    @staticmethod
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        noise: Tensor | None,
        scale: float,
        first: int | None,
    ) -> Tensor:
        output, _ = Attention.forward(query, key, value, _bias(query, key, bias, first), noise, scale)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        query, key, value, bias, noise = restore(ctx)
        weights = _weights(query, key, _bias(query, key, bias, ctx.first), ctx.scale)
        return *_gradients(ctx, query, key, value, noise, weights, grad_output, None), None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.scale, ctx.first = inputs
        needs_query, needs_key, _, needs_bias, *_ = ctx.needs_input_grad
        save(ctx, tensors, needed=(True, True, needs_query or needs_key or needs_bias, True, True))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        query, key, value, bias, noise = restore(ctx)
        weights = _weights(query, key, _bias(query, key, bias, ctx.first), ctx.scale)
        output_t, _ = _tangents(ctx.scale, query, key, value, noise, weights, *tangents)
        return output_t


class FusedAttention(Function):
    """Y, and λ = log Σ e^S of each row of scores, by kernels that write neither S nor P.

    Arguments in the type that they come in; keys and values may have fewer heads G, each for H/G consecutive ones of
    the queries. Noise is a function of `seed`, and computed where it is needed. Where a kernel cannot run, as under
    vmap, or somebody differentiates the gradients, they are those of `Attention`; so is dL/dB, which is as large as P.

    q (…, H, L, E), k (…, G, S, E), v (…, G, S, F), bias (…, H, L, S) or None → y (…, H, L, F), λ (…, H, L).
    """

    @staticmethod
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        seed: Tensor | None,
        scale: float,
        dropout: float,
        is_causal: bool,
    ) -> tuple[Tensor, Tensor]:
        kernels = triton.kernels("attention", query, key, value, bias, when_compiling=True)
        if kernels is not None:
            return kernels.attend(query, key, value, bias, seed, scale, dropout, is_causal)
        q, k, v, bias, noise = _written_out(query, key, value, bias, seed, dropout, is_causal)
        scores = _plus((q * scale) @ k.mT, bias)
        logarithms = scores.logsumexp(-1)
        return (_times(_softmax(scores), noise) @ v).to(query.dtype), logarithms

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _logarithms: None) -> tuple:
        if grad_output is None:
            return (None,) * 8
        *tensors, output, logarithms = restore(ctx)
        query, key, value, bias, _seed = tensors
        _, _, _, needs_bias, *_ = ctx.needs_input_grad
        operands = grad_output, query, key, value, bias
        kernels = None if needs_bias else triton.kernels("attention", *operands, when_compiling=True)
        if kernels is not None:
            dq_dk_dv = kernels.gradients(grad_output, output, logarithms, *tensors, *ctx.options)
            return *dq_dk_dv, None, None, None, None, None
        q, k, v, bias, noise = _written_out(*tensors, *ctx.options[1:])
        weights = _weights(q, k, bias, ctx.scale)
        dq, dk, dv, grad_bias, _, _ = _gradients(ctx, q, k, v, noise, weights, widen(grad_output), None)
        given = (query, dq), (key, _sum_heads(dk, key)), (value, _sum_heads(dv, value)), (bias, grad_bias)
        gradients = [None if grad is None or t is None else grad.to(t.dtype) for t, grad in given]
        return *gradients, None, None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, ctx.scale, dropout, is_causal = inputs
        ctx.options = ctx.scale, dropout, is_causal
        ctx.set_materialize_grads(False)  # no zeros for λ
        ctx.mark_non_differentiable(output[1])
        save(ctx, (*tensors, *output))

    @staticmethod
    def jvp(ctx: Any, query_t: Any, key_t: Any, value_t: Any, bias_t: Any, *_: None) -> tuple:
        *tensors, _output, _logarithms = restore(ctx)
        query = tensors[0]
        q, k, v, bias, noise = _written_out(*tensors, *ctx.options[1:])
        weights = _weights(q, k, bias, ctx.scale)
        tangents = [None if t is None else widen(repeat_heads(t, query)) for t in (query_t, key_t, value_t)]
        output_t, _weights_t = _tangents(ctx.scale, q, k, v, noise, weights, *tangents, bias_t)
        return output_t.to(query.dtype), None


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    seed: Tensor | None,
    dropout: float,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """What `Attention` takes, in the type to compute in: as many heads of keys as of queries, a bias and noise."""
    q, k, v = [widen(repeat_heads(tensor, query)) for tensor in (query, key, value)]
    bias = _bias(q, k, None if bias is None else bias.to(q.dtype), 0 if is_causal else None)
    if seed is None:
        return q, k, v, bias, None
    from torchfromscratch.kernels.triton.attention import attention_kept

    kept = attention_kept(seed, (*q.shape[:-1], k.shape[-2]), dropout).to(q.dtype)
    return q, k, v, bias, kept / (1 - dropout) if dropout < 1 else kept


def repeat_heads(tensor: Tensor, query: Tensor) -> Tensor:
    """(*, G, S, E) → (*, H, S, E), the heads of the query: each of the G for as many consecutive ones."""
    if query.dim() == 2 or tensor.shape[-3] == query.shape[-3]:
        return tensor
    return tensor.repeat_interleave(query.shape[-3] // tensor.shape[-3], -3)


def _sum_heads(repeated: Tensor | None, tensor: Tensor) -> Tensor | None:
    """The transpose of `repeat_heads`: (*, heads, S, E) → (*, G, S, E), the shape of `tensor`."""
    if repeated is None or repeated.shape == tensor.shape:
        return repeated
    return repeated.unflatten(-3, (tensor.shape[-3], -1)).sum(-3)


attention = differentiable(Attention)
fused_attention = differentiable(FusedAttention)
block_of_queries = differentiable(BlockOfQueries)


def is_fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Whether there are kernels that attend without the matrix of scores."""
    if not triton.can_run(query, key, value) or is_batched(mask):
        return False
    from torchfromscratch.kernels.triton import attention as kernels

    return kernels.fits(query, key, value)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    noise: Tensor | None,
    scale: float,
    is_causal: bool,
) -> Tensor:
    """Y of `Attention`, in blocks of queries where P has more than LARGEST_KEPT elements.

    `is_causal` is the bias that lets query i attend to the keys 0 to i; a block leaves out the keys behind.
    """
    length, sources = query.shape[-2], key.shape[-2]
    in_a_row = query.shape[:-2].numel() * sources
    if length * in_a_row <= LARGEST_KEPT:
        bias = _bias(query, key, bias, 0 if is_causal else None)
        return attention(query, key, value, bias, noise, scale)[0]
    rows = max(LARGEST_BLOCK // in_a_row, FEWEST_ROWS)
    blocks = []
    for start in range(0, length, rows):
        count = min(rows, length - start)
        seen = min(start + count, sources) if is_causal else sources
        q, k, v = query.narrow(-2, start, count), key.narrow(-2, 0, seen), value.narrow(-2, 0, seen)
        b, n = [None if t is None else t.narrow(-2, start, count).narrow(-1, 0, seen) for t in (bias, noise)]
        blocks.append(block_of_queries(q, k, v, b, n, scale, start if is_causal else None))
    return torch.cat(blocks, -2)


def _bias(query: Tensor, key: Tensor, bias: Tensor | None, first: int | None) -> Tensor | None:
    """`bias` or, for a causal sequence's queries from `first` on, −∞ at the keys behind each."""
    if first is None:
        return bias
    shape = (query.shape[-2], key.shape[-2])
    return torch.full(shape, -torch.inf, dtype=query.dtype, device=query.device).triu(first + 1)


def _gradients(
    ctx: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    noise: Tensor | None,
    weights: Tensor,
    grad_output: Tensor | None,
    grad_weights: Tensor | None,
) -> tuple:
    """The gradients of a Function's arguments, from those of Y and P; None stands for zero."""
    needs_query, needs_key, needs_value, needs_bias, *_ = ctx.needs_input_grad
    needs_scores = needs_query or needs_key or needs_bias
    grad_query = grad_key = grad_value = grad_scores = None
    if grad_output is not None:
        grad_value = _times(weights, noise).mT @ grad_output if needs_value else None
    if grad_output is not None and needs_scores:
        grad_weights = _plus(_times(grad_output @ value.mT, noise), grad_weights)
    if grad_weights is not None and needs_scores:
        grad_scores = through_softmax(grad_weights, weights, -1)
        grad_query = grad_scores @ key * ctx.scale if needs_query else None
        grad_key = grad_scores.mT @ query * ctx.scale if needs_key else None
    return grad_query, grad_key, grad_value, grad_scores if needs_bias else None, None, None


def _weights(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """P alone, from values of no width."""
    _, weights = attention(query, key, key.narrow(-1, 0, 0), bias, None, scale)
    return weights


def _softmax(scores: Tensor) -> Tensor:
    """Each row's softmax, in the memory of `scores`; where a row is −∞ throughout, zeros."""
    if scores.numel() == 0:
        return scores
    greatest = scores.amax(-1, keepdim=True)
    below = call_out(torch.sub, scores, greatest.masked_fill(greatest == -torch.inf, 0), out=scores)
    weights = call_out(torch.exp, below, out=scores)
    return call_out(torch.div, weights, weights.sum(-1, keepdim=True).clamp(min=1), out=scores)


def _times(weights: Tensor, noise: Tensor | None) -> Tensor:
    return weights if noise is None else weights * noise


def _plus(tensor: Tensor, other: Tensor | None) -> Tensor:
    return tensor if other is None else tensor + other


# ---------------- torch's side: what is saved, vmap, forward mode


def _tangents(
    scale: float,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    noise: Tensor | None,
    weights: Tensor,
    query_t: Tensor | None,
    key_t: Tensor | None,
    value_t: Tensor | None,
    bias_t: Tensor | None,
    *_: Any,
) -> tuple[Tensor, Tensor]:
    """The tangents of Y and P; None stands for zero."""
    scores_t = torch.zeros_like(weights) if bias_t is None else bias_t
    if query_t is not None:
        scores_t = scores_t + query_t @ key.mT * scale
    if key_t is not None:
        scores_t = scores_t + query @ key_t.mT * scale
    weights_t = through_softmax(scores_t, weights, -1)
    output_t = _times(weights_t, noise) @ value
    return output_t if value_t is None else output_t + _times(weights, noise) @ value_t, weights_t

"""Attention without the matrix of scores: S = s·Q Kᵀ + B is computed block by block, forward and backward.

A row of P = softmax(S) is put together from blocks of keys: with the greatest score m so far and l = Σ e^(S − m),

    m' = max(m, max S_block)      l' = l·e^(m − m') + Σ e^(S_block − m')      y' = y·e^(m − m') + e^(S_block − m') V

and y / l at the end. What is kept is λ = m + log l, so that backwards P = e^(S − λ) needs no such care:

    dL/dV = Pᵀ dL/dY        dL/dS = P ∘ (dL/dY Vᵀ − δ)        dL/dQ = s·dL/dS K        dL/dK = s·(dL/dS)ᵀ Q

where δ = Σ dL/dY ∘ Y of each row is Σ dL/dP ∘ P. A first launch takes blocks of queries, for dL/dQ and δ, a second
blocks of keys, for dL/dK and dL/dV, so that no two programs add to one place.

Dropout puts P ∘ N in the place of P in Y and dL/dV, and N ∘ (dL/dY Vᵀ) in that of dL/dY Vᵀ; l, λ and δ stay. The noise
N is 0 with probability p, else 1 / (1 − p). Each element is a function of a seed and its place alone (Philox), so the
backward pass draws it again.

q (Z, H, L, E), k (Z, G, S, E), v (Z, G, S, F), bias (Z, H, L, S) or None, of any strides. G divides H: each key
and value serves H/G consecutive heads.

Source: M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018; T. Dao et al.,
"FlashAttention", 2022; J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchfromscratch.kernels.precision import wide_type
from torchfromscratch.kernels.triton import IS_INTERPRETED
from torchfromscratch.kernels.triton.launch import blocks_of, is_dense, launch, operation, two_launches
from torchfromscratch.kernels.triton.mathematics import exp, log

# Elements that a program writes. The interpreter takes as long for a program whatever its block.
BLOCK = 2**14 if IS_INTERPRETED else 1024

# Features of a head that a program has room for.
WIDEST = {torch.float16: 256, torch.bfloat16: 256, torch.float32: 128, torch.float64: 64}


def fits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether there is a kernel for tensors of this size and type: a program holds whole rows of features."""
    sizes = (*query.shape, *key.shape, *value.shape)
    return 0 not in sizes and max(query.shape[-1], value.shape[-1]) <= WIDEST[query.dtype]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    is_causal: bool,
) -> tuple[Tensor, Tensor]:
    """y (…, H, L, F) and λ (…, H, L) of tensors whose leading dimensions are the same, but for the heads."""
    q, k, v = _heads(query), _heads(key), _heads(value)
    y, logarithms = _attend(q, k, v, None if bias is None else _heads(bias), seed, scale, dropout, is_causal)
    return y.view(*query.shape[:-1], value.shape[-1]), logarithms.view(query.shape[:-1])


def gradients(
    grad_output: Tensor,
    output: Tensor,
    logarithms: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dQ, dL/dK and dL/dV."""
    g, y, q, k, v = [_heads(tensor) for tensor in (grad_output, output, query, key, value)]
    bias = None if bias is None else _heads(bias)
    of_rows = logarithms.reshape(g.shape[:-1])
    dq, dk, dv = _attend_gradients(g, y, q, k, v, of_rows, bias, seed, scale, dropout, is_causal)
    return dq.view(query.shape), dk.view(key.shape), dv.view(value.shape)


def _heads(tensor: Tensor) -> Tensor:
    """(…, L, E) → (Z, H, L, E)."""
    if tensor.dim() <= 4:
        return tensor[(None,) * (4 - tensor.dim())]
    return tensor.reshape(-1, *tensor.shape[-3:])


def _empty_like_rows(query: Tensor, features: int) -> Tensor:
    """Memory for (Z, H, L, features), in the order in which that of the query lies."""
    if not is_dense(query):
        return query.new_empty(*query.shape[:-1], features)
    order = sorted(range(3), key=lambda dim: (query.stride(dim), query.shape[dim]), reverse=True)
    memory = query.new_empty([*[query.shape[dim] for dim in order], features])
    return memory.permute(*[order.index(dim) for dim in range(3)], 3)


def _empty_attended(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    logarithms = query.new_empty(query.shape[:-1], dtype=wide_type(query.dtype))
    return _empty_like_rows(query, value.shape[-1]), logarithms


@operation(like=_empty_attended)
def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    is_causal: bool,
) -> tuple[Tensor, Tensor]:
    output, logarithms = _empty_attended(query, key, value)
    options = _options(query, value, bias, scale, dropout, is_causal)
    launch(
        attend_kernel,
        blocks_of(query.shape[2], options["queries"]) * query.shape[0] * query.shape[1],
        query,
        key,
        value,
        bias,
        seed,
        output,
        logarithms,
        *_sizes(query, key, value),
        *_strides(query, key, value, bias, output),
        **options,
    )
    return output, logarithms


def _sizes(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, ...]:
    """H, H/G, L, S, E and F."""
    heads = query.shape[1]
    return heads, heads // key.shape[1], query.shape[2], key.shape[2], query.shape[3], value.shape[3]


def _strides(*tensors: Tensor | None) -> list[int]:
    return [stride for tensor in tensors for stride in ((0,) * 4 if tensor is None else tensor.stride())]


def _options(
    query: Tensor, value: Tensor, bias: Tensor | None, scale: float, dropout: float, is_causal: bool
) -> dict[str, Any]:
    """What a kernel is compiled for: how many queries and keys it takes at a time, and how it multiplies.

    Of float32 numbers, torch's attention multiplies in TF32 where torch's products of matrices do.
    """
    features, values = [max(16, triton.next_power_of_2(tensor.shape[-1])) for tensor in (query, value)]
    queries, keys, warps = _block(query.dtype, max(features, values), bias is None and dropout == 0)
    return {
        "scale": scale,
        "dropout": dropout,
        "is_causal": is_causal,
        "queries": queries,
        "keys": keys,
        "features": features,
        "values": values,
        "precision": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
        "widen": IS_INTERPRETED,  # whose products of bfloat16 are wrong
        "warps": warps,
        "stages": 2,
    }


def _block(dtype: torch.dtype, features: int, is_plain: bool) -> tuple[int, int, int]:
    """Queries, keys and warps of a program, of which no register is spilled: tests compile them.

    A bias and dropout take registers, too: without them it `is_plain`.
    """
    if dtype == torch.float64:
        return 16, 16, 8 if is_plain else 4
    if dtype == torch.float32:
        return (16, 16, 4) if features > 64 else (32 if is_plain else 16, 32, 8)
    if features > 128:
        return 32, 32, 8
    return 64, 64 if is_plain else 32, 8


def _empty_kept(seed: Tensor, shape: Sequence[int], dropout: float) -> Tensor:
    return seed.new_empty(shape, dtype=torch.bool)


@operation(like=_empty_kept)
def attention_kept(seed: Tensor, shape: Sequence[int], dropout: float) -> Tensor:
    """Which elements of P (…, H, L, S) dropout keeps, written out for those who need it."""
    kept = _empty_kept(seed, shape, dropout)
    programs = blocks_of(kept.numel(), BLOCK)
    launch(kept_kernel, programs, seed, kept, kept.numel(), *shape[-2:], dropout=dropout, block=BLOCK)
    return kept


@triton.jit
def kept_kernel(seed, kept, size, length, sources, dropout: tl.constexpr, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    row = at // sources
    is_kept = _is_kept(seed, row // length, (row % length).to(tl.int32), (at % sources).to(tl.int32), dropout)
    tl.store(kept + at, is_kept, mask=at < size)


@triton.jit
def _load_rows(tensor, row, rows, feature, features, s_row, s_feature, widen: tl.constexpr):
    """(rows, features) of a matrix, zeros where there are none."""
    inside = (row < rows)[:, None] & (feature < features)[None, :]
    at = row.to(tl.int64)[:, None] * s_row + feature.to(tl.int64)[None, :] * s_feature
    x = tl.load(tensor + at, mask=inside, other=0)
    return x.to(tl.float32) if widen and x.dtype.primitive_bitwidth < 32 else x


@triton.jit
def _store_rows(tensor, values, row, rows, feature, features, s_row, s_feature):
    inside = (row < rows)[:, None] & (feature < features)[None, :]
    at = row.to(tl.int64)[:, None] * s_row + feature.to(tl.int64)[None, :] * s_feature
    tl.store(tensor + at, values, mask=inside)


@triton.jit
def _dot(a, b, precision: tl.constexpr):
    return tl.dot(a, b, input_precision=precision, out_dtype=tl.float64 if a.dtype == tl.float64 else tl.float32)


@triton.jit
def _scores(
    products, bias, query, key, length, sources, b_l, b_s, scale: tl.constexpr, is_causal: tl.constexpr
):  # fmt: skip
    """S of a block, or Sᵀ, from q·k and the numbers of queries and keys; −∞ where one may not attend to the other."""
    inside = (query < length) & (key < sources)
    scores = products * scale
    if bias is not None:
        at = query.to(tl.int64) * b_l + key.to(tl.int64) * b_s
        scores += tl.load(bias + at, mask=inside, other=0).to(scores.dtype)
    if is_causal:
        inside = inside & (query >= key)
    return tl.where(inside, scores, float("-inf"))


@triton.jit
def _is_kept(seed, head, query, key, dropout: tl.constexpr):
    """Whether dropout keeps an element of P: Philox's number of its place, one of 2³¹ in [0, 1), tells."""
    number, _, _, _ = tl.philox(tl.load(seed), key, query, head.to(tl.int32), 0)
    return tl.uint_to_uniform_float(number) >= dropout


@triton.jit
def _drop(values, kept, dropout: tl.constexpr):
    """N ∘ values"""
    gain: tl.constexpr = 1 / (1 - dropout) if dropout < 1 else 1.0
    return tl.where(kept, values * gain, 0)


@triton.jit
def _head(blocks, heads):
    """A program's block, and its (Z, H)."""
    head = (tl.program_id(0) // blocks).to(tl.int64)
    return tl.program_id(0) % blocks, head // heads, head % heads


@triton.jit
def attend_kernel(
    query, key, value, bias, seed, output, logarithms, heads, sharing, length, sources, size_e, size_f,
    q_z, q_h, q_l, q_e, k_z, k_h, k_s, k_e, v_z, v_h, v_s, v_f, b_z, b_h, b_l, b_s, y_z, y_h, y_l, y_f,
    scale: tl.constexpr, dropout: tl.constexpr, is_causal: tl.constexpr, queries: tl.constexpr, keys: tl.constexpr,
    features: tl.constexpr, values: tl.constexpr, precision: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    block, z, h = _head(tl.cdiv(length, queries), heads)
    row, e, f = block * queries + tl.arange(0, queries), tl.arange(0, features), tl.arange(0, values)
    key += z * k_z + h // sharing * k_h
    value += z * v_z + h // sharing * v_h
    if bias is not None:
        bias += z * b_z + h * b_h
    q = _load_rows(query + z * q_z + h * q_h, row, length, e, size_e, q_l, q_e, widen)
    sum_type: tl.constexpr = tl.float64 if q.dtype == tl.float64 else tl.float32
    of_row = (z * heads + h) * length + row
    greatest = tl.full((queries,), float("-inf"), sum_type)
    total = tl.zeros((queries,), sum_type)
    y = tl.zeros((queries, values), sum_type)
    end = tl.minimum(sources, (block + 1) * queries) if is_causal else sources
    for start in range(0, end, keys):
        column = start + tl.arange(0, keys)
        k = _load_rows(key, column, sources, e, size_e, k_s, k_e, widen)
        v = _load_rows(value, column, sources, f, size_f, v_s, v_f, widen)
        products = _dot(q, tl.trans(k), precision)
        scores = _scores(products, bias, row[:, None], column[None, :], length, sources, b_l, b_s, scale, is_causal)
        higher = tl.maximum(greatest, tl.max(scores, 1))
        shift = tl.where(higher == float("-inf"), 0, higher)  # of a row that attends to nothing yet
        p = exp(scores - shift[:, None])
        shrink = exp(greatest - shift)
        total = total * shrink + tl.sum(p, 1)
        if dropout > 0:
            p = _drop(p, _is_kept(seed, z * heads + h, row[:, None], column[None, :], dropout), dropout)
        y = y * shrink[:, None] + _dot(p.to(v.dtype), v, precision)
        greatest = higher
    y = y / tl.where(total == 0, 1, total)[:, None]
    _store_rows(output + z * y_z + h * y_h, y, row, length, f, size_f, y_l, y_f)
    # +∞ makes P = e^(S − λ) zero where a query attends to nothing
    lam = tl.where(total == 0, float("inf"), greatest + log(tl.where(total == 0, 1, total)))
    tl.store(logarithms + of_row, lam, mask=row < length)


def _empty_gradients(
    grad_output: Tensor, output: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = [_empty_like_rows(tensor, tensor.shape[3]) for tensor in (query, key, value)]
    return dq, dk, dv


def _bytes_of_delta(grad_output: Tensor, *_: Any) -> int:
    return grad_output.shape[:-1].numel() * wide_type(grad_output.dtype).itemsize


@operation(like=_empty_gradients, traffic=two_launches(0, 2, 3, 4, 5, 6, between=_bytes_of_delta))
def _attend_gradients(
    grad_output: Tensor,
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logarithms: Tensor,
    bias: Tensor | None,
    seed: Tensor | None,
    scale: float,
    dropout: float,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = _empty_gradients(grad_output, output, query, key, value)
    delta, options = torch.empty_like(logarithms), _options(query, value, bias, scale, dropout, is_causal)
    launch(
        query_gradient_kernel,
        blocks_of(query.shape[2], options["queries"]) * query.shape[0] * query.shape[1],
        grad_output,
        output,
        query,
        key,
        value,
        logarithms,
        bias,
        seed,
        dq,
        delta,
        *_sizes(query, key, value),
        *_strides(grad_output, output, query, key, value, bias, dq),
        **options,
    )
    launch(
        key_gradients_kernel,
        blocks_of(key.shape[2], options["keys"]) * key.shape[0] * key.shape[1],
        grad_output,
        query,
        key,
        value,
        logarithms,
        bias,
        seed,
        delta,
        dk,
        dv,
        *_sizes(query, key, value),
        *_strides(grad_output, query, key, value, bias, dk, dv),
        **options,
    )
    return dq, dk, dv


@triton.jit
def query_gradient_kernel(
    grad_output, output, query, key, value, logarithms, bias, seed, grad_query, delta,
    heads, sharing, length, sources, size_e, size_f,
    g_z, g_h, g_l, g_f, y_z, y_h, y_l, y_f, q_z, q_h, q_l, q_e, k_z, k_h, k_s, k_e, v_z, v_h, v_s, v_f,
    b_z, b_h, b_l, b_s, dq_z, dq_h, dq_l, dq_e,
    scale: tl.constexpr, dropout: tl.constexpr, is_causal: tl.constexpr, queries: tl.constexpr, keys: tl.constexpr,
    features: tl.constexpr, values: tl.constexpr, precision: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    block, z, h = _head(tl.cdiv(length, queries), heads)
    row, e, f = block * queries + tl.arange(0, queries), tl.arange(0, features), tl.arange(0, values)
    key += z * k_z + h // sharing * k_h
    value += z * v_z + h // sharing * v_h
    if bias is not None:
        bias += z * b_z + h * b_h
    g = _load_rows(grad_output + z * g_z + h * g_h, row, length, f, size_f, g_l, g_f, widen)
    y = _load_rows(output + z * y_z + h * y_h, row, length, f, size_f, y_l, y_f, widen)
    q = _load_rows(query + z * q_z + h * q_h, row, length, e, size_e, q_l, q_e, widen)
    sum_type: tl.constexpr = tl.float64 if q.dtype == tl.float64 else tl.float32
    of_row = (z * heads + h) * length + row
    lam = tl.load(logarithms + of_row, mask=row < length, other=float("inf"))
    row_delta = tl.sum(g.to(sum_type) * y.to(sum_type), 1)
    tl.store(delta + of_row, row_delta, mask=row < length)
    dq = tl.zeros((queries, features), sum_type)
    end = tl.minimum(sources, (block + 1) * queries) if is_causal else sources
    for start in range(0, end, keys):
        column = start + tl.arange(0, keys)
        k = _load_rows(key, column, sources, e, size_e, k_s, k_e, widen)
        v = _load_rows(value, column, sources, f, size_f, v_s, v_f, widen)
        products = _dot(q, tl.trans(k), precision)
        scores = _scores(products, bias, row[:, None], column[None, :], length, sources, b_l, b_s, scale, is_causal)
        dp = _dot(g, tl.trans(v), precision)
        if dropout > 0:
            dp = _drop(dp, _is_kept(seed, z * heads + h, row[:, None], column[None, :], dropout), dropout)
        ds = exp(scores - lam[:, None]) * (dp - row_delta[:, None])
        dq += _dot(ds.to(k.dtype), k, precision)
    _store_rows(grad_query + z * dq_z + h * dq_h, dq * scale, row, length, e, size_e, dq_l, dq_e)


@triton.jit
def key_gradients_kernel(
    grad_output, query, key, value, logarithms, bias, seed, delta, grad_key, grad_value,
    heads, sharing, length, sources, size_e, size_f,
    g_z, g_h, g_l, g_f, q_z, q_h, q_l, q_e, k_z, k_h, k_s, k_e, v_z, v_h, v_s, v_f, b_z, b_h, b_l, b_s,
    dk_z, dk_h, dk_s, dk_e, dv_z, dv_h, dv_s, dv_f,
    scale: tl.constexpr, dropout: tl.constexpr, is_causal: tl.constexpr, queries: tl.constexpr, keys: tl.constexpr,
    features: tl.constexpr, values: tl.constexpr, precision: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """Of the products' transposes, as those of dL/dK and dL/dV take them as they lie."""
    block, z, group = _head(tl.cdiv(sources, keys), heads // sharing)
    column, e, f = block * keys + tl.arange(0, keys), tl.arange(0, features), tl.arange(0, values)
    k = _load_rows(key + z * k_z + group * k_h, column, sources, e, size_e, k_s, k_e, widen)
    v = _load_rows(value + z * v_z + group * v_h, column, sources, f, size_f, v_s, v_f, widen)
    sum_type: tl.constexpr = tl.float64 if k.dtype == tl.float64 else tl.float32
    dk = tl.zeros((keys, features), sum_type)
    dv = tl.zeros((keys, values), sum_type)
    first = block * keys // queries * queries if is_causal else 0
    blocks = tl.cdiv(length - first, queries)
    for step in range(sharing * blocks):
        h = group * sharing + step // blocks
        row = first + step % blocks * queries + tl.arange(0, queries)
        g = _load_rows(grad_output + z * g_z + h * g_h, row, length, f, size_f, g_l, g_f, widen)
        q = _load_rows(query + z * q_z + h * q_h, row, length, e, size_e, q_l, q_e, widen)
        of_row = (z * heads + h) * length + row
        lam = tl.load(logarithms + of_row, mask=row < length, other=float("inf"))
        row_delta = tl.load(delta + of_row, mask=row < length, other=0)
        products = _dot(k, tl.trans(q), precision)
        of_head = None if bias is None else bias + z * b_z + h * b_h
        scores = _scores(products, of_head, row[None, :], column[:, None], length, sources, b_l, b_s, scale, is_causal)
        p = exp(scores - lam[None, :])
        dropped, dp = p, _dot(v, tl.trans(g), precision)
        if dropout > 0:
            kept = _is_kept(seed, z * heads + h, row[None, :], column[:, None], dropout)
            dropped, dp = _drop(p, kept, dropout), _drop(dp, kept, dropout)
        dv += _dot(dropped.to(g.dtype), g, precision)
        dk += _dot((p * (dp - row_delta[None, :])).to(q.dtype), q, precision)
    _store_rows(grad_key + z * dk_z + group * dk_h, dk * scale, column, sources, e, size_e, dk_s, dk_e)
    _store_rows(grad_value + z * dv_z + group * dv_h, dv, column, sources, f, size_f, dv_s, dv_f)

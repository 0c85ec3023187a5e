"""Attention without the matrix of scores: S = s·Q Kᵀ + B is computed block by block, forward and backward.

A row of P = softmax(S) is put together from blocks of keys: with the greatest score m so far and l = Σ e^(S − m),

    m' = max(m, max S_block)      l' = l·e^(m − m') + Σ e^(S_block − m')      y' = y·e^(m − m') + e^(S_block − m') V

and y / l at the end. What is kept is λ = m + log l, so that backwards P = e^(S − λ) needs no such care:

    dL/dV = Pᵀ dL/dY        dL/dS = P ∘ (dL/dY Vᵀ − δ)        dL/dQ = s·dL/dS K        dL/dK = s·(dL/dS)ᵀ Q

where δ = Σ dL/dY ∘ Y of each row is Σ dL/dP ∘ P. A first launch takes blocks of queries, for dL/dQ and δ, a second
blocks of keys, for dL/dK and dL/dV, so that no two programs add to one place.

q (Z, H, L, E), k (Z, H, S, E), v (Z, H, S, F), bias (Z, H, L, S) or None, of any strides.

Source: M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018; T. Dao et al.,
"FlashAttention", 2022.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchfromscratch.kernels.precision import NARROW_TYPES, wide_type
from torchfromscratch.kernels.triton import IS_INTERPRETED
from torchfromscratch.kernels.triton.launch import blocks_of, is_dense, launch, operation, two_launches
from torchfromscratch.kernels.triton.mathematics import exp, log

# Features of a head, of narrow types and of others: wider ones spill registers.
WIDEST_NARROW, WIDEST = 128, 64


def fits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether there is a kernel for tensors of this size and type: a program holds whole rows of features."""
    features = (query.shape[-1], value.shape[-1])
    sizes = (*query.shape, *key.shape, *value.shape)
    widest = WIDEST_NARROW if query.dtype in NARROW_TYPES else WIDEST
    return 0 not in sizes and max(features) <= widest and (query.dtype != torch.float64 or IS_INTERPRETED)


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """y (…, L, F) and λ (…, L) of tensors whose leading dimensions are the same."""
    q, k, v = _heads(query), _heads(key), _heads(value)
    y, logarithms = _attend(q, k, v, None if bias is None else _heads(bias), scale, is_causal)
    return y.view(*query.shape[:-1], value.shape[-1]), logarithms.view(query.shape[:-1])


def gradients(
    grad_output: Tensor,
    output: Tensor,
    logarithms: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    scale: float,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dQ, dL/dK and dL/dV."""
    g, y, q, k, v = [_heads(tensor) for tensor in (grad_output, output, query, key, value)]
    bias = None if bias is None else _heads(bias)
    dq, dk, dv = _attend_gradients(g, y, q, k, v, logarithms.reshape(g.shape[:-1]), bias, scale, is_causal)
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
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, is_causal: bool
) -> tuple[Tensor, Tensor]:
    output, logarithms = _empty_attended(query, key, value)
    blocks = _blocks(query, value)
    launch(
        attend_kernel,
        blocks_of(query.shape[2], blocks["queries"]) * query.shape[0] * query.shape[1],
        query,
        key,
        value,
        bias,
        output,
        logarithms,
        *_sizes(query, key, value),
        *_strides(query, key, value, bias, output),
        scale=scale,
        is_causal=is_causal,
        **blocks,
    )
    return output, logarithms


def _sizes(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, ...]:
    """H, L, S, E and F."""
    return query.shape[1], query.shape[2], key.shape[2], query.shape[3], value.shape[3]


def _strides(*tensors: Tensor | None) -> list[int]:
    return [stride for tensor in tensors for stride in ((0,) * 4 if tensor is None else tensor.stride())]


def _blocks(query: Tensor, value: Tensor) -> dict[str, Any]:
    """How many queries and keys a program takes at a time, and how it multiplies.

    Of float32 numbers, torch's attention multiplies in TF32 where torch's products of matrices do.
    """
    features, values = [max(16, triton.next_power_of_2(tensor.shape[-1])) for tensor in (query, value)]
    narrow = query.dtype in NARROW_TYPES
    block = 64 if narrow else 32
    return {
        "queries": block,
        "keys": block,
        "features": features,
        "values": values,
        "precision": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
        "widen": IS_INTERPRETED,  # whose products of bfloat16 are wrong
        "warps": 8,
        "stages": 2,
    }


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
def _head(blocks, heads):
    """A program's block, and its (Z, H)."""
    head = (tl.program_id(0) // blocks).to(tl.int64)
    return tl.program_id(0) % blocks, head // heads, head % heads


@triton.jit
def attend_kernel(
    query, key, value, bias, output, logarithms, heads, length, sources, size_e, size_f,
    q_z, q_h, q_l, q_e, k_z, k_h, k_s, k_e, v_z, v_h, v_s, v_f, b_z, b_h, b_l, b_s, y_z, y_h, y_l, y_f,
    scale: tl.constexpr, is_causal: tl.constexpr, queries: tl.constexpr, keys: tl.constexpr,
    features: tl.constexpr, values: tl.constexpr, precision: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    block, z, h = _head(tl.cdiv(length, queries), heads)
    row, e, f = block * queries + tl.arange(0, queries), tl.arange(0, features), tl.arange(0, values)
    key += z * k_z + h * k_h
    value += z * v_z + h * v_h
    if bias is not None:
        bias += z * b_z + h * b_h
    q = _load_rows(query + z * q_z + h * q_h, row, length, e, size_e, q_l, q_e, widen)
    sum_type: tl.constexpr = tl.float64 if q.dtype == tl.float64 else tl.float32
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
        y = y * shrink[:, None] + _dot(p.to(v.dtype), v, precision)
        greatest = higher
    y = y / tl.where(total == 0, 1, total)[:, None]
    _store_rows(output + z * y_z + h * y_h, y, row, length, f, size_f, y_l, y_f)
    # +∞ makes P = e^(S − λ) zero where a query attends to nothing
    lam = tl.where(total == 0, float("inf"), greatest + log(tl.where(total == 0, 1, total)))
    tl.store(logarithms + (z * heads + h) * length + row, lam, mask=row < length)


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
    scale: float,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = _empty_gradients(grad_output, output, query, key, value)
    delta, blocks, heads = torch.empty_like(logarithms), _blocks(query, value), query.shape[0] * query.shape[1]
    options = {"scale": scale, "is_causal": is_causal, **blocks}
    launch(
        query_gradient_kernel,
        blocks_of(query.shape[2], blocks["queries"]) * heads,
        grad_output,
        output,
        query,
        key,
        value,
        logarithms,
        bias,
        dq,
        delta,
        *_sizes(query, key, value),
        *_strides(grad_output, output, query, key, value, bias, dq),
        **options,
    )
    launch(
        key_gradients_kernel,
        blocks_of(key.shape[2], blocks["keys"]) * heads,
        grad_output,
        query,
        key,
        value,
        logarithms,
        bias,
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
    grad_output, output, query, key, value, logarithms, bias, grad_query, delta,
    heads, length, sources, size_e, size_f,
    g_z, g_h, g_l, g_f, y_z, y_h, y_l, y_f, q_z, q_h, q_l, q_e, k_z, k_h, k_s, k_e, v_z, v_h, v_s, v_f,
    b_z, b_h, b_l, b_s, dq_z, dq_h, dq_l, dq_e,
    scale: tl.constexpr, is_causal: tl.constexpr, queries: tl.constexpr, keys: tl.constexpr,
    features: tl.constexpr, values: tl.constexpr, precision: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    block, z, h = _head(tl.cdiv(length, queries), heads)
    row, e, f = block * queries + tl.arange(0, queries), tl.arange(0, features), tl.arange(0, values)
    key += z * k_z + h * k_h
    value += z * v_z + h * v_h
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
        ds = exp(scores - lam[:, None]) * (_dot(g, tl.trans(v), precision) - row_delta[:, None])
        dq += _dot(ds.to(k.dtype), k, precision)
    _store_rows(grad_query + z * dq_z + h * dq_h, dq * scale, row, length, e, size_e, dq_l, dq_e)


@triton.jit
def key_gradients_kernel(
    grad_output, query, key, value, logarithms, bias, delta, grad_key, grad_value,
    heads, length, sources, size_e, size_f,
    g_z, g_h, g_l, g_f, q_z, q_h, q_l, q_e, k_z, k_h, k_s, k_e, v_z, v_h, v_s, v_f, b_z, b_h, b_l, b_s,
    dk_z, dk_h, dk_s, dk_e, dv_z, dv_h, dv_s, dv_f,
    scale: tl.constexpr, is_causal: tl.constexpr, queries: tl.constexpr, keys: tl.constexpr,
    features: tl.constexpr, values: tl.constexpr, precision: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    block, z, h = _head(tl.cdiv(sources, keys), heads)
    column, e, f = block * keys + tl.arange(0, keys), tl.arange(0, features), tl.arange(0, values)
    grad_output += z * g_z + h * g_h
    query += z * q_z + h * q_h
    if bias is not None:
        bias += z * b_z + h * b_h
    k = _load_rows(key + z * k_z + h * k_h, column, sources, e, size_e, k_s, k_e, widen)
    v = _load_rows(value + z * v_z + h * v_h, column, sources, f, size_f, v_s, v_f, widen)
    sum_type: tl.constexpr = tl.float64 if k.dtype == tl.float64 else tl.float32
    dk = tl.zeros((keys, features), sum_type)
    dv = tl.zeros((keys, values), sum_type)
    first = block * keys // queries * queries if is_causal else 0
    for start in range(first, length, queries):
        row = start + tl.arange(0, queries)
        g = _load_rows(grad_output, row, length, f, size_f, g_l, g_f, widen)
        q = _load_rows(query, row, length, e, size_e, q_l, q_e, widen)
        of_row = (z * heads + h) * length + row
        lam = tl.load(logarithms + of_row, mask=row < length, other=float("inf"))
        row_delta = tl.load(delta + of_row, mask=row < length, other=0)
        products = _dot(k, tl.trans(q), precision)  # of the transpose, which a product then takes as it lies
        scores = _scores(products, bias, row[None, :], column[:, None], length, sources, b_l, b_s, scale, is_causal)
        p = exp(scores - lam[None, :])
        dv += _dot(p.to(g.dtype), g, precision)
        ds = p * (_dot(v, tl.trans(g), precision) - row_delta[None, :])
        dk += _dot(ds.to(q.dtype), q, precision)
    _store_rows(grad_key + z * dk_z + h * dk_h, dk * scale, column, sources, e, size_e, dk_s, dk_e)
    _store_rows(grad_value + z * dv_z + h * dv_h, dv, column, sources, f, size_f, dv_s, dv_f)

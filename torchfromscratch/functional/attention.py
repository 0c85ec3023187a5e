"""Scaled dot-product attention and multi-head attention."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch.autograd import attention as autograd
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.functional.linear import linear
from torchfromscratch.functional.override import is_causal_bias
from torchfromscratch.kernels.execution import is_autocasting
from torchfromscratch.kernels.precision import wide_type, widen

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


@autocast(cpu="lower", cuda="lower")
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Y = P V with P = softmax(s·Q Kᵀ + mask): every query takes a weighted mean of the values.

    dL/dV = Pᵀ dL/dY, dL/dP = dL/dY Vᵀ, dL/dS = P ∘ (dL/dP − Σ dL/dP ∘ P), and from the scores S on
    dL/dQ = s·dL/dS K and dL/dK = s·(dL/dS)ᵀ Q. The scale s is 1/√E if not given. A query that may attend to
    nothing gets zeros.

    Shapes: query (*, H, L, E), key (*, G, S, E), value (*, G, S, F) → (*, H, L, F). G is H or, with
    `enable_gqa`, a divisor of H: each key and value then serves H/G consecutive heads. Leading dimensions
    broadcast, and may be missing.
    `attn_mask` broadcasts to (*, H, L, S): booleans, true where a query may attend to a key, floats to add to the
    scores, or a mask of torch.nn.attention.bias. `is_causal` is the mask that lets query i attend to the keys 0
    to i. Each element of P is dropped with probability `dropout_p`.
    Raises RuntimeError where shapes or types do not fit, and on a mask together with `is_causal`.
    Source: lecture notes, "Self-Attention Layer"; A. Vaswani et al., "Attention Is All You Need", 2017; for
    the groups J. Ainslie et al., "GQA", 2023.
    """
    if is_causal_bias(attn_mask):
        if is_causal:
            raise ValueError("CausalBias should not be used with is_causal=True: it is a causal mask already")
        attn_mask = private.causal_mask(attn_mask, query.device)
    _check_attention(query, key, value, attn_mask, dropout_p, is_causal)
    if enable_gqa:
        _check_groups(query, key, value)
    if autograd.is_fused(query, key, value, attn_mask):
        output = _fused_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return _match_heads(output, query)
    dtype = query.dtype
    query, key, value = [widen(tensor) for tensor in (query, key, value)]
    if enable_gqa:
        key, value = [autograd.repeat_heads(tensor, query) for tensor in (key, value)]
    arguments = _arguments(query, key, value, attn_mask, dropout_p, scale)
    output = autograd.attend(*arguments, is_causal).to(dtype)
    return output if dropout_p > 0 else _match_heads(output, query)


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    """By kernels that take groups of heads and narrow types as they are, and dropout's noise as a seed."""
    if enable_gqa and key.shape[-3] != value.shape[-3]:
        key, value = [autograd.repeat_heads(tensor, query) for tensor in (key, value)]
    given = (query, key, value)
    heads = [tensor.shape[-3:-2] if enable_gqa else () for tensor in given]
    batch = torch.broadcast_shapes(*[t.shape[: -2 - len(of)] for t, of in zip(given, heads, strict=True)])
    q, k, v = [tensor.expand(*batch, *of, -1, -1) for tensor, of in zip(given, heads, strict=True)]
    bias = None if attn_mask is None else _forbid(attn_mask, q.dtype)
    if bias is not None:
        bias = widen(bias) if bias.requires_grad else bias  # no gradient that broadcasting sums is narrow
        bias = bias.expand(*q.shape[:-1], k.shape[-2])
    seed = torch.empty((), dtype=torch.int64, device=q.device).random_() if dropout_p > 0 else None
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    output, _ = autograd.fused_attention(q, k, v, bias, seed, scale, float(dropout_p), is_causal)
    return output


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Concat(head_1, …, head_H) W_oᵀ + b_o with head_h = Attention(Q W_qᵀ, K W_kᵀ, V W_vᵀ) on E/H features each.

    Composed of `linear` and attention, whose gradients are theirs.

    Shapes: query (L, N, E), key and value (S, N, ·), or all without N → (L, N, E) or (L, E), and None or the
    weights (N, L, S) or (L, S): their mean over the heads or, unless `average_attn_weights`, (N, H, L, S) or
    (H, L, S). `attn_mask` (L, S) or (N·H, L, S) and `key_padding_mask` (N, S) or (S): booleans, true where
    attending is forbidden (the opposite of `scaled_dot_product_attention`), or floats to add to the scores.
    `in_proj_weight` (3E, E) holds W_q, W_k and W_v unless `use_separate_proj_weight`. `bias_k` and `bias_v`
    (1, 1, E) are one more key and value, `add_zero_attn` adds one of zeros; `static_k` and `static_v`
    (N·H, S, E/H) replace the projected ones. `is_causal` is a hint that `attn_mask` is the causal mask.
    A query that may attend to nothing gets NaN with `need_weights`, zeros without, as in torch.
    Raises AssertionError or RuntimeError where shapes or types do not fit.
    Source: lecture notes, "Multi-Head Attention Layer"; A. Vaswani et al., "Attention Is All You Need", 2017.
    """
    if is_causal_bias(attn_mask):
        raise TypeError("a CausalBias is for scaled_dot_product_attention; attn_mask must be a tensor of numbers here")
    batched = _check_multi_head(query, key, value, key_padding_mask, attn_mask, num_heads)
    padding = _as_bias("key_padding_mask", key_padding_mask, query.dtype, "attn_mask", attn_mask)
    if is_causal and attn_mask is None:
        raise RuntimeError("is_causal is a hint about attn_mask, but attn_mask is None: pass the causal mask too")
    is_causal = is_causal and padding is None and not need_weights
    mask = None if is_causal else _as_bias("attn_mask", attn_mask, query.dtype)
    _check_projections(query, key, value, embed_dim_to_check, num_heads, use_separate_proj_weight)

    projections: Sequence[Tensor | None]
    if use_separate_proj_weight:
        projections = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        projections = (None, None, None) if in_proj_weight is None else in_proj_weight.chunk(3)
    q, k, v = _project((query, key, value), projections, in_proj_bias)
    if not batched:
        q, k, v = [tensor.unsqueeze(1) for tensor in (q, k, v)]
    length, batch, embed_dim = q.shape
    if k.shape[1] != batch:
        raise RuntimeError(f"query has {batch} sequences in its batch, but key and value have {k.shape[1]}")
    mask = _merge_masks(mask, padding, (batch, num_heads, length, k.shape[0]))

    if bias_k is not None or bias_v is not None:
        k, v = _append_biases(k, v, bias_k, bias_v, static_k, static_v)
    q, k, v = [_split_heads(tensor, num_heads) for tensor in (q, k, v)]
    k = _replace("static_k", k, static_k)
    v = _replace("static_v", v, static_v)
    if add_zero_attn:
        k, v = [torch.cat([tensor, tensor.new_zeros(*q.shape[:2], 1, q.shape[3])], 2) for tensor in (k, v)]
    added = (bias_k is not None) + add_zero_attn
    if mask is not None and added:
        mask = torch.cat([mask, mask.new_zeros(*mask.shape[:-1], added)], -1)

    dropout_p = dropout_p if training else 0.0
    if need_weights:
        output, attention_weights = _attention_and_weights(q, k, v, mask, dropout_p)
    else:
        output, attention_weights = scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal), None
    output = linear(output.permute(2, 0, 1, 3).reshape(length, batch, embed_dim), out_proj_weight, out_proj_bias)
    if attention_weights is not None and average_attn_weights:
        attention_weights = attention_weights.mean(1)
    if not batched:
        output = output.squeeze(1)
        attention_weights = None if attention_weights is None else attention_weights.squeeze(0)
    return output, attention_weights


@autocast(cpu="lower", cuda="lower")
def _attention_and_weights(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float
) -> tuple[Tensor, Tensor]:
    """Y and P, after dropout, with NaN for a query that may attend to nothing."""
    if mask is not None:
        if mask.dtype != query.dtype:
            raise RuntimeError(f"a floating-point mask must have the query's dtype {query.dtype}, but got {mask.dtype}")
        forbidden = (mask == -torch.inf).all(-1, keepdim=True)
        mask = mask + mask.new_zeros(forbidden.shape).masked_fill(forbidden, torch.nan)
    arguments = _arguments(widen(query), widen(key), widen(value), mask, dropout_p, None)
    output, weights = autograd.attention(*arguments)
    *_, noise, _ = arguments
    if noise is not None:
        weights = weights * noise
    in_float32 = query.is_cuda and is_autocasting("cuda")  # softmax's type there
    return output.to(query.dtype), weights.to(torch.float32 if in_float32 else query.dtype)


def _arguments(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, scale: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, float]:
    """What the Functions take: one batch shape, the mask as a bias, dropout as noise, a scale."""
    length, sources, features = query.shape[-2], key.shape[-2], query.shape[-1]
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    query, key, value = [tensor.expand(*batch, -1, -1) for tensor in (query, key, value)]
    bias = noise = None
    if mask is not None:
        dtype = wide_type(query.dtype)
        bias = _forbid(mask, dtype).to(dtype).expand(*batch, length, sources)
    if dropout_p > 0:
        noise = query.new_empty(*batch, length, sources).bernoulli_(1 - dropout_p)
        noise = noise / (1 - dropout_p) if dropout_p < 1 else noise
    return query, key, value, bias, noise, 1 / math.sqrt(max(features, 1)) if scale is None else float(scale)


def _forbid(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as floats to add to the scores: booleans, true where attending is allowed, become 0 and −∞."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask.logical_not(), -torch.inf)


def _check_groups(query: Tensor, key: Tensor, value: Tensor) -> None:
    """RuntimeError unless keys and values serve as many heads each."""
    heads = query.shape[-3]
    for groups in (key.shape[-3], value.shape[-3]):
        if groups != heads and (groups == 0 or heads % groups):
            raise RuntimeError(
                "enable_gqa: the query's number of heads must be a multiple of the key's and the value's, "
                f"but got {heads} and {groups}"
            )


def _match_heads(output: Tensor, query: Tensor) -> Tensor:
    """`output` in memory as (*, L, H, E) where the (*, H, L, E) of `query` is: users view it as (*, L, H·E)."""
    if query.dim() == 4 and query.shape == output.shape and query.transpose(1, 2).is_contiguous():
        return output.transpose(1, 2).contiguous().transpose(1, 2)
    return output


def _project(
    tensors: tuple[Tensor, Tensor, Tensor], weights: Sequence[Tensor | None], bias: Tensor | None
) -> list[Tensor]:
    """Query, key and value, each through its linear layer."""
    biases = (None, None, None) if bias is None else bias.chunk(3)
    query, key, value = tensors
    q = query.contiguous()
    k = q if key is query else key.contiguous()  # of self-attention once, for the three to keep
    v = q if value is query else k if value is key else value.contiguous()
    projected = []
    for name, rows, weight, b in zip("qkv", (q, k, v), weights, biases, strict=True):
        if weight is None:
            raise AssertionError(
                f"the projection of {name} has no weight: pass {name}_proj_weight with use_separate_proj_weight, "
                "in_proj_weight without"
            )
        projected.append(linear(rows, weight, b))
    return projected


def _split_heads(tensor: Tensor, num_heads: int) -> Tensor:
    """(L, N, H·E) → (N, H, L, E)."""
    length, batch, embed_dim = tensor.shape
    return tensor.view(length, batch, num_heads, embed_dim // num_heads).permute(1, 2, 0, 3)


def _append_biases(
    k: Tensor,
    v: Tensor,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    static_k: Tensor | None,
    static_v: Tensor | None,
) -> list[Tensor]:
    """One more key and value for every sequence: the same, learned ones."""
    if bias_k is None or bias_v is None:
        raise AssertionError("bias_k and bias_v go together, but only one of them is given")
    if static_k is not None or static_v is not None:
        raise AssertionError("bias_k and bias_v cannot be added to static_k and static_v")
    return [torch.cat([t, bias.expand(1, *t.shape[1:])]) for t, bias in ((k, bias_k), (v, bias_v))]


def _replace(name: str, projected: Tensor, static: Tensor | None) -> Tensor:
    """`static` (N·H, S, E), if given, in place of `projected` (N, H, ·, E)."""
    if static is None:
        return projected
    batch, heads, _, features = projected.shape
    if static.shape[0] != batch * heads or static.shape[2] != features:
        raise AssertionError(
            f"{name} must be of size (N·H, S, E/H) = ({batch * heads}, S, {features}), but got {list(static.shape)}"
        )
    return static.view(batch, heads, -1, features)


def _as_bias(
    name: str, mask: Tensor | None, dtype: torch.dtype, other_name: str = "", other: Tensor | None = None
) -> Tensor | None:
    """A boolean mask, true where attending is forbidden, as the floats to add to the scores."""
    if mask is None:
        return None
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise AssertionError(f"{name} must be boolean or floating-point, but got {mask.dtype}")
    if other is not None and mask.dtype != other.dtype:
        warnings.warn(
            f"Support for mismatched {name} and {other_name} is deprecated. Use same type for both instead: "
            f"they are of {mask.dtype} and {other.dtype}.",
            stacklevel=4,
        )
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)
    return mask


def _merge_masks(mask: Tensor | None, padding: Tensor | None, shape: tuple[int, int, int, int]) -> Tensor | None:
    """`mask` (L, S) or (N·H, L, S) plus `padding` (N, S) or (S), to broadcast to `shape` (N, H, L, S)."""
    batch, heads, length, sources = shape
    if mask is not None:
        expected = (length, sources) if mask.dim() == 2 else (batch * heads, length, sources)
        if mask.shape != expected:
            raise RuntimeError(f"attn_mask must be of size {expected}, but got {tuple(mask.shape)}")
        mask = mask if mask.dim() == 2 else mask.view(shape)
    if padding is None:
        return mask
    if padding.numel() != batch * sources or padding.shape[-1] != sources:
        raise AssertionError(
            f"key_padding_mask must be of size (N, S) = {(batch, sources)}, but got {tuple(padding.shape)}"
        )
    padding = padding.view(batch, 1, 1, sources)
    return padding if mask is None else mask + padding


def _check_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float, is_causal: bool
) -> None:
    """The errors of `scaled_dot_product_attention` that no operation would raise, or none clearly."""
    tensors = {"query": query, "key": key, "value": value}
    for name, tensor in tensors.items():
        if tensor.is_nested:
            raise NotImplementedError(f"{name} is a nested tensor; pad it and pass a mask instead")
        if tensor.dim() < 2:
            raise RuntimeError(f"{name} must have at least 2 dimensions, but got size {list(tensor.shape)}")
        if tensor.is_complex():
            raise NotImplementedError(f"attention needs real numbers, but {name} is {tensor.dtype}")
        if not tensor.is_floating_point():
            raise RuntimeError(f"attention needs floating-point numbers, but {name} is {tensor.dtype}")
    for kind in ("dtype", "device"):
        if len({getattr(tensor, kind) for tensor in tensors.values()}) > 1:
            found = ", ".join(str(getattr(tensor, kind)) for tensor in tensors.values())
            raise RuntimeError(f"query, key and value must have the same {kind}, but got {found}")
    if key.shape[-1] != query.shape[-1] or value.shape[-2] != key.shape[-2]:
        sizes = [list(tensor.shape) for tensor in tensors.values()]
        raise RuntimeError(
            "sizes must be (…, L, E), (…, S, E) and (…, S, F) for query, key and value, "
            f"but got {sizes[0]}, {sizes[1]} and {sizes[2]}"
        )
    if dropout_p > 1:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")
    if attn_mask is None:
        return
    if is_causal:
        raise RuntimeError("is_causal makes the mask itself: pass no attn_mask with it, or combine the two yourself")
    if attn_mask.dtype not in (torch.bool, torch.float32, query.dtype):
        raise RuntimeError(
            f"attn_mask must be boolean, torch.float32 or of the query's {query.dtype}, but got {attn_mask.dtype}"
        )


def _check_multi_head(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    num_heads: int,
) -> bool:
    """Whether the input is a batch; AssertionError where the numbers of dimensions do not fit one another."""
    dims = query.dim()
    if dims not in (2, 3):
        raise AssertionError(f"query must be (L, E) or, in a batch, (L, N, E), but got size {list(query.shape)}")
    for name, tensor, allowed in (
        ("key", key, (dims,)),
        ("value", value, (dims,)),
        ("key_padding_mask", key_padding_mask, (dims - 1,)),
        ("attn_mask", attn_mask, (2, 3)),
    ):
        if tensor is not None and tensor.dim() not in allowed:
            raise AssertionError(
                f"with a {dims}-D query, {name} must have {' or '.join(map(str, allowed))} dimensions, "
                f"but got size {list(tensor.shape)}"
            )
    if dims == 2 and attn_mask is not None and attn_mask.dim() == 3:
        expected = (num_heads, query.shape[0], key.shape[0])
        if attn_mask.shape != expected:
            raise AssertionError(f"attn_mask must be of size {expected}, but got {tuple(attn_mask.shape)}")
    return dims == 3


def _check_projections(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int, separate: bool
) -> None:
    """AssertionError where sizes do not fit the projections."""
    if query.shape[-1] != embed_dim:
        raise AssertionError(f"query must have {embed_dim} features, but got {query.shape[-1]}")
    if embed_dim % num_heads:
        raise AssertionError(f"num_heads must divide the embedding dimension {embed_dim}, but got {num_heads}")
    same = key.shape[:-1] == value.shape[:-1] if separate else key.shape == value.shape
    if not same:
        raise AssertionError(f"key and value must agree in size, but got {list(key.shape)} and {list(value.shape)}")

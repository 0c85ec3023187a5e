"""Linear layers, embeddings, dropout, attention and recurrent cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.checking.corpus import wrong


def linear(
    dx: Callable[..., Tensor] = lambda x, w, g: g @ w,
    dw: Callable[..., Tensor] = lambda x, w, g: g.flatten(0, -2).T @ x.flatten(0, -2),
    db: Callable[..., Tensor] = lambda g: g.flatten(0, -2).sum(0),
) -> type[torch.autograd.Function]:
    """y = x Wᵀ + b of these parts, for inputs of two dimensions or more."""

    class MyLinear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
            ctx.save_for_backward(input, weight)
            ctx.has_bias = bias is not None
            y = input @ weight.T
            return y if bias is None else y + bias

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            x, w = ctx.saved_tensors
            one = x.dim() == 1
            x, g = (x.unsqueeze(0), g.unsqueeze(0)) if one else (x, g)
            grad = dx(x, w, g)
            return grad.squeeze(0) if one else grad, dw(x, w, g), db(g) if ctx.has_bias else None

    return MyLinear


def wrong_linear(name: str, named: str, function: type) -> None:
    function.__name__ = name
    wrong("linear", named)(function)


def rows(x: Tensor) -> Tensor:
    return x.flatten(0, -2)


wrong_linear("WeightTransposedInBackward", "transposed in dL/dx|wrong shape", linear(dx=lambda x, w, g: g @ w.T))
wrong_linear(
    "WeightGradientTransposed", "dL/dW is transposed|wrong shape", linear(dw=lambda x, w, g: rows(x).T @ rows(g))
)
wrong_linear(
    "WeightGradientMean", "mean|batch|1/N|N", linear(dw=lambda x, w, g: rows(g).T @ rows(x) / max(len(rows(g)), 1))
)
wrong_linear("WeightGradientOfLastSample", "last", linear(dw=lambda x, w, g: rows(g)[-1:].T @ rows(x)[-1:]))
wrong_linear("BiasGradientMean", "mean over", linear(db=lambda g: rows(g).mean(0)))
wrong_linear("LinearWithoutG", "dL/dy is ignored", linear(dx=lambda x, w, g: torch.ones_like(g) @ w))
wrong_linear("LinearNegated", "sign is wrong", linear(dw=lambda x, w, g: -(rows(g).T @ rows(x))))


@wrong("linear", "bias is forgotten|no gradient: None")
def linear_without_bias(input: Tensor, weight: Tensor, bias: Any) -> Tensor:
    return input @ weight.T


@wrong("linear", "sum over what shares it is missing")
class BiasGradientNotSummed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        return input @ weight.T + bias

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return g @ w, g.reshape(-1, g.shape[-1]).T @ x.reshape(-1, x.shape[-1]), g


def embedding(dw: Callable[..., Tensor]) -> type[torch.autograd.Function]:
    class MyEmbedding(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor, weight: Tensor, padding_idx: Any = None) -> Tensor:
            ctx.save_for_backward(input)
            ctx.rows, ctx.padding = weight.shape[0], padding_idx
            return weight[input]

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            (index,) = ctx.saved_tensors
            grad = dw(g.new_zeros(ctx.rows, g.shape[-1]), index.reshape(-1), g.reshape(-1, g.shape[-1]))
            if ctx.padding is not None:
                grad[ctx.padding] = 0
            return None, grad, None

    return MyEmbedding


def assigned(grad: Tensor, index: Tensor, g: Tensor) -> Tensor:
    for row, gradient in zip(index.tolist(), g, strict=True):
        grad[row] = gradient
    return grad


def averaged(grad: Tensor, index: Tensor, g: Tensor) -> Tensor:
    count = torch.bincount(index, minlength=len(grad)).clamp(min=1)
    return grad.index_add(0, index, g) / count[:, None]


for name, named, dw in (
    ("RepeatedRowsOverwritten", "repeated indices are overwritten", assigned),
    ("RepeatedRowsAveraged", "mean over repeated", averaged),
    ("EmbeddingWithoutG", "dL/dy is ignored", lambda grad, index, g: grad.index_add(0, index, torch.ones_like(g))),
):
    function = embedding(dw)
    function.__name__ = name
    wrong("embedding", named)(function)


@wrong("embedding", "padding_idx has a gradient")
def embedding_that_learns_its_padding(input: Tensor, weight: Tensor, padding_idx: Any) -> Tensor:
    return weight[input]


def dropout(name: str, named: str, value: Callable[..., Tensor], grad: Callable[..., Tensor]) -> None:
    class MyDropout(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor, mask: Tensor, p: float) -> Tensor:
            ctx.save_for_backward(mask)
            ctx.p = p
            return value(input, mask, p)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            (mask,) = ctx.saved_tensors
            return grad(g, mask, ctx.p), None, None

    MyDropout.__name__ = name
    wrong("dropout", named)(MyDropout)


def dropped(x: Tensor, mask: Tensor, p: float) -> Tensor:
    return x * mask / (1 - p)


dropout("DropoutNotScaled", "scale 1 / \\(1 − p\\) is forgotten", lambda x, m, p: x * m, lambda g, m, p: g * m)
dropout("DropoutScaledForwardOnly", "scale 1 / \\(1 − p\\) is forgotten", dropped, lambda g, m, p: g * m)
dropout("DropoutScaledByP", "scaled by 1 / p", lambda x, m, p: x * m / p, lambda g, m, p: g * m / p)
dropout("DropoutBackwardWithoutMask", "mask is forgotten", dropped, lambda g, m, p: g / (1 - p))
dropout(
    "DropoutOfTheKept",
    "turned round",
    lambda x, m, p: x * (1 - m) / (1 - p),
    lambda g, m, p: g * (1 - m) / (1 - p),
)


# Attention, by plain operations


def scores(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.transpose(-2, -1)


@wrong("scaled_dot_product_attention", "scale is forgotten")
def attention_without_scale(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return scores(query, key).softmax(-1) @ value


@wrong("scaled_dot_product_attention", "1 / d")
def attention_scaled_by_d(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (scores(query, key) / query.shape[-1]).softmax(-1) @ value


@wrong("scaled_dot_product_attention", "over the queries")
def attention_with_softmax_over_queries(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (scores(query, key) / math.sqrt(query.shape[-1])).softmax(-2) @ value


@wrong("scaled_dot_product_attention", "softmax is missing")
def attention_without_softmax(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (scores(query, key) / math.sqrt(query.shape[-1])) @ value


@wrong("scaled_dot_product_attention", "hides the diagonal")
def attention_that_does_not_see_itself(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> Tensor:
    """tril(−1) for tril(); the first query still sees the first key."""
    s = scores(query, key) / math.sqrt(query.shape[-1])
    if is_causal:
        seen = torch.ones(s.shape[-2:], dtype=torch.bool).tril(-1)
        seen[:, 0] = True
        s = s.masked_fill(~seen, -torch.inf)
    return s.softmax(-1) @ value


@wrong("scaled_dot_product_attention", "mask is 0")
def attention_masked_by_zero(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> Tensor:
    """A score of 0 still has e⁰ = 1."""
    s = scores(query, key) / math.sqrt(query.shape[-1])
    if is_causal:
        s = s * torch.ones_like(s).tril()
    return s.softmax(-1) @ value


def attention(dq: Callable[..., Tensor], dscores: Callable[..., Tensor], dv: Callable[..., Tensor]) -> type:
    class MyAttention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            ctx.scale = 1 / math.sqrt(query.shape[-1])
            p = (scores(query, key) * ctx.scale).softmax(-1)
            ctx.save_for_backward(query, key, value, p)
            return p @ value

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            q, k, v, p = ctx.saved_tensors
            ds = dscores(p, g @ v.mT)
            return dq(ds, k, ctx.scale), ds.mT @ q * ctx.scale, dv(p, g)

    return MyAttention


def right_ds(p: Tensor, dp: Tensor) -> Tensor:
    return p * (dp - (p * dp).sum(-1, keepdim=True))


for name, named, function in (
    (
        "QueryGradientWithoutScale",
        "scale 1 / √d is missing",
        attention(lambda ds, k, s: ds @ k, right_ds, lambda p, g: p.mT @ g),
    ),
    (
        "ScoresDiagonalOnly",
        "only the diagonal",
        attention(lambda ds, k, s: ds @ k * s, lambda p, dp: p * (1 - p) * dp, lambda p, g: p.mT @ g),
    ),
    (
        "ValueGradientNotTransposed",
        "P is not transposed|wrong shape",
        attention(lambda ds, k, s: ds @ k * s, right_ds, lambda p, g: p @ g),
    ),
):
    function.__name__ = name
    wrong("scaled_dot_product_attention", named)(function)


# Recurrent cells


def gates(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> tuple[Tensor, Tensor]:
    return F.linear(x, w_ih, b_ih), F.linear(h, w_hh, b_hh)


@wrong("rnn_tanh_cell", "b_hh is forgotten|no gradient: None")
def rnn_with_one_bias(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Tensor:
    return (F.linear(input, w_ih, b_ih) + hx @ w_hh.T).tanh()


@wrong("rnn_tanh_cell", "taken at the preactivation")
class RnnWithTheDerivativeOfItsInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor) -> Tensor:
        a = input @ w_ih.T + hx @ w_hh.T
        ctx.save_for_backward(input, hx, w_ih, w_hh, a)
        return a.tanh()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, h, w_ih, w_hh, a = ctx.saved_tensors
        d = g * (1 - a * a)
        return d @ w_ih, d @ w_hh, d.T @ x, d.T @ h


@wrong("rnn_tanh_cell", "no gradient: None")
def rnn_with_a_detached_state(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor) -> Tensor:
    """Truncated after every step."""
    return (input @ w_ih.T + hx.detach() @ w_hh.T).tanh()


@wrong("lstm_cell", "order i, f, o, g")
def lstm_with_gates_in_another_order(
    input: Tensor, hx: Tensor, cx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> tuple[Tensor, Tensor]:
    """i, f, o, g, as some papers have them."""
    i, f, o, g = sum(gates(input, hx, w_ih, w_hh, b_ih, b_hh)).chunk(4, 1)
    c = f.sigmoid() * cx + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


@wrong("lstm_cell", "tanh of c' is forgotten")
def lstm_without_tanh_of_the_cell(
    input: Tensor, hx: Tensor, cx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> tuple[Tensor, Tensor]:
    i, f, g, o = sum(gates(input, hx, w_ih, w_hh, b_ih, b_hh)).chunk(4, 1)
    c = f.sigmoid() * cx + i.sigmoid() * g.tanh()
    return o.sigmoid() * c, c


@wrong("gru_cell", "z and 1 − z")
def gru_with_its_update_exchanged(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> Tensor:
    """h = (1 − z)·h + z·n, as Cho et al. have it in one of their versions."""
    a, b = gates(input, hx, w_ih, w_hh, b_ih, b_hh)
    (ar, az, an), (br, bz, bn) = a.chunk(3, 1), b.chunk(3, 1)
    r, z = (ar + br).sigmoid(), (az + bz).sigmoid()
    return (1 - z) * hx + z * (an + r * bn).tanh()


@wrong("gru_cell", "reset gate is applied to h")
def gru_that_resets_before_the_product(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any
) -> Tensor:
    """As the paper has it; torch resets behind the product and its bias."""
    a, b = gates(input, hx, w_ih, w_hh, b_ih, b_hh)
    (ar, az, an), (br, bz, _) = a.chunk(3, 1), b.chunk(3, 1)
    r, z = (ar + br).sigmoid(), (az + bz).sigmoid()
    n = (an + F.linear(r * hx, w_hh.chunk(3)[2], None if b_hh is None else b_hh.chunk(3)[2])).tanh()
    return (1 - z) * n + z * hx

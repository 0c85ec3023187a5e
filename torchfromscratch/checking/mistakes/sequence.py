"""How attention and recurrent cells go wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from torchfromscratch.checking.formulas import attention_mask, linear, sigmoid, softmax, tanh
from torchfromscratch.checking.mistakes.row import Mistake, NotApplicableError, forward, gradient, square
from torchfromscratch.checking.truth import Truth

ATTENTION = (
    "With P = softmax(Q Kᵀ / √d): dL/dV = Pᵀ dL/dY, dP = dL/dY Vᵀ, dS = P · (dP − Σ dP · P), dL/dQ = dS K / √d and "
    "dL/dK = dSᵀ Q / √d."
)
_SCALE = "The scores are divided by √d, d the width of the queries and keys, in dL/dQ and dL/dK, too."


def scale(t: Truth) -> float:
    """1 / √d, or what was given."""
    return float(t.query.shape[-1] ** -0.5 if t.scale is None else t.scale)


def scores(t: Truth) -> Tensor:
    """Q Kᵀ / √d + mask."""
    return t.query @ t.key.mT * scale(t) + attention_mask(t.query, t.key, t.attn_mask, t.is_causal)


def probabilities(t: Truth) -> Tensor:
    """P."""
    return softmax(scores(t).detach())


def jacobian(t: Truth, change: Callable[[Tensor, Tensor], Tensor], factor: float | None = None) -> dict[str, Tensor]:
    """dL/dQ and dL/dK if this is made of P and dP."""
    ds = change(probabilities(t), t.g @ t.value.detach().mT) * (scale(t) if factor is None else factor)
    return {"query": ds @ t.key.detach(), "key": ds.mT @ t.query.detach()}


def softmax_backward(p: Tensor, dp: Tensor) -> Tensor:
    """P · (dP − Σ dP · P)."""
    return p * (dp - (dp * p).sum(-1, keepdim=True))


def of_attention() -> Iterator[Mistake]:
    """Scales, softmax's Jacobian, transposed products and masks."""
    for name in ("query", "key"):
        letter = name[0].upper()
        for sentence, change, factor in (
            (f"The scale 1 / √d is missing in dL/d{letter}.", softmax_backward, lambda t: 1.0),
            (f"The scale is applied twice in dL/d{letter}.", softmax_backward, lambda t: scale(t) ** 2),
            ("Only the diagonal of softmax's Jacobian: dP · P · (1 − P).", lambda p, dp: dp * p * (1 - p), scale),
            ("The sum of softmax's Jacobian is missing: dP · P.", lambda p, dp: dp * p, scale),
            (
                "The sum is not weighted by P: P · (dP − Σ dP).",
                lambda p, dp: p * (dp - dp.sum(-1, keepdim=True)),
                scale,
            ),
            (
                "The sign of the sum is wrong: P · (dP + Σ dP · P).",
                lambda p, dp: p * (dp + (dp * p).sum(-1, keepdim=True)),
                scale,
            ),
            (
                "The sum is over the queries, not over the keys.",
                lambda p, dp: p * (dp - (dp * p).sum(-2, keepdim=True)),
                scale,
            ),
            ("The softmax is passed over: dS = dP.", lambda p, dp: dp, scale),
            (
                "The mean in place of the sum in softmax's Jacobian.",
                lambda p, dp: p * (dp - (dp * p).mean(-1, keepdim=True)),
                scale,
            ),
            ("The factor P outside of the sum is missing.", lambda p, dp: dp - (dp * p).sum(-1, keepdim=True), scale),
        ):
            yield gradient(name, sentence, ATTENTION, lambda t, n=name, c=change, f=factor: jacobian(t, c, f(t))[n])
    yield gradient(
        "query",
        "dS is transposed in dL/dQ.",
        ATTENTION,
        lambda t: square(softmax_backward(probabilities(t), t.g @ t.value.detach().mT)).mT @ t.key.detach() * scale(t),
    )
    yield gradient(
        "key",
        "dS is not transposed in dL/dK.",
        ATTENTION,
        lambda t: square(softmax_backward(probabilities(t), t.g @ t.value.detach().mT)) @ t.query.detach() * scale(t),
    )
    yield gradient("value", "P is not transposed in dL/dV.", ATTENTION, lambda t: square(probabilities(t)) @ t.g)
    yield gradient("value", "The scores in place of P in dL/dV.", ATTENTION, lambda t: scores(t).detach().mT @ t.g)
    yield gradient("value", "The scale is applied in dL/dV.", ATTENTION, lambda t: probabilities(t).mT @ t.g * scale(t))
    for sentence, output in (
        ("The scale is forgotten.", lambda t: t.output(scale=1.0)),
        ("The scale is 1 / d, not 1 / √d.", lambda t: t.output(scale=1 / t.query.shape[-1])),
        ("The scale is √d, not 1 / √d.", lambda t: t.output(scale=math.sqrt(t.query.shape[-1]))),
        ("The scale is 1 / √d, whatever scale says.", lambda t: t.output(scale=None)),
        ("The scale is of the values' width.", lambda t: t.output(scale=t.value.shape[-1] ** -0.5)),
        ("The scale is of the number of keys.", lambda t: t.output(scale=t.key.shape[-2] ** -0.5)),
    ):
        yield forward(sentence, _SCALE, output)
    yield forward(
        "The softmax is over the queries, not over the keys.", ATTENTION, lambda t: softmax(scores(t), -2) @ t.value
    )
    yield forward("The softmax is missing.", ATTENTION, lambda t: scores(t) @ t.value)
    masks = "A mask of bools keeps what is True, one of numbers is added to the scores; causal: key j for query i ≥ j."
    yield forward("The mask is forgotten.", masks, lambda t: t.output(attn_mask=None))
    yield forward("The mask is turned round.", masks, lambda t: t.output(attn_mask=~t.attn_mask))
    yield forward("Causality is forgotten.", masks, lambda t: t.output(is_causal=False))
    for sentence, diagonal in (
        ("The causal mask hides the diagonal, too.", -1),
        ("The causal mask shows one key too many.", 1),
    ):
        yield forward(sentence, masks, lambda t, d=diagonal: causal(t, lower(t, d)))
    yield forward(
        "The causal mask hides the diagonal, too, but for the first key.",
        masks,
        lambda t: causal(t, lower(t, -1) | (torch.arange(t.key.shape[-2]) == 0)),
    )
    yield forward(
        "The causal mask hides the past, not the future.",
        masks,
        lambda t: causal(t, ~lower(t, -1)),
    )
    yield forward(
        "The mask is 0, not −∞: what is hidden still has e⁰.", masks, lambda t: softmax(zeros_for_infinity(t)) @ t.value
    )
    yield forward(
        "The mask is applied behind the softmax, which then does not add up to 1.",
        masks,
        lambda t: softmax(t.query @ t.key.mT * scale(t)) * (scores(t) > -math.inf) @ t.value,
    )


def zeros_for_infinity(t: Truth) -> Tensor:
    """Scores that are 0 where they are hidden."""
    hidden = scores(t) == -math.inf
    return torch.where(hidden, 0, t.query @ t.key.mT * scale(t))


def lower(t: Truth, diagonal: int) -> Tensor:
    """The keys that a query sees, up to a diagonal."""
    return torch.ones(t.query.shape[-2], t.key.shape[-2], dtype=torch.bool).tril(diagonal)


def causal(t: Truth, allowed: Tensor) -> Tensor:
    """The output with this in place of the causal mask."""
    if not t.is_causal:
        raise NotApplicableError
    return t.output(attn_mask=allowed, is_causal=False)


# Recurrent cells


def preactivations(t: Truth) -> tuple[Tensor, Tensor]:
    """What the input and the state bring."""
    return linear(t.input, t.w_ih, t.b_ih), linear(t.hx, t.w_hh, t.b_hh)


def of_terms() -> Iterator[Mistake]:
    """What every cell is made of."""
    terms = "Every cell is made of W_ih x + b_ih + W_hh h + b_hh."
    for name, neutral in (("b_ih", "b_ih"), ("b_hh", "b_hh")):
        yield forward(
            f"{neutral} is forgotten.",
            terms,
            lambda t, name=name: t.layer(**{**t.arguments, name: torch.zeros_like(getattr(t, name))}),
        )
    yield forward("Both biases are forgotten.", terms, lambda t: t.layer(**{**t.arguments, "b_ih": None, "b_hh": None}))
    yield forward("W_hh h is forgotten.", terms, lambda t: t.layer(**{**t.arguments, "w_hh": torch.zeros_like(t.w_hh)}))
    yield forward("W_ih x is forgotten.", terms, lambda t: t.layer(**{**t.arguments, "w_ih": torch.zeros_like(t.w_ih)}))
    for name in ("b_ih", "b_hh"):
        yield gradient(
            name,
            f"dL/d {name} is twice its value, for both biases at once.",
            terms,
            lambda t, name=name: 2 * t.gradient(name),
        )


def of_square() -> Iterator[Mistake]:
    """Transposed products, where a weight has as many rows as columns."""
    terms = "dL/dW = dL/daᵀ x, and dL/dx = dL/da W."
    for name in ("w_ih", "w_hh"):
        yield gradient(name, f"dL/d {name} is transposed.", terms, lambda t, name=name: square(t.gradient(name)).mT)
    for name, weight in (("input", "w_ih"), ("hx", "w_hh")):
        yield gradient(
            name,
            f"{weight} is transposed in dL/d {name}.",
            terms,
            lambda t, name=name, weight=weight: behind_activation(t) @ square(getattr(t, weight).detach()).mT,
        )


def behind_activation(t: Truth) -> Tensor:
    """dL/da of a cell of one activation."""
    a = sum(preactivations(t)).detach().requires_grad_()  # type: ignore[union-attr]
    y = tanh(a) if t.layer.name == "rnn_tanh_cell" else a.clamp(min=0)
    return torch.autograd.grad(y, a, t.g)[0]


def of_simple(derivatives: dict[str, Callable[[Tensor, Tensor], Tensor]], explanation: str) -> Iterator[Mistake]:
    """Cells of one activation: wrong derivatives of it, as functions of the preactivation a and of h'."""
    for sentence, derivative in derivatives.items():

        def output(t: Truth, derivative: Callable[[Tensor, Tensor], Tensor] = derivative) -> Tensor:
            u, v = preactivations(t)
            a = u + v
            return t.y.detach() + derivative(a.detach(), t.y.detach()) * (a - a.detach())

        yield forward(sentence, explanation, output)


TANH_CELL = (
    *of_terms(),
    *of_square(),
    *of_simple(
        {
            "tanh's derivative is missing.": lambda a, h: torch.ones_like(a),
            "tanh's derivative is taken at the preactivation: 1 − a².": lambda a, h: 1 - a * a,
            "tanh's derivative is taken at tanh(h').": lambda a, h: 1 - h.tanh() ** 2,
            "tanh's derivative is 1 − h', not 1 − h'².": lambda a, h: 1 - h,
            "The sigmoid's derivative in place of tanh's.": lambda a, h: h * (1 - h),
            "The sign of tanh's derivative is wrong: 1 + h'².": lambda a, h: 1 + h * h,
        },
        "dL/da = dL/dh' · (1 − h'²), and every gradient goes through a.",
    ),
    forward("tanh is forgotten.", "h' = tanh(a).", lambda t: sum(preactivations(t))),
    forward("ReLU in place of tanh.", "h' = tanh(a).", lambda t: sum(preactivations(t)).clamp(min=0)),  # type: ignore[union-attr]
    forward("The sigmoid in place of tanh.", "h' = tanh(a).", lambda t: sigmoid(sum(preactivations(t)))),  # type: ignore[arg-type]
)
RELU_CELL = (
    *of_terms(),
    *of_square(),
    *of_simple(
        {
            "ReLU's mask is missing.": lambda a, h: torch.ones_like(a),
            "tanh's derivative in place of ReLU's.": lambda a, h: 1 - h * h,
        },
        "dL/da = dL/dh' where h' > 0.",
    ),
    forward("tanh in place of ReLU.", "h' = max(0, a).", lambda t: tanh(sum(preactivations(t)))),  # type: ignore[arg-type]
)

_LSTM = "c' = σ(f) c + σ(i) tanh(g) and h' = σ(o) tanh(c'): the gates lie in the order i, f, g, o."


def lstm(
    t: Truth,
    order: str = "ifgo",
    keep: Callable[[str, Tensor], Tensor] = lambda name, x: x,
    candidate: Callable[[Tensor], Tensor] = tanh,
) -> tuple[Tensor, Tensor]:
    """The cell with gates in another order, each part passed through `keep`, or another activation."""
    parts = dict(zip(order, sum(preactivations(t)).chunk(4, -1), strict=True))  # type: ignore[union-attr]
    i, f, o = (keep(name, sigmoid(parts[name])) for name in "ifo")
    c = f * keep("c", t.cx) + i * keep("g", candidate(parts["g"]))
    return o * tanh(keep("c'", c)), c


def constant(*names: str) -> Callable[[Truth], tuple[Tensor, Tensor]]:
    """The cell with parts taken for constants."""
    return lambda t: lstm(t, keep=lambda name, x: x.detach() if name in names else x)


def of_lstm() -> Iterator[Mistake]:
    """Gates exchanged, taken for constants, and paths that are missing."""
    for order in map("".join, itertools.permutations("ifgo")):
        if order != "ifgo":
            yield forward(
                f"The gates are taken in the order {', '.join(order)}.", _LSTM, lambda t, order=order: lstm(t, order)
            )
    for name, what in (("i", "input gate"), ("f", "forget gate"), ("o", "output gate"), ("g", "candidate")):
        yield forward(f"Nothing goes back through the {what}.", _LSTM, constant(name))
    yield forward(
        "The path from h' to c' is missing: dL/dc' is that of c' alone.",
        "c' gets dL/dc' and what comes back from h': dL/dh' · σ(o) · (1 − tanh²(c')).",
        constant("c'"),
    )
    yield forward("The sigmoid in place of tanh for the candidate.", _LSTM, lambda t: lstm(t, candidate=sigmoid))
    yield forward("tanh of the candidate is forgotten.", _LSTM, lambda t: lstm(t, candidate=lambda g: g))
    yield forward("Nothing goes back to c.", _LSTM, constant("c"))
    yield forward("All gates are taken for constants.", _LSTM, constant("i", "f", "o"))
    yield gradient(
        "cx", "dL/dc is dL/dc', without the forget gate.", _LSTM, lambda t: t.gradient("cx") / sigmoid(lstm_gate(t, 1))
    )
    yield forward("tanh of c' is forgotten in h'.", _LSTM, lambda t: _linear_cell(t))
    yield gradient(
        "cx", "dL/dc leaves out dL/dh'.", _LSTM, lambda t: t.gradient("cx", g=[torch.zeros_like(t.gs[0]), t.gs[1]])
    )
    for name in ("input", "hx", "cx", "w_ih", "w_hh", "b_ih", "b_hh"):
        yield gradient(
            name,
            "dL/dc' is ignored.",
            "dL/dc' comes in from the next step.",
            lambda t, name=name: t.gradient(name, g=[t.gs[0], torch.zeros_like(t.gs[1])]),
        )
        yield gradient(
            name,
            "dL/dh' is ignored.",
            "dL/dh' comes in from the next step and from the layer above.",
            lambda t, name=name: t.gradient(name, g=[torch.zeros_like(t.gs[0]), t.gs[1]]),
        )
    yield forward(
        "The derivative of tanh(c') is missing.",
        "dL/dc' += dL/dh' · σ(o) · (1 − tanh²(c')).",
        lambda t: lstm(t, keep=_flat_tanh),
    )


def _flat_tanh(part: str, x: Tensor) -> Tensor:
    """c' such that tanh's derivative at it is cancelled."""
    return x.detach() + (x - x.detach()) / (1 - x.detach().tanh() ** 2) if part == "c'" else x


def lstm_gate(t: Truth, index: int) -> Tensor:
    """One of the four preactivations."""
    gates: Sequence[Tensor] = sum(preactivations(t)).chunk(4, -1)  # type: ignore[union-attr]
    return gates[index].detach()


def _linear_cell(t: Truth) -> tuple[Tensor, Tensor]:
    _, c = lstm(t)
    return sigmoid(sum(preactivations(t)).chunk(4, -1)[3]) * c, c  # type: ignore[union-attr]


_GRU = "r, z = σ(u + v), n = tanh(u + r · v) and h' = (1 − z) n + z h: the gates lie in the order r, z, n."


def gru(
    t: Truth,
    order: str = "rzn",
    keep: Callable[[str, Tensor], Tensor] = lambda name, x: x,
    mix: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda z, n, h: (1 - z) * n + z * h,
    inner: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda u, r, v: u + r * v,
) -> Tensor:
    """The cell with something changed."""
    u, v = (dict(zip(order, part.chunk(3, -1), strict=True)) for part in preactivations(t))
    r, z = (keep(name, sigmoid(u[name] + v[name])) for name in "rz")
    n = keep("n", tanh(inner(u["n"], r, keep("v", v["n"]))))
    return mix(z, n, keep("h", t.hx))


def of_gru() -> Iterator[Mistake]:
    """Gates exchanged, taken for constants, and paths that are missing."""
    for order in map("".join, itertools.permutations("rzn")):
        if order != "rzn":
            yield forward(
                f"The gates are taken in the order {', '.join(order)}.", _GRU, lambda t, order=order: gru(t, order)
            )
    yield forward("z and 1 − z are exchanged.", _GRU, lambda t: gru(t, mix=lambda z, n, h: z * n + (1 - z) * h))
    yield forward("The reset gate is applied to h, before W_hh and its bias.", _GRU, _reset_first)
    yield forward("The reset gate is forgotten.", _GRU, lambda t: gru(t, inner=lambda u, r, v: u + v))
    yield forward(
        "The reset gate is applied to the input's part, too.", _GRU, lambda t: gru(t, inner=lambda u, r, v: r * (u + v))
    )
    for name, what in (
        ("r", "the reset gate"),
        ("z", "the update gate"),
        ("n", "the candidate"),
        ("h", "h directly"),
        ("v", "the state's part of the candidate"),
    ):
        yield forward(
            f"Nothing goes back through {what}.",
            _GRU,
            lambda t, name=name: gru(t, keep=lambda part, x: x.detach() if part == name else x),
        )
    for name, other in (("b_ih", "b_hh"), ("b_hh", "b_ih")):
        yield gradient(name, f"The gradient is that of {other}.", _GRU, lambda t, other=other: t.gradient(other))
    yield gradient("hx", "dL/dh has only the direct part, z · dL/dh'.", _GRU, lambda t: _gate(t, 1) * t.g)


def _gate(t: Truth, index: int) -> Tensor:
    u, v = (part.chunk(3, -1)[index].detach() for part in preactivations(t))
    return sigmoid(u + v)


def _reset_first(t: Truth) -> Tensor:
    u, v = preactivations(t)
    u_r, u_z, u_n = u.chunk(3, -1)
    v_r, v_z, _ = v.chunk(3, -1)
    r, z = sigmoid(u_r + v_r), sigmoid(u_z + v_z)
    bias = None if t.b_hh is None else t.b_hh.chunk(3)[2]
    n = tanh(u_n + linear(r * t.hx, t.w_hh.chunk(3)[2], bias))
    return (1 - z) * n + z * t.hx


SCALED_DOT_PRODUCT = tuple(of_attention())
LSTM = (*of_terms(), *of_lstm())
GRU = (*of_terms(), *of_gru())

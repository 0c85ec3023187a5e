"""Attention: each query asks all keys, and takes the mean of the values, weighted with the answers."""

from __future__ import annotations

import math

from torch import Tensor

from torchfromscratch import functional
from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, Step, factor, number, sizes
from torchfromscratch.explaining.layers.common import (
    GradOutput,
    at,
    both,
    cells,
    matrix_product,
    numbers,
    product_step,
    softmax_steps,
)


def attention(query: Tensor, key: Tensor, value: Tensor, *, grad_output: GradOutput) -> Explanation:
    """Scores, weights, y and the gradients of scaled dot-product attention: query (T, D), key (S, D), value (S, E)."""
    operands = {"Q": query, "K": key, "V": value}
    ours, theirs = both(lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v), operands, grad_output)
    grad, root = ours["dL/dy"], math.sqrt(query.shape[1])
    q = query / root
    scores = functional.linear(q, key)
    weights, torchs_weights = functional.softmax(scores, 1), (q @ key.mT).softmax(1)
    to_weights = functional.linear(grad, value)
    means = (weights * to_weights).sum(1)
    to_scores = weights * (to_weights - means[:, None])
    grids = {
        **{name: Grid(tensor) for name, tensor in operands.items()},
        "dL/dy": Grid(grad),
        "q": Grid(q, "Q, divided by √D"),
        "S": Grid(scores, "the scores: a row for each query, a column for each key", torch=q @ key.mT),
        "A": Grid(weights, "the weights: each row adds up to 1", torch=torchs_weights),
        "y": Grid(ours["y"], torch=theirs["y"]),
        "dL/dV": Grid(ours["dL/dV"], torch=theirs["dL/dV"]),
        "dL/dA": Grid(to_weights, torch=grad @ value.mT),
        "m": Grid(means, "the mean of dL/dA, weighted with A"),
        "dL/dS": Grid(to_scores),
        "dL/dK": Grid(ours["dL/dK"], torch=theirs["dL/dK"]),
        "dL/dq": Grid(functional.linear(to_scores, key.mT)),
        "dL/dQ": Grid(ours["dL/dQ"], torch=theirs["dL/dQ"]),
    }

    def divide(result: str, title: str, formula: str, source: str) -> Pass:
        values = grids[source].values.flatten().tolist()
        steps = [
            Step(cell, {source: [cell]}, [(f"{number(value)} / √{query.shape[1]}", 0)])
            for cell, value in enumerate(values)
        ]
        return Pass(result, title, formula, (source,), steps)

    def product(result: str, title: str, left: str, right: str, *, transposed: tuple[bool, bool]) -> Pass:
        return matrix_product(grids, result, title, (left, right), transposed)

    rows = numbers(scores)
    row_means = [product_step(grids, t, {"A": rows[t].tolist(), "dL/dA": rows[t].tolist()}) for t in range(len(query))]
    back = []
    for cell, (t, _) in cells(scores):
        (a,), (g,), (m,) = at(weights, [cell]), at(to_weights, [cell]), at(means, [t])
        used = {"A": [cell], "dL/dA": [cell], "m": [t]}
        back.append(Step(cell, used, [(f"{factor(a)}·({factor(g)} − {factor(m)})", 0)]))
    along = (1, 1, scores.shape[1])
    passes = [
        divide("q", "Scale the queries, so that scores do not grow with D", "q = Q / √D", "Q"),
        product("S", "The scores: every query times every key", "q", "K", transposed=(False, True)),
        Pass(
            "A",
            "Softmax: each query's scores become weights",
            "A[t,s] = e^S[t,s] / Σ_r e^S[t,r]",
            ("S",),
            softmax_steps("S", scores),
            ("S",),
        ),
        product("y", "Forward: the values' mean, by the weights", "A", "V", transposed=(False, False)),
        product("dL/dV", "Gradient of the values", "A", "dL/dy", transposed=(True, False)),
        product("dL/dA", "Gradient of the weights", "dL/dy", "V", transposed=(False, True)),
        Pass(
            "m",
            "What dL/dA is on average, by the weights",
            "m[t] = Σ_s A[t,s] · dL/dA[t,s]",
            ("A", "dL/dA"),
            row_means,
            ("A", "dL/dA"),
            along,
        ),
        Pass(
            "dL/dS",
            "Gradient of the scores, through the softmax",
            "dL/dS[t,s] = A[t,s] · (dL/dA[t,s] − m[t])",
            ("A", "dL/dA", "m"),
            back,
        ),
        product("dL/dK", "Gradient of the keys", "dL/dS", "q", transposed=(True, False)),
        product("dL/dq", "Gradient of the scaled queries", "dL/dS", "K", transposed=(False, False)),
        divide("dL/dQ", "Gradient of the queries", "dL/dQ = dL/dq / √D", "dL/dq"),
    ]
    settings = f"input {sizes(query.shape)}, keys {sizes(key.shape)}, values {sizes(value.shape)}"
    return Explanation("attention", settings, (*operands, "dL/dy"), grids, passes)

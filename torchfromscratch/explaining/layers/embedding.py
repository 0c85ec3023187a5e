"""Embedding: rows are fetched, and their gradients are sent back to where they came from."""

from __future__ import annotations

from torch import Tensor

from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, Step, number, sizes
from torchfromscratch.explaining.layers.common import GradOutput, at, both, cells, numbers, product_step


def embedding(index: Tensor, table: Tensor, *, grad_output: GradOutput) -> Explanation:
    """y and dL/dE of a lookup: index (T), whole numbers; table E (V, D)."""
    ours, theirs = both(lambda F, table: F.embedding(index, table), {"E": table}, grad_output)
    grids = {
        "i": Grid(index.to(table.dtype), "which row each token asks for, from 0 on"),
        "E": Grid(table, "the table: a row for each word"),
        "dL/dy": Grid(ours["dL/dy"]),
        "y": Grid(ours["y"], torch=theirs["y"]),
        "dL/dE": Grid(ours["dL/dE"], torch=theirs["dL/dE"]),
    }
    rows, grads, tokens = numbers(table), numbers(ours["y"]), index.tolist()
    fetched, summed = [], []
    for cell, (t, d) in cells(ours["y"]):
        source = int(rows[tokens[t], d])
        fetched.append(Step(cell, {"i": [t], "E": [source]}, [(number(at(table, [source])[0]), None)]))
    for cell, (v, d) in cells(table):
        asking = [t for t, row in enumerate(tokens) if row == v]
        step = product_step(grids, cell, {"dL/dy": [int(grads[t, d]) for t in asking]})
        summed.append(Step(cell, {**step.used, "i": asking}, step.expression))
    passes = [
        Pass("y", "Forward: fetch a row for each token", "y[t] = E[i[t]]", ("E", "i"), fetched),
        Pass(
            "dL/dE",
            "Gradient of the table: a row's gradients add up over the tokens that asked for it",
            "dL/dE[v] = Σ dL/dy[t], over the t with i[t] = v",
            ("dL/dy", "i"),
            summed,
            ("dL/dy",),
        ),
    ]
    settings = f"input {sizes(index.shape)}, table {sizes(table.shape)}"
    return Explanation("embedding", settings, ("i", "E", "dL/dy"), grids, passes)

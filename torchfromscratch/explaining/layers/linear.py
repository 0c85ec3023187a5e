"""The fully connected layer: three matrix products."""

from __future__ import annotations

from torch import Tensor

from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, sizes
from torchfromscratch.explaining.layers.common import GradOutput, both, cells, numbers, product_step, sum_pass


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    grad_output: GradOutput,
) -> Explanation:
    """y, dL/dw, dL/db and dL/dx of a fully connected layer: input (N, I), weight (O, I), bias (O)."""
    operands = {"x": input, "w": weight, **({} if bias is None else {"b": bias})}
    ours, theirs = both(lambda F, x, w, b=None: F.linear(x, w, b), operands, grad_output)
    grad = ours["dL/dy"]
    grids = {
        **{name: Grid(value) for name, value in operands.items()},
        "dL/dy": Grid(grad),
        **{name: Grid(ours[name], torch=theirs[name]) for name in ours if name != "dL/dy"},
    }
    x, w, g = numbers(input), numbers(weight), numbers(grad)
    forward = [
        product_step(grids, cell, {"x": x[n].tolist(), "w": w[o].tolist()}, None if bias is None else {"b": o})
        for cell, (n, o) in cells(grad)
    ]
    of_weight = [
        product_step(grids, cell, {"dL/dy": g[:, o].tolist(), "x": x[:, i].tolist()}) for cell, (o, i) in cells(weight)
    ]
    of_input = [
        product_step(grids, cell, {"dL/dy": g[n].tolist(), "w": w[:, i].tolist()}) for cell, (n, i) in cells(input)
    ]
    passes = [
        Pass(
            "y",
            "Forward: rows of x times rows of w",
            "y = x wᵀ" + ("" if bias is None else " + b"),
            ("x", "w") if bias is None else ("x", "w", "b"),
            forward,
            ("x", "w"),
            (1, 1, input.shape[1]),
        ),
        Pass(
            "dL/dw",
            "Gradient of the weight: columns of dL/dy times columns of x",
            "dL/dw = (dL/dy)ᵀ x",
            ("dL/dy", "x"),
            of_weight,
            ("dL/dy", "x"),
            (1, grad.shape[0], 1),
        ),
        Pass(
            "dL/dx",
            "Gradient of the input: rows of dL/dy times columns of w",
            "dL/dx = dL/dy w",
            ("dL/dy", "w"),
            of_input,
            ("dL/dy", "w"),
            (1, 1, grad.shape[1]),
        ),
    ]
    if bias is not None:
        of_bias = [product_step(grids, o, {"dL/dy": g[:, o].tolist()}) for o in range(weight.shape[0])]
        passes.insert(2, sum_pass("dL/db", "Gradient of the bias: add up dL/dy over the batch", of_bias))
    settings = f"input {sizes(input.shape)}, weight {sizes(weight.shape)}"
    return Explanation("linear", settings, (*operands, "dL/dy"), grids, passes)

"""ReLU: a gate for the gradient."""

from __future__ import annotations

from torch import Tensor

from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, Step, number, sizes
from torchfromscratch.explaining.layers.common import GradOutput, both, product_step


def relu(input: Tensor, *, grad_output: GradOutput) -> Explanation:
    """y and dL/dx of max(0, x): the gradient passes where x is positive. Any shape."""
    ours, theirs = both(lambda F, x: F.relu(x), {"x": input}, grad_output)
    gate = (input > 0).to(input.dtype)
    grids = {
        "x": Grid(input),
        "dL/dy": Grid(ours["dL/dy"]),
        "y": Grid(ours["y"], torch=theirs["y"]),
        "x > 0": Grid(gate, "1 where x is positive"),
        "dL/dx": Grid(ours["dL/dx"], torch=theirs["dL/dx"]),
    }
    values = input.flatten().tolist()
    passes = [
        Pass(
            "y",
            "Forward: what is negative becomes 0",
            "y = max(0, x)",
            ("x",),
            [Step(cell, {"x": [cell]}, [(f"max(0, {number(value)})", 0)]) for cell, value in enumerate(values)],
            ("x",),
        ),
        Pass(
            "dL/dx",
            "Gradient of the input: dL/dy passes where x > 0",
            "dL/dx = dL/dy · [x > 0]",
            ("dL/dy", "x > 0"),
            [product_step(grids, cell, {"dL/dy": [cell], "x > 0": [cell]}) for cell in range(input.numel())],
            ("dL/dy", "x > 0"),
        ),
    ]
    return Explanation("relu", f"input {sizes(input.shape)}", ("x", "dL/dy"), grids, passes)

"""Softmax: each probability falls when another score rises."""

from __future__ import annotations

from torch import Tensor

from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, Step, factor, sizes
from torchfromscratch.explaining.layers.common import GradOutput, at, both, cells, numbers, product_step, softmax_steps


def softmax(input: Tensor, *, grad_output: GradOutput) -> Explanation:
    """y and dL/dz of a softmax over each row: input (N, C), the scores z."""
    ours, theirs = both(lambda F, z: F.softmax(z, 1), {"z": input}, grad_output)
    y, grad = ours["y"], ours["dL/dy"]
    grids = {
        "z": Grid(input, "the scores, a row for each sample"),
        "dL/dy": Grid(grad),
        "y": Grid(y, "probabilities: each row adds up to 1", torch=theirs["y"]),
        "m": Grid((y * grad).sum(1), "the mean of dL/dy, weighted with y", torch=(theirs["y"] * grad).sum(1)),
        "dL/dz": Grid(ours["dL/dz"], torch=theirs["dL/dz"]),
    }
    z = numbers(input)
    means = [product_step(grids, n, {"y": z[n].tolist(), "dL/dy": z[n].tolist()}) for n in range(len(input))]
    gradients = []
    for cell, (n, _) in cells(input):
        (p,), (g,), (m,) = at(y, [cell]), at(grad, [cell]), at(grids["m"].values, [n])
        used = {"y": [cell], "dL/dy": [cell], "m": [n]}
        gradients.append(Step(cell, used, [(f"{factor(p)}·({factor(g)} − {factor(m)})", 0)]))
    passes = [
        Pass(
            "y",
            "Forward: scores become probabilities",
            "y[n,c] = e^z[n,c] / Σ_k e^z[n,k]",
            ("z",),
            softmax_steps("z", input),
            ("z",),
        ),
        Pass(
            "m",
            "What dL/dy is on average, by the probabilities",
            "m[n] = Σ_k y[n,k] · dL/dy[n,k]",
            ("y", "dL/dy"),
            means,
            ("y", "dL/dy"),
            (1, 1, input.shape[1]),
        ),
        Pass(
            "dL/dz",
            "Gradient of the scores: what is better than the average rises",
            "dL/dz[n,c] = y[n,c] · (dL/dy[n,c] − m[n])",
            ("y", "dL/dy", "m"),
            gradients,
        ),
    ]
    return Explanation("softmax", f"input {sizes(input.shape)}", ("z", "dL/dy"), grids, passes)

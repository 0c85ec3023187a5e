"""Softmax with cross-entropy: all that is left of both derivatives is p − Y."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch import functional
from torchfromscratch.explaining.explanation import Explanation, Fragment, Grid, Pass, Step, join, number, sizes
from torchfromscratch.explaining.layers.common import at, both, cells, softmax_steps


def cross_entropy(input: Tensor, target: Tensor) -> Explanation:
    """Softmax, the loss and dL/dz = (p − Y)/N: input (N, C), the scores z; target (N), the right classes."""
    ours, theirs = both(lambda F, z: F.cross_entropy(z, target), {"z": input}, torch.ones, names="z")
    p, theirs["p"] = functional.softmax(input, 1), torch.nn.functional.softmax(input, 1)
    batch, classes = input.shape
    truth = (target[:, None] == torch.arange(classes)).to(input.dtype)
    grids = {
        "z": Grid(input, "the scores of each class, a row for each sample"),
        "Y": Grid(truth, "1 at the right class"),
        "p": Grid(p, "the probabilities softmax(z)", torch=theirs["p"]),
        "L": Grid(ours["y"], "the loss", torch=theirs["y"]),
        "dL/dz": Grid(ours["dL/dz"], torch=theirs["dL/dz"]),
    }
    softmax, gradient = softmax_steps("z", input), []
    for cell, (n, c) in cells(input):
        text = f"({number(float(p[n, c]))} − {number(float(truth[n, c]))}) / {batch}"
        gradient.append(Step(cell, {"p": [cell], "Y": [cell]}, [(text, 0)]))
    right = [n * classes + int(c) for n, c in enumerate(target.tolist())]
    logs: list[Fragment] = [(f"ln {number(value)}", t) for t, value in enumerate(at(p, right))]
    loss = Step(0, {"p": right, "Y": right}, [("−(", None), *join(" + ", logs), (f") / {batch}", None)])
    passes = [
        Pass("p", "Softmax: scores become probabilities", "p[n,c] = e^z[n,c] / Σ_k e^z[n,k]", ("z",), softmax, ("z",)),
        Pass(
            "L",
            "The loss: how unlikely the truth was",
            "L = −1/N · Σ_{n,c} Y[n,c] · ln p[n,c]",
            ("p", "Y"),
            [loss],
            ("p",),
        ),
        Pass(
            "dL/dz",
            "Gradient of the scores: what was predicted less what is true",
            "dL/dz = (p − Y) / N",
            ("p", "Y"),
            gradient,
            ("p",),
        ),
    ]
    settings = f"input {sizes(input.shape)}, targets {' '.join(str(t) for t in target.tolist())}"
    return Explanation("cross_entropy", settings, ("z", "Y"), grids, passes)

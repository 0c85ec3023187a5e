"""Convolution, told as three cross-correlations.

Its three passes are one list of triples (tap k, input position, output position), grouped by output for
y, by tap for dL/dw and by input for dL/dx. Each of them slides one grid over another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.explain.explanation import Explanation, Grid, Pass, sizes
from torchfromscratch.explain.layers.common import (
    GradOutput,
    Pair,
    both,
    cells,
    numbers,
    padded_note,
    product_step,
    sum_pass,
)
from torchfromscratch.kernels.windows import Windows


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    grad_output: GradOutput,
) -> Explanation:
    """y, dL/dw, dL/db and dL/dx of a convolution, each a sum over a window.

    Shapes: input (N, C, H, W), weight (O, C/groups, kH, kW), bias (O). `grad_output` makes dL/dy of the
    shape that it is given. Raises what `functional.conv2d` raises.
    """
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    operands = {"x": input, "w": weight, **({} if bias is None else {"b": bias})}
    ours, theirs = both(lambda F, x, w, b=None: F.conv2d(x, w, b, **settings), operands, grad_output)
    grad = ours["dL/dy"]
    windows = Windows(tuple(weight.shape[2:]), stride, padding, dilation, groups)
    back = Windows(windows.kernel_size, (1, 1), (0, 0), dilation, groups)

    padded, spread = windows.pad(input), _spread(grad, windows, input.shape[2:])
    rotated = _rotated(weight, groups)

    grids = {
        "x": Grid(padded, padded_note(padding, "zeros"), windows.pad(torch.ones_like(input)) == 0),
        "w": Grid(weight),
        **({} if bias is None else {"b": Grid(bias)}),
        "dL/dy": Grid(grad),
        "y": Grid(ours["y"], torch=theirs["y"]),
        "dL/dw": Grid(ours["dL/dw"], torch=theirs["dL/dw"]),
        **({} if bias is None else {"dL/db": Grid(ours["dL/db"], torch=theirs["dL/db"])}),
        "dL/dy spread": Grid(
            spread,
            _spread_note(windows),
            _spread(torch.ones_like(grad), windows, input.shape[2:]) == 0,
        ),
        "w rotated": Grid(rotated, "turned by 180°, its two channel indices swapped"),
        "dL/dx": Grid(ours["dL/dx"], torch=theirs["dL/dx"]),
    }

    seen = windows.slide(numbers(padded))  # (N, C, oH, oW, kH, kW)
    seen_back = back.slide(numbers(spread))  # (N, O, H, W, kH, kW)
    weights, weights_back, grads = numbers(weight), numbers(rotated), numbers(grad)
    out_channels, channels, (rows, columns) = weight.shape[0] // groups, weight.shape[1], weight.shape[2:]

    forward, of_weight, of_input, of_bias = [], [], [], []
    for cell, (n, o, i, j) in cells(grad):
        group = o // out_channels * channels
        x, w = seen[n, group : group + channels, i, j].flatten().tolist(), weights[o].flatten().tolist()
        forward.append(product_step(grids, cell, {"x": x, "w": w}, None if bias is None else {"b": o}))
    for cell, (o, c, k, m) in cells(weight):
        x = seen[:, o // out_channels * channels + c, :, :, k, m].flatten().tolist()
        of_weight.append(product_step(grids, cell, {"x": x, "dL/dy": grads[:, o].flatten().tolist()}))
    for cell, (n, c, i, j) in cells(input):
        group = c // channels * out_channels
        g = seen_back[n, group : group + out_channels, i, j].flatten().tolist()
        of_input.append(product_step(grids, cell, {"dL/dy spread": g, "w rotated": weights_back[c].flatten().tolist()}))
    for o in range(weight.shape[0] if bias is not None else 0):
        of_bias.append(product_step(grids, o, {"dL/dy": grads[:, o].flatten().tolist()}))

    passes = [
        Pass(
            "y",
            "Forward: slide w over x",
            "y[n,o,i] = " + ("" if bias is None else "b[o] + ") + "Σ_{c,k} w[o,c,k] · x[n,c, i·s + k·d − p]",
            ("x", "w") if bias is None else ("x", "w", "b"),
            forward,
            ("x", "w"),
            (channels, rows, columns),
        ),
        Pass(
            "dL/dw",
            "Gradient of the weight: slide dL/dy over x (cross-correlation)",
            "dL/dw[o,c,k] = Σ_{n,i} dL/dy[n,o,i] · x[n,c, i·s + k·d − p]",
            ("x", "dL/dy"),
            of_weight,
            ("x", "dL/dy"),
            (grad.shape[0], grad.shape[2], grad.shape[3]),
        ),
        Pass(
            "dL/dx",
            "Gradient of the input: slide the rotated w over the spread dL/dy (full convolution)",
            "dL/dx[n,c,j] = Σ_{o,k} w[o,c,k] · dL/dy[n,o,i], over all i, k with i·s + k·d − p = j",
            ("dL/dy spread", "w rotated"),
            of_input,
            ("dL/dy spread", "w rotated"),
            (out_channels, rows, columns),
        ),
    ]
    if bias is not None:
        passes.insert(2, sum_pass("dL/db", "Gradient of the bias: add up dL/dy", of_bias))
    told = f"stride {sizes(stride)}, padding {sizes(padding)}, dilation {sizes(dilation)}, groups {groups}"
    settings_text = f"input {sizes(input.shape)}, weight {sizes(weight.shape)}, {told}"
    return Explanation("conv2d", settings_text, (*operands, "dL/dy"), grids, passes)


def _spread(grad: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dy with s − 1 zeros between its cells and so many around it that rotated windows reach every input."""
    gapped = [(o - 1) * s + 1 for o, s in zip(grad.shape[2:], windows.stride, strict=True)]
    spread = grad.new_zeros(*grad.shape[:2], *gapped)
    spread[..., :: windows.stride[0], :: windows.stride[1]] = grad
    before = [extent - 1 - p for extent, p in zip(windows.extent, windows.padding, strict=True)]
    after = [
        size + extent - 1 - first - length
        for size, extent, first, length in zip(input_size, windows.extent, before, gapped, strict=True)
    ]
    return torch.constant_pad_nd(spread, [before[1], after[1], before[0], after[0]])


def _rotated(weight: Tensor, groups: int) -> Tensor:
    """w (O, C/groups, k) turned by 180°, with the roles of O and C swapped inside each group: (C, O/groups, k)."""
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    return by_group.transpose(1, 2).flatten(0, 1).flip(2, 3)


def _spread_note(windows: Windows) -> str:
    gaps = "zeros between its cells (stride − 1) and " if max(windows.stride) > 1 else ""
    return f"dL/dy with {gaps}zeros around it (d·(k − 1) − p)"

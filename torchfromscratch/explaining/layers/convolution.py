"""Convolution, told as three cross-correlations.

Its three passes are one list of triples (tap k, input position, output position), grouped by output for
y, by tap for dL/dw and by input for dL/dx. Each of them slides one grid over another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, Step, sizes
from torchfromscratch.explaining.layers.common import (
    GradOutput,
    Pair,
    both,
    cells,
    numbers,
    padding_note,
    product_step,
    sum_pass,
)
from torchfromscratch.kernels.convolution.rotation import as_correlation
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

    padded, (spread, rotated) = windows.pad(input), _insert_zeros_and_rotate(grad, weight, windows, input.shape[2:])

    grids = {
        "x": Grid(padded, padding_note(padding, "zeros"), windows.pad(torch.ones_like(input)) == 0),
        "w": Grid(weight),
        **({} if bias is None else {"b": Grid(bias)}),
        "dL/dy": Grid(grad),
        "y": Grid(ours["y"], torch=theirs["y"]),
        "dL/dw": Grid(ours["dL/dw"], torch=theirs["dL/dw"]),
        **({} if bias is None else {"dL/db": Grid(ours["dL/db"], torch=theirs["dL/db"])}),
        "dL/dy spread": Grid(
            spread,
            _note_on_zeros(windows),
            _insert_zeros_and_rotate(torch.ones_like(grad), weight, windows, input.shape[2:])[0] == 0,
        ),
        "w rotated": Grid(rotated, "turned by 180°, its two channel indices swapped"),
        "dL/dx": Grid(ours["dL/dx"], torch=theirs["dL/dx"]),
    }

    seen, seen_back = windows.slide(numbers(padded)), back.slide(numbers(spread))
    added = None if bias is None else "b"
    forward = _window_steps(grids, grad, {"x": seen, "w": numbers(weight)}, groups, added)
    of_weight = _tap_steps(grids, weight, {"x": seen, "dL/dy": numbers(grad)}, groups)
    of_input = _window_steps(grids, input, {"dL/dy spread": seen_back, "w rotated": numbers(rotated)}, groups)
    (rows, columns), channels, out_channels = weight.shape[2:], weight.shape[1], weight.shape[0] // groups

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
        passes.insert(2, _bias_pass(grids, numbers(grad)))
    told = f"stride {sizes(stride)}, padding {sizes(padding)}, dilation {sizes(dilation)}, groups {groups}"
    settings_text = f"input {sizes(input.shape)}, weight {sizes(weight.shape)}, {told}"
    return Explanation("conv2d", settings_text, (*operands, "dL/dy"), grids, passes)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    grad_output: GradOutput,
) -> Explanation:
    """y, dL/dw, dL/db and dL/dx of a transposed convolution: a convolution's passes in other roles.

    Shapes: input (N, C, H, W), weight (C, O/groups, kH, kW), bias (O). `grad_output` makes dL/dy of the
    shape that it is given. Raises what `functional.conv_transpose2d` raises.
    """
    options = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    operands = {"x": input, "w": weight, **({} if bias is None else {"b": bias})}
    ours, theirs = both(
        lambda F, x, w, b=None: F.conv_transpose2d(x, w, b, groups=groups, **options), operands, grad_output
    )
    grad, output_size = ours["dL/dy"], ours["y"].shape[2:]
    windows = Windows(tuple(weight.shape[2:]), stride, padding, dilation, groups)
    forth = Windows(windows.kernel_size, (1, 1), (0, 0), dilation, groups)
    padded, (spread, rotated) = windows.pad(grad), _insert_zeros_and_rotate(input, weight, windows, output_size)
    gaps = _insert_zeros_and_rotate(torch.ones_like(input), weight, windows, output_size)[0] == 0
    filler = windows.pad(torch.ones_like(grad)) == 0
    grids = {
        "x": Grid(input),
        "w": Grid(weight),
        **({} if bias is None else {"b": Grid(bias)}),
        "dL/dy": Grid(padded, padding_note(padding, "zeros"), filler),
        "x spread": Grid(spread, _note_on_zeros(windows, "x"), gaps),
        "w rotated": Grid(rotated, "turned by 180°, its two channel indices swapped"),
        **{name: Grid(ours[name], torch=theirs[name]) for name in ours if name != "dL/dy"},
    }
    seen, seen_forth = windows.slide(numbers(padded)), forth.slide(numbers(spread))
    added = None if bias is None else "b"
    forward = _window_steps(grids, grad, {"x spread": seen_forth, "w rotated": numbers(rotated)}, groups, added)
    of_weight = _tap_steps(grids, weight, {"dL/dy": seen, "x": numbers(input)}, groups)
    of_input = _window_steps(grids, input, {"dL/dy": seen, "w": numbers(weight)}, groups)
    (rows, columns), channels, out_channels = weight.shape[2:], weight.shape[0] // groups, weight.shape[1]
    passes = [
        Pass(
            "y",
            "Forward: slide the rotated w over the spread x",
            "y[n,o,j] = " + ("" if bias is None else "b[o] + ") + "Σ w[c,o,k] · x[n,c,i], over c and i·s + k·d − p = j",
            ("x spread", "w rotated") if bias is None else ("x spread", "w rotated", "b"),
            forward,
            ("x spread", "w rotated"),
            (channels, rows, columns),
        ),
        Pass(
            "dL/dw",
            "Gradient of the weight: slide x over dL/dy (cross-correlation)",
            "dL/dw[c,o,k] = Σ_{n,i} x[n,c,i] · dL/dy[n,o, i·s + k·d − p]",
            ("dL/dy", "x"),
            of_weight,
            ("dL/dy", "x"),
            (input.shape[0], input.shape[2], input.shape[3]),
        ),
        Pass(
            "dL/dx",
            "Gradient of the input: slide w over dL/dy, as a convolution does",
            "dL/dx[n,c,i] = Σ_{o,k} w[c,o,k] · dL/dy[n,o, i·s + k·d − p]",
            ("dL/dy", "w"),
            of_input,
            ("dL/dy", "w"),
            (out_channels, rows, columns),
        ),
    ]
    if bias is not None:
        passes.insert(2, _bias_pass(grids, numbers(padded), ~filler))
    told = ", ".join(f"{name.replace('_', ' ')} {sizes(size)}" for name, size in options.items()) + f", groups {groups}"
    settings_text = f"input {sizes(input.shape)}, weight {sizes(weight.shape)}, {told}"
    return Explanation("conv_transpose2d", settings_text, (*operands, "dL/dy"), grids, passes)


def _window_steps(
    grids: dict[str, Grid], result: Tensor, paired: dict[str, Tensor], groups: int, added: str | None = None
) -> list[Step]:
    """Each cell of the result from a window of one grid, (N, C, H, W, kH, kW), and all taps of a kernel."""
    (slid, seen), (kernel, weights) = paired.items()
    channels, per_group = weights.shape[1], weights.shape[0] // groups
    steps = []
    for cell, (n, o, i, j) in cells(result):
        group = o // per_group * channels
        window = seen[n, group : group + channels, i, j].flatten().tolist()
        pairs = {slid: window, kernel: weights[o].flatten().tolist()}
        steps.append(product_step(grids, cell, pairs, None if added is None else {added: o}))
    return steps


def _tap_steps(grids: dict[str, Grid], weight: Tensor, paired: dict[str, Tensor], groups: int) -> list[Step]:
    """Each tap of the weight from all that it saw, and all that stands in the place of the output."""
    (slid, seen), (other, outputs) = paired.items()
    channels, per_group = weight.shape[1], weight.shape[0] // groups
    steps = []
    for cell, (o, c, k, m) in cells(weight):
        saw = seen[:, o // per_group * channels + c, :, :, k, m].flatten().tolist()
        steps.append(product_step(grids, cell, {slid: saw, other: outputs[:, o].flatten().tolist()}))
    return steps


def _bias_pass(grids: dict[str, Grid], grads: Tensor, inside: Tensor | None = None) -> Pass:
    """dL/db from the cells of dL/dy, of which only those inside its padding count."""
    inside = torch.ones_like(grads, dtype=torch.bool) if inside is None else inside
    steps = [product_step(grids, o, {"dL/dy": grads[:, o][inside[:, o]].tolist()}) for o in range(grads.shape[1])]
    return sum_pass("dL/db", "Gradient of the bias: add up dL/dy", steps)


def _insert_zeros_and_rotate(
    grad: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """dL/dy with s − 1 zeros between its cells and so many around that rotated windows reach all of `input_size`; w."""
    spread, rotated, _, back = as_correlation(grad, weight, windows, input_size)
    return back.pad(spread), rotated


def _note_on_zeros(windows: Windows, name: str = "dL/dy") -> str:
    gaps = "zeros between its cells (stride − 1) and " if max(windows.stride) > 1 else ""
    return f"{name} with {gaps}zeros around it (d·(k − 1) − p)"

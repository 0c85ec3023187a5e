"""Pooling: the windows of a convolution without its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch.autograd.pooling import fetch_transpose, max_pool
from torchfromscratch.explaining.explanation import (
    Explanation,
    Fragment,
    Grid,
    Pass,
    Step,
    factor,
    join,
    number,
    sizes,
    sum_of_products,
)
from torchfromscratch.explaining.layers.common import GradOutput, Pair, at, both, cells, numbers, padding_note
from torchfromscratch.kernels.windows import Windows


def max_pool2d(
    input: Tensor,
    *,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
    grad_output: GradOutput,
) -> Explanation:
    """y and dL/dx of max pooling: each window's largest cell, and the gradient that returns to it alone."""
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    ours, theirs = both(lambda F, x: F.max_pool2d(x, kernel_size, **options), {"x": input}, grad_output)
    grad, windows = ours["dL/dy"], Windows(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
    padded, filler = windows.pad(input, float("-inf")), windows.pad(torch.ones_like(input)) == 0
    _, winners = max_pool(input, windows)
    mask = fetch_transpose(torch.ones_like(grad), winners, windows, input.shape[2:])
    grids = {
        "x": Grid(padded, padding_note(padding, "−∞"), filler),
        "dL/dy": Grid(grad),
        "y": Grid(ours["y"], torch=theirs["y"]),
        "mask": Grid(mask, "the number of windows that a cell of x wins"),
        "dL/dx": Grid(ours["dL/dx"], torch=theirs["dL/dx"]),
    }
    seen = windows.slide(numbers(padded))
    forward, winner_of = [], {}
    for cell, (n, c, i, j) in cells(grad):
        used = seen[n, c, i, j].flatten().tolist()
        winner_of[cell] = used[int(winners[n, c, i, j])]
        pieces: list[Fragment] = [(number(value), t) for t, value in enumerate(at(padded, used))]
        forward.append(Step(cell, {"x": used}, [("max(", None), *join(", ", pieces), (")", None)]))
    backward = []
    for cell, place, covering in _covering(input, padded, filler, seen):
        won = [1.0 if winner_of[window] == place else 0.0 for window in covering]
        backward.append(
            Step(
                cell,
                {"dL/dy": covering, "mask": [cell], "x": [place]},
                sum_of_products(at(grad, covering), won),
            )
        )
    passes = [
        Pass(
            "y",
            "Forward: the largest cell of each window",
            "y[n,c,i] = max_k x[n,c, i·s + k·d − p]",
            ("x",),
            forward,
            ("x",),
            (1, *kernel_size),
        ),
        Pass(
            "dL/dx",
            "Gradient of the input: each dL/dy returns to the winner of its window",
            "dL/dx[n,c,j] = Σ_i dL/dy[n,c,i] · [x[n,c,j] won window i]",
            ("dL/dy", "x", "mask"),
            backward,
            ("dL/dy",),
        ),
    ]
    settings = f"input {sizes(input.shape)}, {_pooling_settings(windows)}"
    return Explanation("max_pool2d", settings, ("x", "dL/dy"), grids, passes)


def avg_pool2d(
    input: Tensor,
    *,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    grad_output: GradOutput,
) -> Explanation:
    """y and dL/dx of average pooling: each window's mean, and the gradient shared out over the window."""
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    ours, theirs = both(lambda F, x: F.avg_pool2d(x, kernel_size, **options), {"x": input}, grad_output)
    grad, windows = ours["dL/dy"], Windows(kernel_size, stride, padding, (1, 1), ceil_mode=ceil_mode)
    padded, filler = windows.pad(input), windows.pad(torch.ones_like(input)) == 0
    counted = ~filler
    if count_include_pad:  # the padding counts, what ceil_mode adds behind it does not
        counted[..., : input.shape[2] + 2 * padding[0], : input.shape[3] + 2 * padding[1]] = True
    grids = {
        "x": Grid(padded, padding_note(padding, "zeros"), filler),
        "dL/dy": Grid(grad),
        "y": Grid(ours["y"], torch=theirs["y"]),
        "dL/dx": Grid(ours["dL/dx"], torch=theirs["dL/dx"]),
    }
    seen = windows.slide(numbers(padded))
    forward, count_of = [], {}
    for cell, (n, c, i, j) in cells(grad):
        used = seen[n, c, i, j].flatten().tolist()
        count_of[cell] = int(sum(at(counted, used)))
        terms = sum_of_products(at(padded, used))
        forward.append(Step(cell, {"x": used}, [("(", None), *terms, (f") / {count_of[cell]}", None)]))
    backward = []
    for cell, place, covering in _covering(input, padded, filler, seen):
        values = at(grad, covering)
        pieces: list[Fragment] = [
            (f"{factor(value)}/{count_of[window]}", t)
            for t, (value, window) in enumerate(zip(values, covering, strict=True))
        ]
        terms = join(" + ", pieces) or [("0", None)]
        backward.append(Step(cell, {"dL/dy": covering, "x": [place]}, terms))
    passes = [
        Pass(
            "y",
            "Forward: the mean of each window",
            "y[n,c,i] = 1/count · Σ_k x[n,c, i·s + k − p]",
            ("x",),
            forward,
            ("x",),
            (1, *kernel_size),
        ),
        Pass(
            "dL/dx",
            "Gradient of the input: each dL/dy is shared out evenly over its window",
            "dL/dx[n,c,j] = Σ_i dL/dy[n,c,i] / count, over the windows i that contain j",
            ("dL/dy", "x"),
            backward,
            ("dL/dy",),
        ),
    ]
    settings = f"input {sizes(input.shape)}, {_pooling_settings(windows)}"
    settings += "" if count_include_pad else ", padding not counted"
    return Explanation("avg_pool2d", settings, ("x", "dL/dy"), grids, passes)


def _covering(input: Tensor, padded: Tensor, filler: Tensor, seen: Tensor) -> list[tuple[int, int, list[int]]]:
    """For every cell of x: its number, its number in the padded x, and the windows that contain it."""
    planes = padded.shape[0] * padded.shape[1]
    windows = seen.reshape(seen[..., 0, 0].numel(), -1)
    containing: dict[int, list[int]] = {}
    for window, places in enumerate(windows.tolist()):
        for place in places:
            containing.setdefault(place, []).append(window)
    real = (~filler.reshape(planes, -1)).flatten().nonzero().flatten().tolist()
    return [(cell, place, containing.get(place, [])) for cell, place in enumerate(real)]


def _pooling_settings(windows: Windows) -> str:
    told = [f"{name} {sizes(getattr(windows, name))}" for name in ("kernel_size", "stride", "padding")]
    if max(windows.dilation) > 1:
        told.append(f"dilation {sizes(windows.dilation)}")
    if windows.ceil_mode:
        told.append("ceil_mode")
    return ", ".join(told).replace("kernel_size", "kernel")

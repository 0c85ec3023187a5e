"""Explanations of layers: the numbers from the package's own Functions, the cells from `Windows`.

A convolution's three passes are one list of triples (tap k, input position, output position), grouped by
output for y, by tap for dL/dw and by input for dL/dx. Written as cross-correlations each of them slides
one grid over another, and that is how the steps are told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch import functional
from torchfromscratch.autograd.convolution import correlation
from torchfromscratch.autograd.pooling import max_pool, send_back
from torchfromscratch.explain.explanation import (
    Explanation,
    Fragment,
    Grid,
    Pass,
    Step,
    factor,
    joined,
    number,
    sizes,
    sum_of_products,
)
from torchfromscratch.kernels.windows import Windows

Pair = tuple[int, int]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    grad_output: Callable[[torch.Size], Tensor],
) -> Explanation:
    """y, dL/dw, dL/db and dL/dx of a convolution, each a sum over a window.

    Shapes: input (N, C, H, W), weight (O, C/groups, kH, kW), bias (O). `grad_output` makes dL/dy of the
    shape that it is given. Raises what `functional.conv2d` raises.
    """
    settings = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    operands = {"x": input, "w": weight, **({} if bias is None else {"b": bias})}
    ours, theirs = _both(lambda F, x, w, b=None: F.conv2d(x, w, b, **settings), operands, grad_output)
    grad = ours["dL/dy"]
    windows = Windows(tuple(weight.shape[2:]), stride, padding, dilation, groups)
    back = Windows(windows.kernel_size, (1, 1), (0, 0), dilation, groups)

    padded, spread = windows.pad(input), _spread(grad, windows, input.shape[2:])
    rotated = _rotated(weight, groups)
    by_rotation = correlation(spread, rotated, None, back)
    assert torch.allclose(by_rotation, ours["dL/dx"])

    grids = {
        "x": Grid(padded, _padded_note(padding, "zeros"), windows.pad(torch.ones_like(input)) == 0),
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

    seen = windows.slide(_numbers(padded), grad.shape[2:])  # (N, C, oH, oW, kH, kW)
    seen_back = back.slide(_numbers(spread), input.shape[2:])  # (N, O, H, W, kH, kW)
    weights, weights_back, grads = _numbers(weight), _numbers(rotated), _numbers(grad)
    out_channels, channels, (rows, columns) = weight.shape[0] // groups, weight.shape[1], weight.shape[2:]

    forward, of_weight, of_input, of_bias = [], [], [], []
    for cell, (n, o, i, j) in _cells(grad):
        group = o // out_channels * channels
        x, w = seen[n, group : group + channels, i, j].flatten().tolist(), weights[o].flatten().tolist()
        forward.append(_product_step(grids, cell, {"x": x, "w": w}, None if bias is None else {"b": o}))
    for cell, (o, c, k, m) in _cells(weight):
        x = seen[:, o // out_channels * channels + c, :, :, k, m].flatten().tolist()
        of_weight.append(_product_step(grids, cell, {"x": x, "dL/dy": grads[:, o].flatten().tolist()}))
    for cell, (n, c, i, j) in _cells(input):
        group = c // channels * out_channels
        g = seen_back[n, group : group + out_channels, i, j].flatten().tolist()
        of_input.append(
            _product_step(grids, cell, {"dL/dy spread": g, "w rotated": weights_back[c].flatten().tolist()})
        )
    for o in range(weight.shape[0] if bias is not None else 0):
        of_bias.append(_product_step(grids, o, {"dL/dy": grads[:, o].flatten().tolist()}))

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
        passes.insert(2, _sum_pass("dL/db", "Gradient of the bias: add up dL/dy", of_bias))
    told = f"stride {sizes(stride)}, padding {sizes(padding)}, dilation {sizes(dilation)}, groups {groups}"
    settings_text = f"input {sizes(input.shape)}, weight {sizes(weight.shape)}, {told}"
    return Explanation("conv2d", settings_text, (*operands, "dL/dy"), grids, passes)


def max_pool2d(
    input: Tensor,
    *,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
    grad_output: Callable[[torch.Size], Tensor],
) -> Explanation:
    """y and dL/dx of max pooling: each window's largest cell, and the gradient that returns to it alone."""
    options = dict(stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)
    ours, theirs = _both(lambda F, x: F.max_pool2d(x, kernel_size, **options), {"x": input}, grad_output)
    grad, windows = ours["dL/dy"], Windows(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
    padded, filler = windows.pad(input, float("-inf")), windows.pad(torch.ones_like(input)) == 0
    _, winners = max_pool(input, windows)
    mask = send_back(torch.ones_like(grad), winners, windows, input.shape[2:])
    grids = {
        "x": Grid(padded, _padded_note(padding, "−∞"), filler),
        "dL/dy": Grid(grad),
        "y": Grid(ours["y"], torch=theirs["y"]),
        "mask": Grid(mask, "the number of windows that a cell of x wins"),
        "dL/dx": Grid(ours["dL/dx"], torch=theirs["dL/dx"]),
    }
    seen = windows.slide(_numbers(padded), grad.shape[2:])
    forward, winner_of = [], {}
    for cell, (n, c, i, j) in _cells(grad):
        used = seen[n, c, i, j].flatten().tolist()
        winner_of[cell] = used[int(winners[n, c, i, j])]
        pieces: list[Fragment] = [(number(value), t) for t, value in enumerate(_at(padded, used))]
        forward.append(Step(cell, {"x": used}, [("max(", None), *joined(", ", pieces), (")", None)]))
    backward = []
    for cell, place, covering in _covering(input, padded, filler, seen):
        won = [1.0 if winner_of[window] == place else 0.0 for window in covering]
        backward.append(
            Step(
                cell,
                {"dL/dy": covering, "mask": [cell], "x": [place]},
                sum_of_products(_at(grad, covering), won),
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
    grad_output: Callable[[torch.Size], Tensor],
) -> Explanation:
    """y and dL/dx of average pooling: each window's mean, and the gradient shared out over the window."""
    options = dict(stride=stride, padding=padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)
    ours, theirs = _both(lambda F, x: F.avg_pool2d(x, kernel_size, **options), {"x": input}, grad_output)
    grad, windows = ours["dL/dy"], Windows(kernel_size, stride, padding, (1, 1), ceil_mode=ceil_mode)
    padded, filler = windows.pad(input), windows.pad(torch.ones_like(input)) == 0
    counted = ~filler
    if count_include_pad:  # the padding counts, what ceil_mode adds behind it does not
        counted[..., : input.shape[2] + 2 * padding[0], : input.shape[3] + 2 * padding[1]] = True
    grids = {
        "x": Grid(padded, _padded_note(padding, "zeros"), filler),
        "dL/dy": Grid(grad),
        "y": Grid(ours["y"], torch=theirs["y"]),
        "dL/dx": Grid(ours["dL/dx"], torch=theirs["dL/dx"]),
    }
    seen = windows.slide(_numbers(padded), grad.shape[2:])
    forward, count_of = [], {}
    for cell, (n, c, i, j) in _cells(grad):
        used = seen[n, c, i, j].flatten().tolist()
        count_of[cell] = int(sum(_at(counted, used)))
        terms = sum_of_products(_at(padded, used))
        forward.append(Step(cell, {"x": used}, [("(", None), *terms, (f") / {count_of[cell]}", None)]))
    backward = []
    for cell, place, covering in _covering(input, padded, filler, seen):
        values = _at(grad, covering)
        pieces: list[Fragment] = [
            (f"{factor(value)}/{count_of[window]}", t)
            for t, (value, window) in enumerate(zip(values, covering, strict=True))
        ]
        terms = joined(" + ", pieces) or [("0", None)]
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


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    grad_output: Callable[[torch.Size], Tensor],
) -> Explanation:
    """y, dL/dw, dL/db and dL/dx of a fully connected layer: input (N, I), weight (O, I), bias (O)."""
    operands = {"x": input, "w": weight, **({} if bias is None else {"b": bias})}
    ours, theirs = _both(lambda F, x, w, b=None: F.linear(x, w, b), operands, grad_output)
    grad = ours["dL/dy"]
    grids = {
        **{name: Grid(value) for name, value in operands.items()},
        "dL/dy": Grid(grad),
        **{name: Grid(ours[name], torch=theirs[name]) for name in ours if name != "dL/dy"},
    }
    x, w, g = _numbers(input), _numbers(weight), _numbers(grad)
    forward = [
        _product_step(grids, cell, {"x": x[n].tolist(), "w": w[o].tolist()}, None if bias is None else {"b": o})
        for cell, (n, o) in _cells(grad)
    ]
    of_weight = [
        _product_step(grids, cell, {"dL/dy": g[:, o].tolist(), "x": x[:, i].tolist()})
        for cell, (o, i) in _cells(weight)
    ]
    of_input = [
        _product_step(grids, cell, {"dL/dy": g[n].tolist(), "w": w[:, i].tolist()}) for cell, (n, i) in _cells(input)
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
        of_bias = [_product_step(grids, o, {"dL/dy": g[:, o].tolist()}) for o in range(weight.shape[0])]
        passes.insert(2, _sum_pass("dL/db", "Gradient of the bias: add up dL/dy over the batch", of_bias))
    settings = f"input {sizes(input.shape)}, weight {sizes(weight.shape)}"
    return Explanation("linear", settings, (*operands, "dL/dy"), grids, passes)


def relu(input: Tensor, *, grad_output: Callable[[torch.Size], Tensor]) -> Explanation:
    """y and dL/dx of max(0, x): the gradient passes where x is positive. Any shape."""
    ours, theirs = _both(lambda F, x: F.relu(x), {"x": input}, grad_output)
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
            [_product_step(grids, cell, {"dL/dy": [cell], "x > 0": [cell]}) for cell in range(input.numel())],
            ("dL/dy", "x > 0"),
        ),
    ]
    return Explanation("relu", f"input {sizes(input.shape)}", ("x", "dL/dy"), grids, passes)


def cross_entropy(input: Tensor, target: Tensor) -> Explanation:
    """Softmax, the loss and dL/dz = (p − Y)/N: input (N, C), the scores z; target (N), the right classes."""
    ours, theirs = _both(lambda F, z: F.cross_entropy(z, target), {"z": input}, torch.ones, names="z")
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
    z = _numbers(input)
    softmax, gradient = [], []
    for cell, (n, c) in _cells(input):
        exponentials: list[Fragment] = [(f"e^{factor(v)}", t) for t, v in enumerate(input[n].tolist())]
        above: list[Fragment] = [(f"e^{factor(float(input[n, c]))} / (", None)]
        softmax.append(Step(cell, {"z": z[n].tolist()}, [*above, *joined(" + ", exponentials), (")", None)]))
        text = f"({number(float(p[n, c]))} − {number(float(truth[n, c]))}) / {batch}"
        gradient.append(Step(cell, {"p": [cell], "Y": [cell]}, [(text, 0)]))
    right = [n * classes + int(c) for n, c in enumerate(target.tolist())]
    logs: list[Fragment] = [(f"ln {number(value)}", t) for t, value in enumerate(_at(p, right))]
    loss = Step(0, {"p": right, "Y": right}, [("−(", None), *joined(" + ", logs), (f") / {batch}", None)])
    passes = [
        Pass("p", "Softmax: scores become probabilities", "p[n,c] = e^z[n,c] / Σ_k e^z[n,k]", ("z",), softmax, ("z",)),
        Pass("L", "The loss: how unlikely the truth was", "L = −1/N · Σ_{n,c} Y[n,c] · ln p[n,c]", ("p", "Y"), [loss], ("p",)),
        Pass("dL/dz", "Gradient of the scores: what was predicted less what is true", "dL/dz = (p − Y) / N", ("p", "Y"), gradient, ("p",)),
    ]  # fmt: skip
    settings = f"input {sizes(input.shape)}, targets {' '.join(str(t) for t in target.tolist())}"
    return Explanation("cross_entropy", settings, ("z", "Y"), grids, passes)


def batch_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-5,
    grad_output: Callable[[torch.Size], Tensor],
) -> Explanation:
    """Mean, variance, x̂, y and the three gradients: input (N, C, …), weight γ and bias β (C)."""
    operands = {"x": input, "γ": weight, "β": bias}
    ours, theirs = _both(
        lambda F, x, γ, β: F.batch_norm(x, None, None, γ, β, training=True, eps=eps), operands, grad_output
    )
    grad, over = ours["dL/dy"], [0, *range(2, input.dim())]
    channels, count = input.shape[1], input.numel() // input.shape[1]
    mean, variance = input.mean(over), input.var(over, correction=0)
    along = (1, channels, *[1] * (input.dim() - 2))
    normal = functional.batch_norm(input, None, None, training=True, eps=eps)
    grids = {
        **{name: Grid(value) for name, value in operands.items()},
        "dL/dy": Grid(grad),
        "μ": Grid(mean, "the mean of each channel", torch=input.mean(over)),
        "σ²": Grid(variance, "its variance, divided by the count n"),
        "x̂": Grid(normal, "x in units of σ", torch=(input - mean.view(along)) / (variance + eps).view(along).sqrt()),
        **{name: Grid(ours[name], torch=theirs[name]) for name in ("y", "dL/dβ", "dL/dγ", "dL/dx")},
    }
    of = _numbers(input).transpose(0, 1).reshape(channels, -1).tolist()  # the cells of each channel
    means, variances, normals, scaled, to_bias, to_weight, to_input = [], [], [], [], [], [], []
    for c in range(channels):
        μ, σ2 = float(mean[c]), float(variance[c])
        values = _at(input, of[c])
        added: list[Fragment] = [(factor(value), t) for t, value in enumerate(values)]
        squares: list[Fragment] = [(f"({number(v)} − {factor(μ)})²", t) for t, v in enumerate(values)]
        over_n: Fragment = (f") / {count}", None)
        means.append(Step(c, {"x": of[c]}, [("(", None), *joined(" + ", added), over_n]))
        variances.append(Step(c, {"x": of[c], "μ": [c]}, [("(", None), *joined(" + ", squares), over_n]))
        to_bias.append(_product_step(grids, c, {"dL/dy": of[c]}))
        to_weight.append(_product_step(grids, c, {"dL/dy": of[c], "x̂": of[c]}))
    for cell, (_, c, *_) in _cells(input):
        (x,), (h,), (g,) = _at(input, [cell]), _at(normal, [cell]), _at(grad, [cell])
        μ, σ2, γ, β = (float(t[c]) for t in (mean, variance, weight, bias))
        sum_g, sum_gh = float(ours["dL/dβ"][c]), float(ours["dL/dγ"][c])
        deviation = f"√({number(σ2)} + {number(eps)})"
        normals.append(
            Step(cell, {"x": [cell], "μ": [c], "σ²": [c]}, [(f"({number(x)} − {factor(μ)}) / {deviation}", 0)])
        )
        scaled.append(
            Step(cell, {"x̂": [cell], "γ": [c], "β": [c]}, [(f"{factor(γ)}·{factor(h)} + {factor(β)}", 0)])
        )
        inner = f"({count}·{factor(g)} − {factor(sum_g)} − {factor(h)}·{factor(sum_gh)})"
        to_input.append(
            Step(
                cell,
                {"dL/dy": [cell], "x̂": [cell], "γ": [c], "σ²": [c], "dL/dβ": [c], "dL/dγ": [c]},
                [(f"{factor(γ)} / ({count}·{deviation}) · {inner}", 0)],
            )
        )
    passes = [
        Pass("μ", "The mean of each channel", "μ[c] = 1/n · Σ x", ("x",), means, ("x",)),
        Pass("σ²", "The variance of each channel", "σ²[c] = 1/n · Σ (x − μ)²", ("x", "μ"), variances, ("x",)),
        Pass("x̂", "Normalise", "x̂ = (x − μ) / √(σ² + ε)", ("x", "μ", "σ²"), normals),
        Pass("y", "Scale and shift", "y = γ · x̂ + β", ("x̂", "γ", "β"), scaled),
        Pass("dL/dβ", "Gradient of the shift", "dL/dβ = Σ dL/dy", ("dL/dy",), to_bias, ("dL/dy",)),
        Pass("dL/dγ", "Gradient of the scale", "dL/dγ = Σ dL/dy · x̂", ("dL/dy", "x̂"), to_weight, ("dL/dy", "x̂")),
        Pass(
            "dL/dx",
            "Gradient of the input: what is left of dL/dy without its mean and its share along x̂",
            "dL/dx = γ / (n·√(σ² + ε)) · (n·dL/dy − dL/dβ − x̂·dL/dγ)",
            ("dL/dy", "x̂", "γ", "σ²", "dL/dβ", "dL/dγ"),
            to_input,
        ),
    ]
    settings = f"input {sizes(input.shape)}, n = {count} values a channel, ε = {number(eps)}, training"
    return Explanation("batch_norm", settings, (*operands, "dL/dy"), grids, passes)


def _both(
    layer: Callable[..., Tensor],
    operands: dict[str, Tensor],
    grad_output: Callable[[torch.Size], Tensor],
    names: str = "",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """y, dL/dy and the gradient of every operand, by this package and by torch.nn."""
    results = []
    grad = None
    for F in (functional, torch.nn.functional):
        leaves = [value.detach().requires_grad_() for value in operands.values()]
        y = layer(F, *leaves)
        grad = grad_output(y.shape).to(y.dtype) if grad is None else grad
        gradients = torch.autograd.grad(y, leaves, grad)
        named = {f"dL/d{name}": value for name, value in zip(operands, gradients, strict=True)}
        results.append({"y": y.detach(), "dL/dy": grad, **named})
    return results[0], results[1]


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


def _numbers(grid: Tensor) -> Tensor:
    """The cells of a grid, numbered in the order of memory."""
    return torch.arange(grid.numel()).view(grid.shape)


def _cells(grid: Tensor) -> list[tuple[int, tuple[int, ...]]]:
    """Every cell of a grid: its number and its indices."""
    return [(cell, tuple(index)) for cell, index in enumerate(torch.ones(grid.shape).nonzero().tolist())]


def _at(grid: Tensor, cells: list[int]) -> list[float]:
    return grid.flatten()[cells].tolist()


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


def _product_step(
    grids: dict[str, Grid], cell: int, paired: dict[str, list[int]], added: dict[str, int] | None = None
) -> Step:
    """A step that adds up products of paired cells, and a constant if there is one."""
    columns = [_at(grids[name].values, cells) for name, cells in paired.items()]
    constants = {name: [at] for name, at in (added or {}).items()}
    plus = [_at(grids[name].values, cells)[0] for name, cells in constants.items()]
    return Step(cell, {**paired, **constants}, sum_of_products(*columns, plus=plus[0] if plus else None))


def _sum_pass(result: str, title: str, steps: list[Step]) -> Pass:
    return Pass(result, title, f"{result}[o] = Σ dL/dy[…,o,…]", ("dL/dy",), steps, ("dL/dy",))


def _padded_note(padding: Pair, value: str) -> str:
    return f"padded with {value}" if any(padding) else ""


def _spread_note(windows: Windows) -> str:
    gaps = "zeros between its cells (stride − 1) and " if max(windows.stride) > 1 else ""
    return f"dL/dy with {gaps}zeros around it (d·(k − 1) − p)"


def _pooling_settings(windows: Windows) -> str:
    told: list[Any] = [f"{name} {sizes(getattr(windows, name))}" for name in ("kernel_size", "stride", "padding")]
    if max(windows.dilation) > 1:
        told.append(f"dilation {sizes(windows.dilation)}")
    if windows.ceil_mode:
        told.append("ceil_mode")
    return ", ".join(told).replace("kernel_size", "kernel")

"""The pictures of the derivations: every number in them comes from a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch import functional as F
from torchfromscratch.explaining import conv2d, cross_entropy, max_pool2d
from torchfromscratch.explaining.explanation import Explanation, factor, number
from torchfromscratch.notes.drawing import CELL, Drawing

LANGUAGES = ("en", "vi")
Say = Callable[[str], str]
GAP = 44
LINE = 22
COLOURS = ("left", "right", "other", "result", "fifth")
SUBSCRIPTS = "₀₁₂₃₄"
DIGITS = 3

VIETNAMESE = {
    "window 3×3, grid 5×5": "cửa sổ 3×3, lưới 5×5",
    "by output: the rows": "theo đầu ra: các hàng",
    "by tap: the diagonals": "theo ô của kernel: các đường chéo",
    "by input: the columns": "theo đầu vào: các cột",
    "turned by 180°": "xoay 180°",
    "dL/dy among zeros": "dL/dy, đệm bằng số 0",
    "w rotated": "w đã xoay",
    "windows side by side": "các cửa sổ cạnh nhau",
    "windows that overlap": "các cửa sổ chồng lên nhau",
    "equal: the first one wins": "bằng nhau: ô đầu tiên thắng",
    "one cell wins several windows: a sum": "một ô thắng nhiều cửa sổ: một tổng",
    "forward →": "lượt xuôi →",
    "← backward": "← lượt ngược",
    "directly": "trực tiếp",
    "through σ²": "qua σ²",
    "through μ": "qua μ",
    "their sum": "tổng của chúng",
    "m = 4 values of a channel": "m = 4 giá trị của một kênh",
    "a row for each window": "mỗi cửa sổ một hàng",
    "6 inputs": "6 đầu vào",
    "additions, and few factors": "phép cộng, và ít thừa số",
    "3 taps": "3 ô của kernel",
    "once for all tiles": "một lần cho mọi ô lát",
    "6 products, where 4 · 3 were": "6 tích, thay cho 4 · 3",
    "4 outputs": "4 đầu ra",
    "filled up with 0": "đệm bằng số 0",
    "4 frequencies": "4 tần số",
    "4 products, however long w is": "4 tích, dù w dài bao nhiêu",
    "the last window wraps around: cut off": "cửa sổ cuối quay vòng: bỏ đi",
    "channel {}": "kênh {}",
    "a row for each pixel": "mỗi điểm ảnh một hàng",
}


def pictures(language: str, drawn: dict[str, Callable[[Say], Drawing]]) -> dict[str, str]:
    """Each picture's name and SVG, its few words in this language."""

    def say(text: str) -> str:
        return VIETNAMESE[text] if language == "vi" else text

    return {name: draw(say).svg() for name, draw in drawn.items()}


def whole(*shape: int, seed: int, low: int = 0, high: int = 3) -> Tensor:
    """Small whole numbers."""
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed)).double()


EDGES = torch.tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]]).double().view(1, 1, 3, 3)


def window_on_a_grid(say: Say) -> Drawing:
    """What padding, stride and dilation make of a window: which cells it reads, and how many outputs there are."""
    drawing = Drawing("A window on a grid, with padding, stride and dilation")
    x = whole(1, 1, 5, 5, seed=1)
    settings: list[tuple[str, dict[str, Any], tuple[int, int], str]] = [
        (say("window 3×3, grid 5×5"), {}, (1, 2), "5 − 3 + 1 = 3"),
        ("padding 1", {"padding": (1, 1)}, (0, 0), "5 + 2·1 − 3 + 1 = 5"),
        ("stride 2", {"stride": (2, 2)}, (1, 1), "(5 − 3) / 2 + 1 = 2"),
        ("dilation 2", {"dilation": (2, 2)}, (0, 0), "5 − (2·2 + 1) + 1 = 1"),
    ]
    left = 0.0
    for title, options, (row, column), size in settings:
        told = conv2d(x, EDGES, **options, grad_output=lambda shape: torch.ones(shape).double())
        y = told.grids["y"].values[0, 0]
        step = told.passes[0].steps[row * y.shape[1] + column]
        width, _ = _plane(drawing, left, 30, told, "x", step.used["x"], "left")
        drawing.text(left, 8, title)
        middle = left + width / 2
        drawing.arrow(middle, 250, middle, 274)
        matrix(drawing, middle - y.shape[1] * CELL / 2, 280, y, {(row, column): "result"})
        drawing.text(middle, 280 + 5 * CELL + 16, size, "faint", "middle")
        left += max(width, 160) + GAP
    drawing.text(0, 20 + 280 + 5 * CELL + 30, "(H + 2p − d·(k − 1) − 1) / s + 1", "faint")
    return drawing


def triples(say: Say) -> Drawing:
    """One list of triples (output, tap, input) as a matrix, summed along its rows, diagonals and columns."""
    drawing = Drawing("The triples of a convolution, grouped by output, by tap and by input")
    x, w, g = (torch.tensor([[[row]]]).double() for row in ([1, 2, 0, 3, 4], [2, -1, 3], [1, -2, 5]))
    told = conv2d(x, w, grad_output=lambda shape: g)
    xs, ws, gs = (t.flatten().tolist() for t in (x, w, g))
    listed = [(i, k, i + k) for i in range(3) for k in range(3)]
    panels: list[tuple[str, str, int, Callable[[int, int, int], tuple[float, float]]]] = [
        (say("by output: the rows"), "y", 0, lambda i, k, j: (ws[k], xs[j])),
        (say("by tap: the diagonals"), "dL/dw", 1, lambda i, k, j: (gs[i], xs[j])),
        (say("by input: the columns"), "dL/dx", 2, lambda i, k, j: (gs[i], ws[k])),
    ]
    left = 0.0
    for title, result, key, factors in panels:
        drawing.text(left, 8, title)
        drawing.text(left, 30, f"w = {', '.join(number(value) for value in ws)}", "faint", size=12)
        top, beside = 76, left + 70
        for j, value in enumerate(xs):
            drawing.text(beside + (j + 0.5) * CELL, 48, f"x{SUBSCRIPTS[j]}", "faint", "middle", 12)
            drawing.text(beside + (j + 0.5) * CELL, 65, number(value), "", "middle", 12)
        for i, value in enumerate(gs):
            drawing.text(left, top + (i + 0.5) * CELL, f"dL/dy{SUBSCRIPTS[i]}", "faint", size=12)
            drawing.text(beside - 8, top + (i + 0.5) * CELL, number(value), "", "end", 12)
        tints = {(i, j): COLOURS[(i, k, j)[key]] for i, k, j in listed}
        taps = [["" if not 0 <= j - i < 3 else f"w{SUBSCRIPTS[j - i]}" for j in range(5)] for i in range(3)]
        drawing.grid(beside, top, taps, tints, "filler")
        for cell, value in enumerate(told.grids[result].values.flatten().tolist()):
            pairs = [factors(*triple) for triple in listed if triple[key] == cell]
            text = " + ".join(f"{factor(a)}·{factor(b)}" for a, b in pairs)
            line = f"{result}[{cell}] = {text} = {number(value)}"
            drawing.text(left, top + 3 * CELL + 24 + cell * LINE, line, COLOURS[cell])
        left += 70 + 5 * CELL + 2 * GAP
    return drawing


def rotated_kernel(say: Say) -> Drawing:
    """The gradient of the input: the kernel turned by 180° slides over dL/dy among zeros."""
    drawing = Drawing("The gradient of the input slides the rotated kernel over dL/dy")
    w = torch.arange(1, 10).double().view(1, 1, 3, 3)
    g = torch.tensor([[1, 2], [3, -1]]).double().view(1, 1, 2, 2)
    told = conv2d(whole(1, 1, 4, 4, seed=2), w, grad_output=lambda shape: g)
    part = next(part for part in told.passes if part.result == "dL/dx")
    step = part.steps[6]
    corners = {(0, 0): "right", (0, 2): "other", (2, 0): "fifth", (2, 2): "left"}
    turned = {(2 - row, 2 - column): kind for (row, column), kind in corners.items()}
    drawing.text(0, 8, "w", "right")
    matrix(drawing, 0, 24, w[0, 0], corners)
    drawing.arrow(3 * CELL + 12, 24 + 1.5 * CELL, 3 * CELL + 112, 24 + 1.5 * CELL)
    drawing.text(3 * CELL + 62, 24 + 1.5 * CELL - 16, say("turned by 180°"), "faint", "middle", 12)
    drawing.text(3 * CELL + 128, 8, say("w rotated"), "right")
    matrix(drawing, 3 * CELL + 128, 24, told.grids["w rotated"].values[0, 0], turned)
    top, left = 24 + 3 * CELL + 50, 0.0
    drawing.text(left, top - 16, say("dL/dy among zeros"), "left")
    width, height = _plane(drawing, left, top, told, "dL/dy spread", step.used["dL/dy spread"], "left")
    drawing.text(left + width + GAP / 2, top + height / 2, "⋆", "faint", "middle", 20)
    left += width + GAP
    drawing.text(left, top - 16 + height / 2 - 1.5 * CELL, say("w rotated"), "right")
    matrix(drawing, left, top + height / 2 - 1.5 * CELL, told.grids["w rotated"].values[0, 0], turned, "right")
    drawing.text(left + 3 * CELL + GAP / 2, top + height / 2, "=", "faint", "middle", 20)
    left += 3 * CELL + GAP
    drawing.text(left, top - 16 + height / 2 - 2 * CELL, "dL/dx", "result")
    matrix(drawing, left, top + height / 2 - 2 * CELL, told.grids["dL/dx"].values[0, 0], {divmod(6, 4): "result"})
    real = told.grids["dL/dy spread"].filler
    assert real is not None
    cells = zip(step.used["dL/dy spread"], step.used["w rotated"], strict=True)
    spread, kernel = (told.grids[name].values.flatten().tolist() for name in ("dL/dy spread", "w rotated"))
    text = " + ".join(f"{factor(spread[a])}·{factor(kernel[b])}" for a, b in cells if not real.flatten()[a])
    value = told.grids["dL/dx"].values.flatten()[6]
    drawing.text(0, top + height + 24, f"dL/dx[1,2] = {text} = {number(float(value))}", "result")
    return drawing


def winners(say: Say) -> Drawing:
    """Max pooling: each window's winner, and the gradient that returns to it."""
    drawing = Drawing("Max pooling: the winner of each window gets its gradient")
    apart = torch.tensor([[1, 7, 2, 0], [3, 2, 5, 5], [4, 0, 1, 3], [2, 1, 8, 6]]).double()
    joint = torch.tensor([[1, 2, 0, 3], [4, 9, 1, 2], [0, 3, 5, 1], [2, 1, 4, 6]]).double()
    g = torch.tensor([[1, -2], [3, 4]]).double().view(1, 1, 2, 2)
    rows = [
        (say("windows side by side"), apart, 2, say("equal: the first one wins")),
        (say("windows that overlap"), joint, 3, say("one cell wins several windows: a sum")),
    ]
    top = 0.0
    for title, x, size, note in rows:
        stride = 2 if size == 2 else 1
        told = max_pool2d(
            x.view(1, 1, 4, 4), kernel_size=(size, size), stride=(stride, stride), grad_output=lambda shape: g
        )
        drawing.text(0, top + 8, title)
        y, dx = told.grids["y"].values[0, 0], told.grids["dL/dx"].values[0, 0]
        _, winner = F.max_pool2d(x.view(1, 1, 4, 4), size, stride, return_indices=True)
        owners: dict[tuple[int, int], str] = {}
        for window, cell in enumerate(winner.flatten().tolist()):
            owners.setdefault(divmod(cell, 4), COLOURS[window])
        by_window = {divmod(window, 2): COLOURS[window] for window in range(4)}
        left, middle = 0.0, top + 52 + 2 * CELL
        drawing.text(left, top + 36, "x", "left")
        matrix(drawing, left, top + 52, x, owners)
        for window in range(4):
            row, column = divmod(window, 2)
            if stride == 2:
                drawing.ring(left + 2 * column * CELL, top + 52 + 2 * row * CELL, 2, 2, COLOURS[window])
        drawing.text(left + 4 * CELL + GAP / 2, middle, "→", "faint", "middle", 20)
        left += 4 * CELL + GAP
        for name, values, kind in (("y", y, "result"), ("dL/dy", g[0, 0], "right")):
            drawing.text(left, middle - CELL - 16, name, kind)
            matrix(drawing, left, middle - CELL, values, by_window)
            drawing.text(left + 2 * CELL + GAP / 2, middle, "," if name == "y" else "→", "faint", "middle", 20)
            left += 2 * CELL + GAP
        drawing.text(left, top + 36, "dL/dx", "result")
        matrix(drawing, left, top + 52, dx, owners)
        drawing.text(0, top + 52 + 4 * CELL + 18, note, "faint")
        top += 52 + 4 * CELL + 54
    return drawing


def softmax_graph(say: Say) -> Drawing:
    """Softmax with cross-entropy as a graph: values on the way, gradients on the way back."""
    drawing = Drawing("The graph of softmax with cross-entropy, with values and gradients")
    z, target = torch.tensor([[2.0, 1.0, -1.0]]).double(), torch.tensor([1])
    told = cross_entropy(z, target)
    p = told.grids["p"].values.clone().requires_grad_()
    (to_p,) = torch.autograd.grad(F.nll_loss(p.log(), target), p)
    columns = [("z", z[0], "left", told.grids["dL/dz"].values[0]), ("p", p[0], "other", to_p[0])]
    width, height, apart = 132, 46, 74
    drawing.text(0, 8, say("forward →"), "left")
    drawing.text(120, 8, say("← backward"), "right")
    for column, (name, values, kind, gradients) in enumerate(columns):
        left = column * 250.0
        for row in range(3):
            top = 34 + row * apart
            drawing.box(left, top, width, height, "plain", 6)
            symbol = f"{name}{SUBSCRIPTS[row]}"
            drawing.text(left + 10, top + 14, f"{symbol} = {_short(values[row])}", kind)
            drawing.text(left + 10, top + 33, f"dL/d{symbol} = {_short(gradients[row])}", "right", size=12)
    for row in range(3):
        for other in range(3):
            drawing.arrow(width, 34 + row * apart + height / 2, 250, 34 + other * apart + height / 2, "left")
        chosen = row == int(target)
        drawing.arrow(
            250 + width,
            34 + row * apart + height / 2,
            500,
            34 + apart + height / 2,
            "left" if chosen else "",
            dashed=not chosen,
        )
        drawing.text(250 + width + 8, 34 + row * apart - 4, f"Y{SUBSCRIPTS[row]} = {int(chosen)}", "faint", size=12)
    drawing.box(500, 34 + apart, width, height, "plain", 6)
    drawing.text(510, 34 + apart + 14, f"L = {_short(told.grids['L'].values)}", "result")
    drawing.text(510, 34 + apart + 33, "dL/dL = 1", "right", size=12)
    drawing.text(191, 34 + 3 * apart - 6, "softmax", "faint", "middle")
    drawing.text(441, 34 + 3 * apart - 6, "−Σ Y·ln p", "faint", "middle")
    top = 34 + 3 * apart + 24
    drawing.text(0, top, "dL/dz = p − Y", "right")
    for row, step in enumerate(told.passes[-1].steps):
        value = told.grids["dL/dz"].values.flatten()[row]
        drawing.text(0, top + (row + 1) * LINE, f"dL/dz{SUBSCRIPTS[row]} = {step.text} = {number(float(value))}")
    return drawing


def three_paths(say: Say) -> Drawing:
    """Batch norm: x goes into x̂ directly, through μ and through σ²; each path brings a part of the gradient."""
    drawing = Drawing("Batch norm's three paths from x to x̂, and what each brings back")
    paths = batch_norm_paths()
    for x, y, text in ((0, 80, "x"), (150, 20, "μ"), (150, 140, "σ²"), (300, 80, "x̂"), (450, 80, "y")):
        drawing.box(x, y, 56, 40, "plain", 6)
        drawing.text(x + 28, y + 20, text, "", "middle", 16)
    drawing.arrow(56, 100, 300, 100, "left")
    drawing.arrow(56, 90, 150, 46, "right")
    drawing.arrow(206, 46, 300, 90, "right")
    drawing.arrow(178, 60, 178, 140)
    drawing.arrow(56, 110, 150, 154, "other")
    drawing.arrow(206, 154, 300, 110, "other")
    drawing.arrow(356, 100, 450, 100)
    drawing.text(403, 84, "γ·x̂ + β", "faint", "middle", 12)
    drawing.text(230, 88, say("directly"), "left", "start", 12)
    drawing.text(262, 50, say("through μ"), "right", "start", 12)
    drawing.text(262, 150, say("through σ²"), "other", "start", 12)
    rows = [
        ("x", "x", "", ""),
        ("x̂", "x̂", "", ""),
        ("h = γ · dL/dy", "h", "", ""),
        ("directly", "directly", "left", "ρ·h,  ρ = 1 / √(σ² + ε)"),
        ("through μ", "through μ", "right", "−ρ · Σh / m"),
        ("through σ²", "through σ²", "other", "−ρ·x̂ · Σ(h·x̂) / m"),
        ("their sum", "dL/dx", "result", "dL/dx"),
    ]
    drawing.text(0, 212, say("m = 4 values of a channel"), "faint", size=12)
    for row, (title, key, kind, formula) in enumerate(rows):
        top = 228 + row * CELL
        drawing.text(0, top + CELL / 2, say(title) if kind else title, kind)
        for column, value in enumerate(paths[key].tolist()):
            drawing.box(124 + column * 66, top, 66, CELL, kind or "plain")
            drawing.text(124 + column * 66 + 33, top + CELL / 2, _short(value), "", "middle", 13)
        drawing.text(124 + 4 * 66 + 14, top + CELL / 2, formula, "faint", size=13)
    return drawing


def batch_norm_paths() -> dict[str, Tensor]:
    """One channel of four values: what each way from x to x̂ brings to dL/dx, and the layer's dL/dx."""
    x = torch.tensor([[1.0], [3.0], [4.0], [8.0]]).double().requires_grad_()
    gamma, beta = torch.tensor([2.0]).double(), torch.zeros(1).double()
    grad = torch.tensor([[1.0], [0.0], [-2.0], [1.5]]).double()
    y = F.batch_norm(x, None, None, gamma, beta, training=True)
    (dx,) = torch.autograd.grad(y, x, grad)
    hat, h = (y.detach() / gamma)[:, 0], (gamma * grad)[:, 0]
    inverse = (x.detach().var(correction=0) + 1e-5).rsqrt()
    return {
        "x": x.detach()[:, 0],
        "x̂": hat,
        "h": h,
        "directly": inverse * h,
        "through μ": (-inverse * h.mean()).expand(4),
        "through σ²": -inverse * hat * (h * hat).mean(),
        "dL/dx": dx[:, 0],
    }


def _plane(
    drawing: Drawing, left: float, top: float, told: Explanation, name: str, lit: Sequence[int], kind: str
) -> tuple[float, float]:
    """The only plane of a grid, its filler faint, the cells of a step lit."""
    grid = told.grids[name]
    values, columns = grid.values[0, 0], grid.values.shape[-1]
    filler = [] if grid.filler is None else grid.filler.flatten().nonzero().flatten().tolist()
    tints = {**{divmod(cell, columns): "filler" for cell in filler}, **{divmod(cell, columns): kind for cell in lit}}
    return matrix(drawing, left, top, values, tints)


def matrix(
    drawing: Drawing,
    left: float,
    top: float,
    values: Tensor,
    tints: dict[tuple[int, int], str],
    tint: str = "plain",
) -> tuple[float, float]:
    """A matrix of numbers; returns its width and height."""
    return drawing.grid(left, top, [[_short(value) for value in row] for row in values.tolist()], tints, tint)


def _short(value: float | Tensor) -> str:
    return number(float(value.detach() if isinstance(value, Tensor) else value), DIGITS)


PICTURES: dict[str, Callable[[Say], Drawing]] = {
    "windows": window_on_a_grid,
    "triples": triples,
    "rotated_kernel": rotated_kernel,
    "max_pooling": winners,
    "softmax_graph": softmax_graph,
    "batch_norm_paths": three_paths,
}

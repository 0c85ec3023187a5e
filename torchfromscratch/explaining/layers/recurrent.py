"""One step of an LSTM: four gates, a state that is added to, and the way back through all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfromscratch import functional
from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, Step, factor, number, sizes
from torchfromscratch.explaining.layers.common import (
    GradOutput,
    at,
    both,
    matrix_product,
    numbers,
    product_step,
    sum_pass,
)

GATES = {"i": "the input gate", "f": "the forget gate", "g": "the candidate", "o": "the output gate"}


def lstm(input: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Tensor, *, grad_output: GradOutput) -> Explanation:
    """The new states and all gradients of one LSTM step.

    Shapes: input (N, I), h and c (N, H), weight (4H, I + H) for the gates i, f, g, o one below the other and the input
    beside h, bias (4H). `grad_output` makes the gradients of h' and c', (N, 2H).
    """
    features, hidden = input.shape[1], h.shape[1]
    ours, theirs = both(_step(features, hidden), {"x": input, "h": h, "c": c, "w": weight, "b": bias}, grad_output)
    z, (grad_h, grad_c) = torch.cat([input, h], 1), ours["dL/dy"].split(hidden, 1)
    before = functional.linear(z, weight, bias)
    gate = {name: part.contiguous() for name, part in zip(GATES, before.chunk(4, 1), strict=True)}
    gate = {name: functional.tanh(a) if name == "g" else functional.sigmoid(a) for name, a in gate.items()}
    (h_after, c_after), (h_torch, c_torch) = (y["y"].split(hidden, 1) for y in (ours, theirs))
    squashed = functional.tanh(c_after.contiguous())
    to_state = grad_c + grad_h * gate["o"] * (1 - squashed * squashed)
    to_gates = {
        "i": to_state * gate["g"] * gate["i"] * (1 - gate["i"]),
        "f": to_state * c * gate["f"] * (1 - gate["f"]),
        "g": to_state * gate["i"] * (1 - gate["g"] * gate["g"]),
        "o": grad_h * squashed * gate["o"] * (1 - gate["o"]),
    }
    grids = {
        "z": Grid(z, f"x and h side by side: columns 0 to {features - 1} are x"),
        "w": Grid(weight, "the rows of i, f, g and o, one below the other"),
        "b": Grid(bias),
        "c": Grid(c, "the state before"),
        "dL/dh'": Grid(grad_h, "from the output and from the next step"),
        "dL/dc'": Grid(grad_c, "from the next step"),
        "a": Grid(before, "columns of i, f, g and o", torch=torch.nn.functional.linear(z, weight, bias)),
        **{name: Grid(value, GATES[name]) for name, value in gate.items()},
        "c'": Grid(c_after, "the state after", torch=c_torch),
        "t": Grid(squashed, "tanh c'"),
        "h'": Grid(h_after, "what the step puts out", torch=h_torch),
        "δ": Grid(to_state, "dL/dc' and what comes to c' through h'"),
        "dL/da": Grid(torch.cat(list(to_gates.values()), 1), "columns of i, f, g and o"),
        "dL/dw": Grid(ours["dL/dw"], torch=theirs["dL/dw"]),
        "dL/db": Grid(ours["dL/db"], torch=theirs["dL/db"]),
        "dL/dz": Grid(
            torch.cat([ours["dL/dx"], ours["dL/dh"]], 1),
            f"columns 0 to {features - 1} are dL/dx, the others dL/dh",
            torch=torch.cat([theirs["dL/dx"], theirs["dL/dh"]], 1),
        ),
        "dL/dc": Grid(ours["dL/dc"], torch=theirs["dL/dc"]),
    }
    columns = {name: numbers(before)[:, k * hidden : (k + 1) * hidden].flatten() for k, name in enumerate(GATES)}
    sums = [product_step(grids, o, {"dL/da": numbers(before)[:, o].tolist()}) for o in range(4 * hidden)]
    passes = [
        matrix_product(grids, "a", "Both inputs, multiplied", ("z", "w"), (False, True), added="b"),
        *[_gate(grids, name, columns[name].tolist()) for name in GATES],
        _elementwise(grids, "c'", "The state: forget some, add some", "c' = f · c + i · g", "{f}·{c} + {i}·{g}"),
        _elementwise(grids, "t", "The state, squashed", "t = tanh c'", "tanh({c'})"),
        _elementwise(grids, "h'", "What is put out", "h' = o · t", "{o}·{t}"),
        _elementwise(
            grids,
            "δ",
            "Gradient of the state: its own, and what comes through h'",
            "δ = dL/dc' + dL/dh' · o · (1 − t²)",
            "{dL/dc'} + {dL/dh'}·{o}·(1 − {t}²)",
        ),
        _through_gates(grids, columns, hidden),
        matrix_product(grids, "dL/dw", "Gradient of the weight", ("dL/da", "z"), (True, False)),
        sum_pass("dL/db", "Gradient of the bias: add up dL/da over the batch", sums, "dL/da"),
        matrix_product(grids, "dL/dz", "Gradient of the input and of h", ("dL/da", "w"), (False, False)),
        _elementwise(grids, "dL/dc", "Gradient of the state before: only f in between", "dL/dc = δ · f", "{δ}·{f}"),
    ]
    settings = f"input {sizes(input.shape)}, {hidden} hidden units, weight {sizes(weight.shape)}"
    return Explanation("lstm", settings, ("z", "w", "b", "c", "dL/dh'", "dL/dc'"), grids, passes)


def _step(features: int, hidden: int) -> Any:
    """The LSTM's step in either library, its two states side by side."""

    def step(F: Any, x: Tensor, h: Tensor, c: Tensor, w: Tensor, b: Tensor) -> Tensor:
        library = F if F is functional else torch
        w_ih, w_hh = w.split([features, hidden], 1)
        return torch.cat(library.lstm_cell(x, (h, c), w_ih, w_hh, b, torch.zeros_like(b)), 1)

    return step


def _gate(grids: dict[str, Grid], name: str, columns: list[int]) -> Pass:
    values = at(grids["a"].values, columns)
    if name == "g":
        title, formula, texts = "squashed to −1 … 1", "g = tanh a", [f"tanh({number(a)})" for a in values]
    else:
        title, formula = "between 0 and 1", f"{name} = σ(a) = 1 / (1 + e^(−a))"
        texts = [f"1 / (1 + e^(−{factor(a)}))" for a in values]
    steps = [Step(cell, {"a": [columns[cell]]}, [(text, 0)]) for cell, text in enumerate(texts)]
    return Pass(name, f"{GATES[name].capitalize()}, {title}", formula, ("a",), steps)


def _elementwise(grids: dict[str, Grid], result: str, title: str, formula: str, text: str) -> Pass:
    """A result whose cells are each made of the same cell of its operands, which `text` names in braces."""
    operands = tuple(name for name in grids if f"{{{name}}}" in text)
    steps = []
    for cell in range(grids[result].values.numel()):
        shown = text
        for name in operands:
            shown = shown.replace(f"{{{name}}}", factor(at(grids[name].values, [cell])[0]))
        steps.append(Step(cell, {name: [cell] for name in operands}, [(shown, 0)]))
    return Pass(result, title, formula, operands, steps)


# dL/da of each gate, from the cell of the same sample and unit in each operand.
_SLOPES = {
    "i": "{δ}·{g}·{i}·(1 − {i})",
    "f": "{δ}·{c}·{f}·(1 − {f})",
    "g": "{δ}·{i}·(1 − {g}²)",
    "o": "{dL/dh'}·{t}·{o}·(1 − {o})",
}


def _through_gates(grids: dict[str, Grid], columns: dict[str, Tensor], hidden: int) -> Pass:
    operands = ("δ", "dL/dh'", "i", "f", "g", "o", "c", "t")
    steps = {}
    for gate, text in _SLOPES.items():
        for source, cell in enumerate(columns[gate].tolist()):
            used = [name for name in operands if f"{{{name}}}" in text]
            shown = text
            for name in used:
                shown = shown.replace(f"{{{name}}}", factor(at(grids[name].values, [source])[0]))
            steps[cell] = Step(cell, {name: [source] for name in used}, [(shown, 0)])
    return Pass(
        "dL/da",
        "Gradient of each gate, times its slope",
        "da_i = δ g i(1−i),  da_f = δ c f(1−f),  da_g = δ i (1−g²),  da_o = dL/dh' t o(1−o)",
        operands,
        [steps[cell] for cell in sorted(steps)],
    )

"""What the explanations of the layers share: running both libraries, and numbering cells."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchfromscratch import functional
from torchfromscratch.explaining.explanation import Fragment, Grid, Pass, Step, factor, join, sum_of_products

Pair = tuple[int, int]
GradOutput = Callable[[torch.Size], Tensor]


def both(
    layer: Callable[..., Tensor],
    operands: dict[str, Tensor],
    grad_output: GradOutput,
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


def numbers(grid: Tensor) -> Tensor:
    """The cells of a grid, numbered in the order of memory."""
    return torch.arange(grid.numel()).view(grid.shape)


def cells(grid: Tensor) -> list[tuple[int, tuple[int, ...]]]:
    """Every cell of a grid: its number and its indices."""
    return [(cell, tuple(index)) for cell, index in enumerate(torch.ones(grid.shape).nonzero().tolist())]


def at(grid: Tensor, cells: list[int]) -> list[float]:
    return grid.flatten()[cells].tolist()


def product_step(
    grids: dict[str, Grid], cell: int, paired: dict[str, list[int]], added: dict[str, int] | None = None
) -> Step:
    """A step that adds up products of paired cells, and a constant if there is one."""
    columns = [at(grids[name].values, cells) for name, cells in paired.items()]
    constants = {name: [at] for name, at in (added or {}).items()}
    plus = [at(grids[name].values, cells)[0] for name, cells in constants.items()]
    return Step(cell, {**paired, **constants}, sum_of_products(*columns, plus=plus[0] if plus else None))


def sum_pass(result: str, title: str, steps: list[Step], summed: str = "dL/dy") -> Pass:
    return Pass(result, title, f"{result}[o] = Σ {summed}[…,o,…]", (summed,), steps, (summed,))


def matrix_product(
    grids: dict[str, Grid],
    result: str,
    title: str,
    factors: tuple[str, str],
    transposed: tuple[bool, bool],
    added: str | None = None,
) -> Pass:
    """result = left · right, either of them transposed, plus a row that is added to each."""
    left, right = (numbers(grids[name].values) for name in factors)
    left, right = left.mT if transposed[0] else left, right if transposed[1] else right.mT
    steps = []
    for cell, (row, column) in cells(grids[result].values):
        pairs = dict(zip(factors, (left[row].tolist(), right[column].tolist()), strict=True))
        steps.append(product_step(grids, cell, pairs, None if added is None else {added: column}))
    marked = [
        f"({name})ᵀ" if flag and "/" in name else name + "ᵀ" * flag
        for name, flag in zip(factors, transposed, strict=True)
    ]
    formula = f"{result} = {' '.join(marked)}" + ("" if added is None else f" + {added}")
    operands = factors if added is None else (*factors, added)
    return Pass(result, title, formula, operands, steps, factors, (1, 1, left.shape[1]))


def softmax_steps(name: str, scores: Tensor) -> list[Step]:
    """e^z / Σ e^z over each row of a grid of scores."""
    rows, steps = numbers(scores), []
    for cell, (n, c) in cells(scores):
        exponentials: list[Fragment] = [(f"e^{factor(v)}", t) for t, v in enumerate(scores[n].tolist())]
        above: Fragment = (f"e^{factor(float(scores[n, c]))} / (", None)
        steps.append(Step(cell, {name: rows[n].tolist()}, [above, *join(" + ", exponentials), (")", None)]))
    return steps


def padding_note(padding: Pair, value: str) -> str:
    return f"padded with {value}" if any(padding) else ""

"""An explanation as text: the numbers given, then every pass with the window that each step used."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, Step, index_of, number

# Lines of text, all of one width.
Block = list[str]

LINE_WIDTH = 100
GAP = "   "


def as_text(explanation: Explanation, steps: int | None = None) -> str:
    """The whole explanation, with at most `steps` steps of each pass (None: all)."""
    lines = [f"{explanation.layer}: {explanation.settings}", ""]
    lines += _in_rows([_draw_grid(name, explanation.grids[name]) for name in explanation.given])
    for part in explanation.passes:
        lines += ["", f"── {part.title} ──", part.formula, ""]
        derived = [name for name in part.operands if name not in explanation.given and explanation.grids[name].note]
        for name in derived:
            lines += [*_in_rows([_draw_grid(name, explanation.grids[name])]), ""]
        lines += _in_rows(_result(part.result, explanation.grids[part.result]))
        told = [_describe_step(explanation, part, step) for step in part.steps[:steps]]
        with_windows = any(len(block) > 1 for block in told)
        lines += [line for i, block in enumerate(told) for line in ([""] if with_windows or not i else []) + block]
        if steps is not None and len(part.steps) > steps:
            lines += ["", f"… and {len(part.steps) - steps} more steps"]
    lines += ["", explanation.agreement]
    return "\n".join(line.rstrip() for line in lines)


def _describe_step(explanation: Explanation, part: Pass, step: Step) -> Block:
    """One step: the windows that it used, and the sum."""
    result = explanation.grids[part.result].values
    name = f"{part.result}{index_of(step.cell, tuple(result.shape))}"
    equation = [f"{name} = {step.text} = {number(result.flatten()[step.cell].item())}"]
    if part.window is None or all(size == 1 for size in part.window):
        return equation
    planes, rows, columns = part.window
    windows = [
        explanation.grids[operand].values.flatten()[step.used[operand]].view(planes, rows, columns)
        for operand in part.paired
    ]
    blocks = []
    for plane in range(planes):
        pair = [_matrix(window[plane]) for window in windows]
        blocks.append(_beside(pair, " ⊙ "))
    return [*_in_rows(blocks), *equation]


def _draw_grid(name: str, grid: Grid) -> Block:
    """A grid with its name and note above its planes."""
    planes = [_add_title(title, _matrix(plane)) for title, plane in _planes(name, grid.values)]
    rows = _in_rows(planes)
    return [f"{name}: {grid.note}", *rows] if grid.note else rows


def _result(name: str, grid: Grid) -> list[Block]:
    """A result, and torch.nn's own or the given one beside it, wrong cells in brackets."""
    blocks = [_add_title(title, _matrix(plane)) for title, plane in _planes(name, grid.values)]
    if grid.beside is None:
        return blocks
    label, values = grid.beside
    wrong = torch.zeros_like(values, dtype=torch.bool) if grid.wrong is None else grid.wrong
    planes = zip(_planes(name, values), _planes(name, wrong), strict=True)
    theirs = [
        _add_title(f"{label.removesuffix('.nn')} {title}", _matrix(plane, bad)) for (title, plane), (_, bad) in planes
    ]
    return [block for pair in zip(blocks, theirs, strict=True) for block in pair]


def _planes(name: str, values: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The matrices of a tensor with their titles: x[0,1] for the planes of a tensor of four dimensions."""
    if values.dim() <= 2:
        yield name, values.reshape(-1, values.shape[-1] if values.dim() else 1)
        return
    for index in itertools.product(*(range(size) for size in values.shape[:-2])):
        yield f"{name}[{','.join(str(i) for i in index)}]", values[index]


def _matrix(values: Tensor, wrong: Tensor | None = None) -> Block:
    """The numbers of a matrix in aligned columns, wrong ones in brackets."""
    cells = [[number(value) for value in row] for row in values.tolist()]
    if wrong is not None:
        marked = zip(cells, wrong.tolist(), strict=True)
        cells = [[f"[{cell}]" if bad else cell for cell, bad in zip(*row, strict=True)] for row in marked]
    width = max(len(cell) for row in cells for cell in row)
    return [" ".join(cell.rjust(width) for cell in row) for row in cells]


def _add_title(title: str, block: Block) -> Block:
    return _square([title, *block])


def _square(block: Block) -> Block:
    width = max(len(line) for line in block)
    return [line.ljust(width) for line in block]


def _beside(blocks: list[Block], separator: str) -> Block:
    """Blocks next to each other; the separator stands in the middle line."""
    height = max(len(block) for block in blocks)
    filled = [_square(block + [""] * (height - len(block))) for block in blocks]
    separators = [separator if line == height // 2 else " " * len(separator) for line in range(height)]
    return ["".join(_interleave(line, mark)) for *line, mark in zip(*filled, separators, strict=True)]


def _interleave(pieces: list[str], mark: str) -> list[str]:
    return [part for piece in pieces for part in (mark, piece)][1:]


def _in_rows(blocks: list[Block]) -> Block:
    """Blocks next to each other, in as many rows as the line width asks for."""
    rows: list[list[Block]] = [[]]
    for block in map(_square, blocks):
        if rows[-1] and sum(len(b[0]) + len(GAP) for b in rows[-1]) + len(block[0]) > LINE_WIDTH:
            rows.append([])
        rows[-1].append(block)
    return [line for row in rows if row for line in _beside(row, GAP)]

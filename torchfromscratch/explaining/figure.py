"""An explanation as a picture for slides: one row a pass; and as an animation: one frame a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, Step, index_of, number
from torchfromscratch.extras import from_extra

with from_extra("train"):
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

# Lengths are counted in cells.
GAP = 1.6
PLANE_GAP = 0.5
ABOVE = 2.0  # a pass's title and the names of its grids
BELOW = 1.0
LINE_OF_SUM = 0.6
CELL_INCHES = 0.42
DIGITS = 3  # as many as fit a cell
TITLE_CHARACTERS_A_CELL = 3.7
SUM_CHARACTERS_A_CELL = 5.2

INK, FAINT, LINE, FILLER = "#1c2430", "#697586", "#c3cad4", "#eef1f5"
OPERANDS = (("#bfdbfe", "#1d4ed8"), ("#fed7aa", "#b45309"), ("#e9d5ff", "#6b21a8"))  # fill and ink
RESULT = ("#86efac", "#15803d")
WRONG = "#dc2626"

FRAMES_A_SECOND = 1
MOST_FRAMES = 300


def as_figure(explanation: Explanation) -> Figure:
    """A picture of all passes, each at the step in its middle."""
    figure, axes = _figure(explanation)
    top = 0.0
    for part in explanation.passes:
        top += _draw(axes, explanation, part, part.steps[len(part.steps) // 2], top, complete=True)
    return figure


def save_picture(explanation: Explanation, path: Path) -> None:
    """The same in a file."""
    as_figure(explanation).savefig(path, dpi=150)


def save_animation(explanation: Explanation, path: Path) -> None:
    """An animated GIF: every step of every pass, the result filling up.

    Raises ValueError if there are more steps than anyone would watch.
    """
    moments = [(part, step) for part in explanation.passes for step in part.steps]
    if len(moments) > MOST_FRAMES:
        raise ValueError(f"--gif: {len(moments)} steps are more than {MOST_FRAMES} frames; make --input smaller")
    tallest = max(_height(explanation, part) for part in explanation.passes)
    figure, axes = _figure(explanation, tallest)
    limits = axes.get_xlim(), axes.get_ylim()

    def draw(frame: int) -> tuple:
        axes.clear()
        axes.axis("off")
        axes.set(xlim=limits[0], ylim=limits[1])
        part, step = moments[frame]
        _draw(axes, explanation, part, step, 0.0, complete=False)
        return ()

    animation = FuncAnimation(figure, draw, frames=len(moments), interval=1000 / FRAMES_A_SECOND)
    animation.save(path, writer=PillowWriter(fps=FRAMES_A_SECOND), dpi=100)


def _figure(explanation: Explanation, height: float | None = None) -> tuple[Figure, Axes]:
    """An empty drawing as large as the passes need, measured in cells, y pointing down."""
    width = max(_width(explanation, part) for part in explanation.passes)
    height = sum(_height(explanation, part) for part in explanation.passes) if height is None else height
    figure = Figure(figsize=((width + 1) * CELL_INCHES, (height + 0.5) * CELL_INCHES), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set(xlim=(-0.5, width + 0.5), ylim=(height, -0.5))
    return figure, axes


def _columns(explanation: Explanation, part: Pass) -> list[tuple[str, Grid]]:
    """The operands, the result and, where there is one, the given result."""
    found = [(name, replace(explanation.grids[name], wrong=None)) for name in (*part.operands, part.result)]
    result = explanation.grids[part.result]
    return found if result.given is None else [*found, ("given", replace(result, values=result.given))]


def _width(explanation: Explanation, part: Pass) -> float:
    grids = sum(_extent(grid)[0] + GAP for _, grid in _columns(explanation, part)) - GAP
    return max(grids, len(part.title) / TITLE_CHARACTERS_A_CELL, 16)


def _height(explanation: Explanation, part: Pass) -> float:
    rows = max(_extent(grid)[1] for _, grid in _columns(explanation, part))
    return rows + ABOVE + BELOW + _lines(explanation, part) * LINE_OF_SUM


def _lines(explanation: Explanation, part: Pass) -> int:
    """How many lines the longest sum of a pass takes."""
    longest = max(len(step.text) for step in part.steps) + len(part.result) + 24
    return -(-longest // _characters(explanation))


def _characters(explanation: Explanation) -> int:
    """How many characters of a sum fit on a line."""
    return int(max(_width(explanation, part) for part in explanation.passes) * SUM_CHARACTERS_A_CELL)


def _extent(grid: Grid) -> tuple[float, float]:
    """Width and height of a grid: its planes stand in a row for each picture of the batch."""
    across, down, rows, columns = _arrangement(grid)
    return across * (columns + PLANE_GAP) - PLANE_GAP, down * (rows + PLANE_GAP) - PLANE_GAP


def _arrangement(grid: Grid) -> tuple[int, int, int, int]:
    """Planes across and down, and the rows and columns of each plane."""
    shape = tuple(grid.values.shape)
    rows, columns = (1, *shape)[-2:] if shape else (1, 1)
    across = shape[-3] if len(shape) > 2 else 1
    return across, max(grid.values.numel() // max(across * rows * columns, 1), 1), rows, columns


def _places(grid: Grid) -> Iterator[tuple[float, float]]:
    """Where each cell stands, in the order of memory."""
    across, down, rows, columns = _arrangement(grid)
    for plane in range(across * down):
        below, beside = divmod(plane, across)
        for cell in range(rows * columns):
            row, column = divmod(cell, columns)
            yield beside * (columns + PLANE_GAP) + column, below * (rows + PLANE_GAP) + row


def _draw(axes: Axes, explanation: Explanation, part: Pass, step: Step, top: float, complete: bool) -> float:
    """One pass at one step, from `top` downwards; returns its height. Not `complete`: later cells stay empty."""
    axes.text(0, top + 0.3, part.title, fontsize=13, fontweight="bold", color=INK, va="center")
    columns = _columns(explanation, part)
    tallest = max(_extent(grid)[1] for _, grid in columns)
    left = 0.0
    for i, (name, grid) in enumerate(columns):
        is_result = i >= len(part.operands)
        fill, ink = RESULT if is_result else OPERANDS[min(i, len(OPERANDS) - 1)]
        width, height = _extent(grid)
        y = top + ABOVE + (tallest - height) / 2
        if i:
            middle = top + ABOVE + tallest / 2
            sign = part.signs[i - 1] if i <= len(part.operands) else _relation(grid)
            axes.text(left - GAP / 2, middle, sign, fontsize=18, color=FAINT, ha="center", va="center")
        axes.text(left, y - 0.45, name, fontsize=12, fontweight="bold", color=ink, va="center")
        lit = {step.cell} if is_result else set(step.used.get(name, ()))
        hidden = range(step.cell + 1, grid.values.numel()) if is_result and not complete else range(0)
        _draw_cells(axes, grid, left, y, lit, fill, hidden)
        left += width + GAP
    result = explanation.grids[part.result].values
    name = f"{part.result}{index_of(step.cell, tuple(result.shape))}"
    sum_text = f"{name} = {step.text} = {number(result.flatten()[step.cell].item())}"
    lines = _wrap(sum_text, _characters(explanation))
    axes.text(0, top + ABOVE + tallest + 0.5, "\n".join(lines), fontsize=11, color=INK, va="top", linespacing=1.4)
    return _height(explanation, part)


def _relation(given: Grid) -> str:
    return "=" if given.wrong is None or not given.wrong.any() else "≠"


def _draw_cells(axes: Axes, grid: Grid, left: float, top: float, lit: set[int], fill: str, hidden: range) -> None:
    filler = [False] * grid.values.numel() if grid.filler is None else grid.filler.flatten().tolist()
    wrong = [False] * grid.values.numel() if grid.wrong is None else grid.wrong.flatten().tolist()
    for cell, ((x, y), value) in enumerate(zip(_places(grid), grid.values.flatten().tolist(), strict=True)):
        colour = fill if cell in lit else FILLER if filler[cell] else "white"
        axes.add_patch(Rectangle((left + x, top + y), 1, 1, facecolor=colour, edgecolor=LINE, linewidth=0.8))
        if cell not in hidden:
            text = number(value, DIGITS)
            size = 11 if len(text) < 4 else 8.5 if len(text) < 6 else 7
            ink = WRONG if wrong[cell] else FAINT if filler[cell] and cell not in lit else INK
            axes.text(left + x + 0.5, top + y + 0.53, text, fontsize=size, color=ink, ha="center", va="center")


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken at spaces."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines

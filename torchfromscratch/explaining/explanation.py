"""What an explanation is: grids of numbers, and for every cell of a result the cells that it came from.

A layer's forward and backward are passes. A pass fills a result cell by cell; each cell is one step,
which names the cells that it used and spells out the sum. How this is shown is decided elsewhere: in `text`, in `page`
and in `figure`.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAME_HEIGHT = 640  # pixels of a page inside a notebook, which scrolls

# A piece of a sum, and the number of the pair of cells that it is made of (None: of none in particular).
Fragment = tuple[str, int | None]


@dataclass(frozen=True)
class Grid:
    """A named tensor: its values, which of its cells are filler (padding, gaps), and what is shown beside them.

    That are torch.nn's values, or those that a function of somebody else's has `given`, and which of them are `wrong`.
    """

    values: Tensor
    note: str = ""
    filler: Tensor | None = None
    torch: Tensor | None = None
    given: Tensor | None = None
    wrong: Tensor | None = None

    @property
    def beside(self) -> tuple[str, Tensor] | None:
        """What is shown beside the values, and whose it is."""
        if self.given is not None:
            return "given", self.given
        return None if self.torch is None else ("torch.nn", self.torch)


@dataclass(frozen=True)
class Step:
    """How one cell of a result came about.

    `cell` and the numbers in `used` (grid → cells) count the cells of a grid in the order of memory. The
    t-th cells of the pass's paired grids belong together; fragments with number t are about them.
    """

    cell: int
    used: dict[str, list[int]]
    expression: list[Fragment]

    @property
    def text(self) -> str:
        """The sum as it is read."""
        return "".join(piece for piece, _ in self.expression)


@dataclass(frozen=True)
class Pass:
    """One result, computed cell by cell from its operands.

    `window` is the shape (planes, rows, columns) in which the paired cells of a step are laid out.
    """

    result: str
    title: str
    formula: str
    operands: tuple[str, ...]
    steps: list[Step]
    paired: tuple[str, ...] = ()
    window: tuple[int, int, int] | None = None

    @property
    def signs(self) -> list[str]:
        """What stands behind each operand: ⋆ in a pair that is multiplied and added up, → before other results."""
        multiplied = len(self.paired) > 1
        between = ["⋆" if multiplied else ","] + ["+" if multiplied else ","] * len(self.operands)
        return [*between[: len(self.operands) - 1], "=" if multiplied else "→"]


@dataclass(frozen=True, repr=False)
class Explanation:
    """One small forward and backward pass of a layer: the numbers and where each came from.

    `str` reads as text; a notebook shows the page to step through; `figure` is a picture. `verdict` is what a check
    said of the function whose values stand beside the right ones.
    """

    layer: str
    settings: str
    given: tuple[str, ...]
    grids: dict[str, Grid]
    passes: list[Pass] = field(default_factory=list)
    verdict: str = ""

    def __str__(self) -> str:
        from torchfromscratch.explaining.text import as_text

        return as_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """For notebooks: the page, in a frame of its own."""
        from torchfromscratch.explaining.page import as_page

        size = f'width="100%" height="{FRAME_HEIGHT}" style="border:0"'
        return f'<iframe srcdoc="{html.escape(as_page(self))}" title="{self.layer}, explained" {size}></iframe>'

    def figure(self) -> Figure:
        """A picture of all passes, each at the step in its middle. Needs matplotlib."""
        from torchfromscratch.explaining.figure import as_figure

        return as_figure(self)

    @property
    def largest_difference(self) -> float:
        """How far any result is from torch.nn's."""
        return max(
            float((grid.values - grid.torch).abs().max()) for grid in self.grids.values() if grid.torch is not None
        )

    @property
    def agreement(self) -> str:
        """How far any result is from torch.nn's, in words, or the verdict."""
        if self.verdict:
            return self.verdict
        if self.largest_difference == 0:
            return "Every result is exactly torch.nn's."
        return f"Largest difference from torch.nn: {number(self.largest_difference)}"


def number(value: float, digits: int = 4) -> str:
    """A number as it is shown: a few digits, a true minus sign."""
    return f"{value + 0.0:.{digits}g}".replace("-", "−").replace("inf", "∞")


def factor(value: float) -> str:
    """A number inside a product or a sum: in brackets if negative."""
    return f"({number(value)})" if value < 0 else number(value)


def sum_of_products(*columns: list[float], plus: float | None = None) -> list[Fragment]:
    """a₀·b₀ + a₁·b₁ + … (+ a constant), from the columns a, b, …; "0" if there is nothing to add."""
    products = ["·".join(factor(value) for value in row) for row in zip(*columns, strict=True)]
    pieces: list[Fragment] = [(product, t) for t, product in enumerate(products)]
    if plus is not None:
        pieces.append((factor(plus), None))
    return join(" + ", pieces) or [("0", None)]


def join(separator: str, pieces: list[Fragment]) -> list[Fragment]:
    """The pieces with a separator between them."""
    return [part for piece in pieces for part in ((separator, None), piece)][1:]


def sizes(shape: tuple[int, ...]) -> str:
    """A shape as it is read: 1×1×4×4."""
    return "×".join(str(size) for size in shape)


def index_of(cell: int, shape: tuple[int, ...]) -> str:
    """The indices of a cell: [0,0,1,2]."""
    indices = []
    for size in reversed(shape):
        cell, index = divmod(cell, size)
        indices.append(str(index))
    return f"[{','.join(reversed(indices))}]" if shape else ""

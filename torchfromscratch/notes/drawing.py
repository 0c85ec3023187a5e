"""Drawings of grids, boxes and arrows as SVG, light or dark as the reader's screen is.

One file holds both themes: colours are classes, and a media query says what they are in the dark. Text stays text, so
that a file is the same wherever it is drawn.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

CELL = 30
MARGIN = 16

# fill and ink of what belongs together, light and dark, as on the pages of `explain`
TINTS = {
    "plain": ("#ffffff", "#1c2430", "#1b212a", "#e6eaf0"),
    "filler": ("#eef1f5", "#697586", "#252c37", "#98a3b3"),
    "left": ("#bfdbfe", "#1d4ed8", "#1e4a8a", "#93c5fd"),
    "right": ("#fed7aa", "#b45309", "#7c4413", "#fdba74"),
    "other": ("#e9d5ff", "#6b21a8", "#55307f", "#d8b4fe"),
    "result": ("#86efac", "#15803d", "#166534", "#86efac"),
    "fifth": ("#fecdd3", "#be123c", "#7f1d3a", "#fda4af"),
}
INK, FAINT, LINE, PAPER = ("#1c2430", "#e6eaf0"), ("#697586", "#98a3b3"), ("#c3cad4", "#39424f"), ("#f8f9fb", "#12161c")


def _style(dark: bool) -> str:
    """The rules of one theme."""
    rules = [f".paper{{fill:{PAPER[dark]}}}", f"text{{fill:{INK[dark]}}}", f"text.faint{{fill:{FAINT[dark]}}}"]
    rules += [f"rect.cell{{stroke:{LINE[dark]}}}", f".arrow{{stroke:{FAINT[dark]}}}", f".head{{fill:{FAINT[dark]}}}"]
    for name, (fill, ink, dark_fill, dark_ink) in TINTS.items():
        rules.append(f"rect.{name}{{fill:{dark_fill if dark else fill}}}")
        rules.append(f"text.{name}{{fill:{dark_ink if dark else ink}}}")
        rules.append(
            f".arrow.{name}{{stroke:{dark_ink if dark else ink}}}.head.{name}{{fill:{dark_ink if dark else ink}}}"
        )
        rules.append(f"rect.ring-{name}{{fill:none;stroke-width:3;stroke:{dark_ink if dark else ink}}}")
    return "".join(rules)


class Drawing:
    """A picture that grows with what is put on it; lengths are pixels, y points down."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = []
        self.width = self.height = 0.0

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", size: int = 14) -> None:
        """One line of text, `y` in its middle."""
        wide = len(text) * size * 0.62
        self._reach(x + {"start": wide, "middle": wide / 2, "end": 0}[anchor], y + size / 2)
        attributes = f'x="{x:g}" y="{y:g}" dy=".35em" text-anchor="{anchor}" font-size="{size}"'
        self.parts.append(f'<text class="{kind}" {attributes}>{html.escape(text)}</text>')

    def box(self, x: float, y: float, width: float, height: float, kind: str = "plain", rounded: int = 0) -> None:
        """A rectangle."""
        self._reach(x + width, y + height)
        size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{rounded}"'
        self.parts.append(f'<rect class="cell {kind}" {size}/>')

    def ring(self, x: float, y: float, columns: float, rows: float, kind: str) -> None:
        """A frame around cells."""
        size = f'x="{x:g}" y="{y:g}" width="{columns * CELL:g}" height="{rows * CELL:g}" rx="3"'
        self.parts.append(f'<rect class="ring-{kind}" {size}/>')

    def arrow(self, x: float, y: float, to_x: float, to_y: float, kind: str = "", dashed: bool = False) -> None:
        """An arrow from one place to another."""
        length = max(((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5, 1)
        along, across = ((to_x - x) / length, (to_y - y) / length), ((y - to_y) / length, (to_x - x) / length)
        end = to_x - 7 * along[0], to_y - 7 * along[1]
        dash = ' stroke-dasharray="4 4"' if dashed else ""
        corners = [(to_x, to_y), *((end[0] + s * 4 * across[0], end[1] + s * 4 * across[1]) for s in (-1, 1))]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        self._reach(max(x, to_x), max(y, to_y))
        line = f'x1="{x:g}" y1="{y:g}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
        self.parts.append(f'<line class="arrow {kind}" {line}{dash}/><polygon class="head {kind}" points="{points}"/>')

    def line(self, points: Sequence[tuple[float, float]], kind: str = "", width: float = 1.2) -> None:
        """Straight lines from each point to the next; faint, if they are of no kind."""
        for x, y in points:
            self._reach(x, y)
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        opacity = "" if kind else ' opacity="0.35"'
        self.parts.append(
            f'<polyline class="arrow {kind}" points="{corners}" fill="none" stroke-width="{width:g}"{opacity}/>'
        )

    def grid(
        self,
        x: float,
        y: float,
        cells: Sequence[Sequence[str]],
        tints: Mapping[tuple[int, int], str] | None = None,
        tint: str = "plain",
    ) -> tuple[float, float]:
        """A matrix of short texts, some of its cells tinted; returns its width and height."""
        for row, texts in enumerate(cells):
            for column, text in enumerate(texts):
                kind = (tints or {}).get((row, column), tint)
                left, top = x + column * CELL, y + row * CELL
                self.box(left, top, CELL, CELL, kind)
                faint = "faint" if kind == "filler" else ""
                size = 14 if len(text) < 4 else 11 if len(text) < 6 else 9
                self.text(left + CELL / 2, top + CELL / 2, text, faint, "middle", size)
        return len(cells[0]) * CELL, len(cells) * CELL

    def svg(self) -> str:
        """The file."""
        width, height = self.width + 2 * MARGIN, self.height + 2 * MARGIN
        fonts = "font-family=\"system-ui,'Segoe UI','DejaVu Sans',sans-serif\" stroke-width=\"1.2\""
        style = f"{_style(False)}@media(prefers-color-scheme:dark){{{_style(True)}}}"
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-MARGIN} {-MARGIN} {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" role="img" {fonts}>\n'
            f"<title>{html.escape(self.title)}</title>\n<style>{style}</style>\n"
            f'<rect class="paper" x="{-MARGIN}" y="{-MARGIN}" width="{width:g}" height="{height:g}" rx="8"/>\n'
            f"{body}\n</svg>\n"
        )

    def _reach(self, x: float, y: float) -> None:
        self.width, self.height = max(self.width, x), max(self.height, y)

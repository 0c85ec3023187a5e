"""Formulas of the derivations for a page that needs no network: LaTeX, as much of it as they use, in MathML."""

from __future__ import annotations

import html
import re

TOKEN = re.compile(r"\\text\{[^}]*\}|\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|\S")

OPERATORS = {
    "\\cdot": "⋅", "\\odot": "⊙", "\\in": "∈", "\\le": "≤", "\\ne": "≠", "\\lfloor": "⌊", "\\rfloor": "⌋",
    "\\top": "⊤", "-": "−", "*": "∗",
}  # fmt: skip
LETTERS = {
    "\\partial": "∂", "\\infty": "∞", "\\sigma": "σ", "\\mu": "μ", "\\rho": "ρ", "\\delta": "δ", "\\gamma": "γ",
    "\\alpha": "α", "\\beta": "β", "\\varepsilon": "ε", "\\Delta": "Δ", "\\tanh": "tanh", "\\log": "log",
}  # fmt: skip
BIG = {"\\sum": "<mo>∑</mo>", "\\max": "<mo>max</mo>"}  # whose index stands below
ACCENTS = {"\\hat": "^", "\\tilde": "~"}
SPACES = {"\\,": 0.17, "\\;": 0.28, "\\ ": 0.33, "\\quad": 1.0, "\\qquad": 2.0}  # in em
IGNORED = {"\\Big", "\\big", "\\textstyle"}  # brackets grow by themselves


def mathml(latex: str, display: bool = False) -> str:
    """The formula as an element <math>. Raises ValueError for a command that is not known."""
    formula = _Formula(TOKEN.findall(latex))
    return f'<math display="{"block" if display else "inline"}">{formula.row(None)}</math>'


class _Formula:
    """Reads tokens from left to right."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens[::-1]

    def row(self, end: str | None) -> str:
        """Everything up to a token, which is taken away; None for all."""
        parts = []
        while self.tokens and self.tokens[-1] != end:
            parts.append(self._with_scripts())
        if end is not None:
            self._take(end)
        return f"<mrow>{''.join(parts)}</mrow>"

    def _take(self, expected: str | None = None) -> str:
        if not self.tokens or (expected is not None and self.tokens[-1] != expected):
            raise ValueError(f"{expected or 'more'} is missing before {''.join(self.tokens[::-1])!r}")
        return self.tokens.pop()

    def _with_scripts(self) -> str:
        """What stands next, with what stands above and below it."""
        first = self.tokens[-1]
        base, scripts = self._atom(), {}
        while self.tokens and self.tokens[-1] in ("^", "_", "'"):
            mark = self._take()
            scripts["^" if mark == "'" else mark] = "<mo>′</mo>" if mark == "'" else self._atom()
        below, above = ("munder", "mover") if first in BIG or first == "\\underbrace" else ("msub", "msup")
        if len(scripts) == 2:
            return f"<{below}sup>{base}{scripts['_']}{scripts['^']}</{below}sup>".replace("mundersup", "munderover")
        if scripts:
            ((mark, script),) = scripts.items()
            tag = below if mark == "_" else above
            return f"<{tag}>{base}{script}</{tag}>"
        return base

    def _atom(self) -> str:
        token = self._take()
        if token == "{":
            return self.row("}")
        if token in ("\\frac", "\\tfrac"):
            return f"<mfrac>{self._atom()}{self._atom()}</mfrac>"
        if token == "\\sqrt":
            return f"<msqrt>{self._atom()}</msqrt>"
        if token == "\\mathbf":
            return f'<mstyle style="font-weight: bold">{self._atom()}</mstyle>'
        if token == "\\underbrace":
            return f"<munder>{self._atom()}<mo>⏟</mo></munder>"
        if token in ACCENTS:
            return f'<mover accent="true">{self._atom()}<mo>{ACCENTS[token]}</mo></mover>'
        if token == "\\begin{cases}":
            return self._cases()
        return _symbol(token)

    def _cases(self) -> str:
        rows, cells = [], [""]
        while (token := self.tokens[-1]) != "\\end{cases}":
            if token == "\\\\":
                rows.append(cells)
                cells = [""]
            elif token == "&":
                cells.append("")
            else:
                cells[-1] += self._with_scripts()
                continue
            self._take()
        self._take()
        table = "".join(f"<mtr>{''.join(f'<mtd>{cell}</mtd>' for cell in row)}</mtr>" for row in [*rows, cells])
        return f"<mrow><mo>{{</mo><mtable>{table}</mtable></mrow>"


def _symbol(token: str) -> str:
    """A token that takes nothing with it."""
    if token in IGNORED:
        return ""
    if token in BIG:
        return BIG[token]
    if token in SPACES:
        return f'<mspace width="{SPACES[token]}em"/>'
    if token in LETTERS or token.isalpha():
        return f"<mi>{LETTERS.get(token, token)}</mi>"
    if token[0].isdigit():
        return f"<mn>{token}</mn>"
    if token.startswith("\\text{"):
        return f"<mtext>{html.escape(token[6:-1])}</mtext>"
    if token.startswith("\\") and token not in OPERATORS:
        raise ValueError(f"{token} is not known")
    return f"<mo>{html.escape(OPERATORS.get(token, token))}</mo>"

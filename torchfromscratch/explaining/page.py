"""An explanation as one page that needs no network: page.html with the numbers inside."""

from __future__ import annotations

import html
import json
import re
from importlib import resources
from typing import Any

from torch import Tensor

from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, number
from torchfromscratch.explaining.sources import Code, anchor, code_of, derivation_of


def as_page(explanation: Explanation) -> str:
    """The page: point at a cell to see where it came from, or step through."""
    code = code_of(explanation.layer)
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    content = {
        "layer": explanation.layer,
        "settings": explanation.settings,
        "agreement": _agreement(explanation),
        "verdict": explanation.verdict,
        "grids": {name: _grid(grid) for name, grid in explanation.grids.items()},
        "passes": [_pass(part, code.get(part.result)) for part in explanation.passes],
        "code": [_code(piece) for piece in {piece.name: piece for piece in code.values()}.values()],
    }
    derivation = derivation_of(explanation.layer)
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    parts = {"TITLE": html.escape(f"{explanation.layer}, explained"), "DERIVATION": derivation or "", "DATA": data}
    return re.sub("TITLE|DERIVATION|DATA", lambda found: parts.pop(found[0], found[0]), template)


def _agreement(explanation: Explanation) -> str:
    if explanation.verdict:
        return (
            "Right are the numbers on the left of each pair, which the sums explain; given are those of the function."
        )
    return f"Every number was computed by this package's own layers. {explanation.agreement}"


def _code(code: Code) -> dict[str, Any]:
    return {"anchor": anchor(code), "name": code.name, "path": code.path, "first": code.first, "text": code.text}


def _grid(grid: Grid) -> dict[str, Any]:
    return {
        "shape": list(grid.values.shape),
        "values": _show(grid.values),
        "note": grid.note,
        "filler": None if grid.filler is None else grid.filler.flatten().int().tolist(),
        "beside": None if grid.beside is None else {"label": grid.beside[0], "values": _show(grid.beside[1])},
        "wrong": None if grid.wrong is None else grid.wrong.flatten().int().tolist(),
    }


def _pass(part: Pass, code: Code | None) -> dict[str, Any]:
    return {
        "code": None if code is None else anchor(code),
        "codeName": None if code is None else code.name,
        "result": part.result,
        "title": part.title,
        "formula": part.formula,
        "operands": part.operands,
        "signs": part.signs,
        "paired": part.paired,
        "steps": [{"cell": step.cell, "used": step.used, "expression": step.expression} for step in part.steps],
    }


def _show(values: Tensor) -> list[str]:
    return [number(value) for value in values.flatten().tolist()]

"""The worked examples as a page of Markdown."""

from __future__ import annotations

from torchfromscratch.notes.examples import EXAMPLES, Example, Row, show

HEADER = """\
# The worked examples of the lecture notes

Every numeric example of the notes that can be recomputed, run through this package's layers: on the left what the
notes print, on the right what is computed. Where the two differ, the last column names the entry of the
[errata](errata.md). An em dash means that the notes leave the number out.

The five notes (in Vietnamese): **note 1**, a glossary of CNN layers and their backward passes; **note 2**,
“Understand and Build CNN from the Ground Up and Intuition” (AIO_TimeSeries, 2025); **note 3**, “Convolutional Neural
Network (CNN)”; **note 4**, the notebook “Các lớp Layer trong Neural Network”; **note 5**, the slides “Backpropagation
in Convolution Neural Network” (Phạm Anh Kiệt).

This page is written by `python scripts/notes.py`; do not edit it by hand.
"""


def as_markdown() -> str:
    """The whole page."""
    return "\n".join([HEADER, *(_section(example()) for example in EXAMPLES)])


def _section(example: Example) -> str:
    rows = "\n".join(_row(row) for row in example.rows)
    head = "<tr><th>What</th><th>The notes print</th><th>Computed</th><th></th></tr>"
    return f"## {example.title}\n\n*{example.source}.* {example.about}\n\n<table>\n{head}\n{rows}\n</table>\n"


def _row(row: Row) -> str:
    link = f'<a href="errata.md#{row.erratum.lower()}">{row.erratum}</a>'
    verdict = "" if row.printed is None else "equal" if row.agrees else f"differs: {link}"
    cells = (row.what, _preformat(row.printed), _preformat(row.computed), verdict)
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _preformat(value: object) -> str:
    text = show(value)
    lines = [line.split(" ") for line in text.split("\n")]
    width = max(len(cell) for line in lines for cell in line)
    return "<pre>" + "<br>".join(" ".join(cell.rjust(width) for cell in line) for line in lines) + "</pre>"

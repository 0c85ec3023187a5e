"""A notebook as a page: its text and its programs, which nobody runs here."""

from __future__ import annotations

import json
import re
from pathlib import Path

INLINE = re.compile(r"(?<![\\$`])\$(?!`)([^$\n]+)\$(?![$`])")
DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)


def as_markdown(path: Path) -> str:
    """All cells but the one that installs; headings a level deeper, as the page has a title of its own."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells) + "\n"


def _cell(kind: str, source: str) -> str:
    if kind == "code":
        return "" if "%pip" in source else f"```python\n{source}\n```"
    source = DISPLAY.sub(lambda found: f"```math\n{found[1].strip()}\n```", source)
    return re.sub(r"^#", "##", INLINE.sub(r"$`\1`$", source), flags=re.MULTILINE)

"""Links from the documents to the lines that implement what they say, kept true as the code moves."""

from __future__ import annotations

import ast
import re
from pathlib import Path

# the pages of docs/ that link to code
LINKED = ("derivations.en.md", "derivations.vi.md", "reading.md")

# [`Correlation.backward`](../torchfromscratch/autograd/convolution.py#L51-L62)
LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\(\.\./(?P<path>[\w/]+\.py)(#[L\d-]*)?\)")

# [convolution.py](../torchfromscratch/autograd/convolution.py), 235 lines
LENGTH = re.compile(r"\]\(\.\./(?P<path>[\w/]+\.py)\), \d+ lines")


def refresh(markdown: str, root: Path) -> str:
    """The same text with each link at the lines where its name is defined now, and files as long as they are.

    Raises LookupError for a name that its file does not define.
    """

    def refresh(link: re.Match) -> str:
        name, path = link["name"], link["path"]
        first, last = lines_of((root / path).read_text(encoding="utf-8"), name, path)
        return f"[`{name}`](../{path}#L{first}-L{last})"

    def measure(link: re.Match) -> str:
        length = len((root / link["path"]).read_text(encoding="utf-8").splitlines())
        return f"](../{link['path']}), {length} lines"

    return LENGTH.sub(measure, LINK.sub(refresh, markdown))


def lines_of(source: str, name: str, path: str) -> tuple[int, int]:
    """First and last line of what `name`, as in Correlation.backward, is defined by in a file's source."""
    return _lines(ast.parse(source), name.split("."), path)


def _lines(tree: ast.AST, names: list[str], path: str) -> tuple[int, int]:
    """First and last line of a class, function, method or assigned name."""
    for node in ast.iter_child_nodes(tree):
        if names[0] in _defined_names(node):
            if names[1:]:
                return _lines(node, names[1:], path)
            assert isinstance(node, ast.stmt)
            return node.lineno, node.end_lineno or node.lineno
    raise LookupError(f"{path} does not define {names[0]}")


def _defined_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        targets = [t for target in node.targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []

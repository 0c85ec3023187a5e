"""The reference: which names are documented, and docstrings, which are plain text, as reStructuredText."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torchfromscratch
from extension import sheets
from torchfromscratch import __main__, functional, nn, optim
from torchfromscratch.coverage import coverage

CODE = re.compile(r"`([^`]+)`")
MARKUP = re.compile(r"([*|_\\])")

# what the tools give back
RESULTS = {
    "torchfromscratch.audit": "Report Call",
    "torchfromscratch.checking": "Report Finding CannotCheckError",
    "torchfromscratch.convert": "ConversionReport",
    "torchfromscratch.explaining.explanation": "Explanation",
    "torchfromscratch.summary": "Summary Layer",
}


def listing(what: str, which: str | None) -> str:
    """What a comment of the reference asks for, in MyST."""
    if what == "command":
        return f"```text\n{help_of(which)}```\n"
    if what == "package":
        names = [name for name in torchfromscratch.__all__ if inspect.isroutine(_documented(name)) or _is_own(name)]
        return autodoc("torchfromscratch", names)
    if what == "results":
        return "\n".join(autodoc(module, names.split(), "members") for module, names in RESULTS.items())
    if what == "optim":
        return autodoc("torchfromscratch.optim", optim.__all__)
    if what == "functional":
        return "\n".join(_families("torch.nn.functional", functional))
    if what == "nn":
        return "\n".join(_families("torch.nn", nn))
    raise LookupError(f"a page asks for {what}, which nothing answers")


def _documented(name: str) -> Any:
    return getattr(torchfromscratch, name)


def _is_own(name: str) -> bool:
    """Is it a class that stands in the package itself, and not one of nn's that it repeats?"""
    return inspect.isclass(_documented(name)) and not hasattr(nn, name)


def _families(namespace: str, ours: Any) -> Iterator[str]:
    """The names by hand, sheet by sheet."""
    by_hand = [name for name, way in coverage(namespace) if way != "torch's own"]
    for family, sheet in sheets.SHEETS.items():
        listed = {*sheet.layers.split()} if namespace == "torch.nn" else {*sheet.functions.split()}
        if names := [name for name in by_hand if sheets.VARIANT.sub("", name) in listed]:
            title = sheets.title(family, "en")
            yield f"## {title}\n\n[{title}: the sheet](../layers/{family}.md)\n\n{autodoc(ours.__name__, names)}"


def autodoc(module: str, names: Iterable[str], *options: str) -> str:
    """The names of a module, each with its signature and its docstring."""
    lines = ["```{eval-rst}"]
    for name in names:
        kind = "class" if inspect.isclass(getattr(importlib.import_module(module), name)) else "function"
        lines += [f".. auto{kind}:: {module}.{name}", *(f"   :{option}:" for option in options), ""]
    return "\n".join([*lines, "```", ""])


def help_of(command: str | None) -> str:
    """What the command line says of itself."""
    os.environ["COLUMNS"] = "80"
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        __main__.main([*(command or "").split(), "--help"])
    return re.sub(r"usage: .*?torchfromscratch", "usage: torchfromscratch", said.getvalue(), count=1)


def as_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A docstring in place: prose whose every sign is meant as it stands, and indented formulas as blocks."""
    rst: list[str] = []
    for indented, block in itertools.groupby(lines, lambda line: line.startswith(" ")):
        if indented:
            rst += ["", "::", "", *block, ""]
        else:
            for line in block:
                rst += ["", _prose(line)] if line.startswith(("Shapes:", "Raises ", "Source:")) else [_prose(line)]
    lines[:] = rst


def _prose(line: str) -> str:
    parts = CODE.split(line)
    return "".join(f"``{part}``" if i % 2 else MARKUP.sub(r"\\\1", part) for i, part in enumerate(parts))

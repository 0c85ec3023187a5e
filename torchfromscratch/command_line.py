"""What all commands share in reading their command lines: --help shows everything, a mistake is one line."""

from __future__ import annotations

import argparse
import difflib
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from torchfromscratch.entry_point import WRONG
from torchfromscratch.errors import UserError

__all__ = ["Parser", "require_known"]


LONGEST_LINE = 120  # of what was laid out by hand


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description, and folds those that are longer than any terminal."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = super()._fill_text(text, width, indent).splitlines()
        return "\n".join(line if len(line) <= LONGEST_LINE else textwrap.fill(line, width) for line in lines)


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps the lines of its description, and which tells of a mistake in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _Help, **options})

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"error: {' '.join(message.split())}; {self.prog} --help tells what there is\n")


def require_known(kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    """UserError for the first of the names that is not known, with those that it may mean, or all that there are."""
    for name in names:
        if name not in known:
            alike = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(alike)}?" if alike else f"there are {', '.join(known)}"
            raise UserError(f"no {kind} is called {name!r}; {hint}")

"""What all commands share in reading their command lines: --help shows everything, a mistake is one line."""

from __future__ import annotations

import argparse
import difflib
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from torchfromscratch.entry_point import WRONG
from torchfromscratch.errors import UserError

__all__ = ["LARGEST", "LARGEST_SEED", "Parser", "at_least", "number", "require_known", "seed", "threads"]

# What fits all that numbers are handed to: sizes become int64, and products of two rates float32.
LARGEST = {int: 2**63 - 1, float: 1e18}
LARGEST_SEED = 2**32 - 1  # torch's generators on a CPU begin with no more of it
MOST_THREADS = 1024
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


def number(convert: type, condition: Callable[[float], bool], wanted: str) -> Callable[[str], Any]:
    """An argparse type: a number that meets the condition, which `wanted` puts into words."""

    def parse(text: str) -> float:
        try:
            given = convert(text)
        except ValueError:
            given = math.nan
        if not condition(given):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        if given > LARGEST[convert]:
            raise argparse.ArgumentTypeError(f"{text!r} is above the largest possible value, {LARGEST[convert]:,}")
        return given

    return parse


def at_least(smallest: int) -> Callable[[str], Any]:
    """An argparse type: a whole number."""
    return number(int, lambda given: given >= smallest, f"a whole number of at least {smallest}")


def _from_to(smallest: int, largest: int) -> Callable[[str], Any]:
    return number(int, lambda given: smallest <= given <= largest, f"a whole number from {smallest} to {largest:,}")


seed = _from_to(0, LARGEST_SEED)
threads = _from_to(1, MOST_THREADS)


def require_known(kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    """UserError for the first of the names that is not known, with those that it may mean, or all that there are."""
    for name in names:
        if name not in known:
            alike = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(alike)}?" if alike else f"there are {', '.join(known)}"
            raise UserError(f"no {kind} is called {name!r}; {hint}")

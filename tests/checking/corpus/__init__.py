"""Implementations as people write them, wrong and right: what `torchfromscratch.check` must tell apart.

They are independent of the table of mistakes that `check` knows: written from what courses, questions and pull
requests show, in the styles that are found there (Functions of both styles, loops, unfold, einsum, whole formulas).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Wrong:
    """A wrong implementation of the layer `like`, or of none, called with `inputs`.

    What a report calls the mistake matches `named`, a regular expression; empty where no name is known.
    """

    name: str
    function: Callable[..., Any]
    like: str | None
    named: str
    inputs: Callable[[], tuple] | None = None


@dataclass(frozen=True)
class Right:
    """A right implementation of the layer `like`, or of none, in some other style."""

    name: str
    function: Callable[..., Any]
    like: str | None
    inputs: Callable[[], tuple] | None = None


WRONG: list[Wrong] = []
RIGHT: list[Right] = []


def wrong(like: str, named: str) -> Callable[[Any], Any]:
    """Registers a Function, or a function, that goes wrong in the way that `named` matches."""

    def register(implementation: Any) -> Any:
        WRONG.append(Wrong(_name(implementation), _callable(implementation), like, named))
        return implementation

    return register


def right(like: str) -> Callable[[Any], Any]:
    """Registers a Function, or a function, that is right."""

    def register(implementation: Any) -> Any:
        RIGHT.append(Right(_name(implementation), _callable(implementation), like))
        return implementation

    return register


def wrong_alone(inputs: Callable[[], tuple], named: str) -> Callable[[Any], Any]:
    """Registers what no layer is like, and goes wrong in the way that `named` matches."""

    def register(implementation: Any) -> Any:
        WRONG.append(Wrong(_name(implementation), _callable(implementation), None, named, inputs))
        return implementation

    return register


def right_alone(inputs: Callable[[], tuple]) -> Callable[[Any], Any]:
    """Registers what no layer is like, and is right."""

    def register(implementation: Any) -> Any:
        RIGHT.append(Right(_name(implementation), _callable(implementation), None, inputs))
        return implementation

    return register


def _callable(implementation: Any) -> Callable[..., Any]:
    is_function = isinstance(implementation, type) and issubclass(implementation, torch.autograd.Function)
    return implementation.apply if is_function else implementation


def _name(implementation: Any) -> str:
    return implementation.__name__


for found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{found.name}")

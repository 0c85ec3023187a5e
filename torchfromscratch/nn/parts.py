"""Modules that torch.nn's constructor builds of others, which are to run by hand too."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TypeVar

import torch.nn

M = TypeVar("M", bound=type[torch.nn.Module])


def make_by_hand(module: torch.nn.Module, by_hand: Mapping[type, type]) -> None:
    """Give the parts that torch.nn's constructor has built our classes: their parameters stay what they are."""
    for part in module.modules():
        part.__class__ = by_hand.get(type(part), type(part))


def with_torchs_signature(cls: M) -> M:
    """A class whose constructor takes (*args, **kwargs), as one of torch.nn's signature."""
    functools.update_wrapper(cls.__init__, cls.__bases__[0].__init__)  # type: ignore[misc]
    return cls

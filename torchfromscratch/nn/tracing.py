"""torch.fx takes torch.nn's modules into its graph whole and traces others to their operations: ours are as torch.nn's.

It tells them by the name of the Python module that their class is written in.
"""

from __future__ import annotations

import functools
from typing import Any

import torch.fx

HOME = "torchfromscratch.nn."


def take_whole(tracer: type[torch.fx.Tracer]) -> None:
    """Make every module of `torchfromscratch.nn` a leaf of this tracer and of those that ask it."""
    is_leaf_module = tracer.is_leaf_module

    @functools.wraps(is_leaf_module)
    def is_leaf(self: torch.fx.Tracer, m: torch.nn.Module, *args: Any, **kwargs: Any) -> bool:
        return type(m).__module__.startswith(HOME) or is_leaf_module(self, m, *args, **kwargs)

    tracer.is_leaf_module = is_leaf  # type: ignore[method-assign]

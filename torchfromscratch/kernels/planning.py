"""Plans: what depends on shapes, options and the number of threads alone is computed once and kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torchfromscratch.kernels.execution import is_dynamo_compiling, is_jit_tracing

F = TypeVar("F", bound=Callable[..., Any])

# The latest plans of each function that are kept. A network has a few for each layer.
PLANS = 512


def cache_plans(make: F) -> F:
    """`make` with its results cached: a function of numbers and of tuples of them, which returns no tensor.

    Dynamo and torch.jit.trace hand it sizes that are no plain numbers: it makes their plans anew. Symbols of tensors
    without elements have no hash, so their plans are made anew, too.
    """
    cached = functools.lru_cache(maxsize=PLANS)(make)

    @functools.wraps(make)
    def plan(*args: Any) -> Any:
        if is_dynamo_compiling() or is_jit_tracing():
            return make(*args)
        try:
            return cached(*args)
        except TypeError:
            return make(*args)

    return plan  # type: ignore[return-value]

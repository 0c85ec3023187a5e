"""Plans: what depends on shapes, options and the number of threads alone is computed once and kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torchfromscratch.kernels.execution import is_dynamo_compiling, is_jit_tracing

F = TypeVar("F", bound=Callable[..., Any])

# Of each function so many are kept, those that were asked for last: a network has a few for each layer.
PLANS = 512


def cache_plans(make: F) -> F:
    """`make`, a function of numbers and of tuples of them, whose results are kept. They hold no tensor.

    What is traced is made anew: to Dynamo and to torch.jit.trace sizes are no plain numbers. Nor are the symbols of
    tensors without elements, which have no hash.
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

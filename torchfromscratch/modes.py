"""Modes that also see what torch's Python functions call in turn.

While a TorchFunctionMode answers a call, torch takes it off, so that the mode can call the function itself.
That suits functions of C++. Of one in Python, such as Tensor.backward or gumbel_softmax, it hides all that
happens inside from the mode: the backward of a user's Function, the forward that a checkpoint repeats, a softmax.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from torchfromscratch import _torch_private as private
from torchfromscratch.kernels.execution import is_compiling

__all__ = ["call_inside"]


def call_inside(mode: TorchFunctionMode, func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """`func(*args, **kwargs)`, with `mode` on for what `func` calls if it is written in Python."""
    if is_compiling() or not _calls_layers(func):
        return func(*args, **kwargs)
    with mode:
        return _without_asking(func)(*args, **kwargs)


def _calls_layers(func: Any) -> bool:
    """Whether `func` is one of torch's Python functions that ask, and call layers or what users have written."""
    if not isinstance(func, FunctionType) or private.OVERRIDE_CHECKS.isdisjoint(func.__code__.co_names):
        return False
    return func is torch.Tensor.backward or func.__module__ in ("torch.autograd", "torch.nn.functional")


@functools.cache
def _without_asking(func: FunctionType) -> FunctionType:
    """The same function, which takes it that no mode wants to answer."""
    names = {**func.__globals__, **dict.fromkeys(private.OVERRIDE_CHECKS, lambda *_: False)}
    copy = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy

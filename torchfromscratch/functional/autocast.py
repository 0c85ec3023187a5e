"""The casts that torch.autocast makes for the built-in layers, made for ours.

Source: "Autocast Op Reference" of PyTorch's documentation, which lists for each kind of device the
operators that run in the lower precision and those that run in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from torchfromscratch.kernels.execution import is_any_autocast_enabled, is_autocasting

P = ParamSpec("P")
R = TypeVar("R")
Policy = Literal["lower", "float32", "widest", "as given"]


def autocast(*, cpu: Policy, cuda: Policy) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Inside torch.autocast, call the function with its floating-point tensors in the type its policy names."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def with_casts(*args: P.args, **kwargs: P.kwargs) -> R:
            if not is_any_autocast_enabled():
                return function(*args, **kwargs)
            given = (*args, *kwargs.values())
            device_type = _device_type(given)
            policy = cpu if device_type == "cpu" else cuda
            if policy == "as given" or not is_autocasting(device_type):
                return function(*args, **kwargs)
            dtype = _dtype(policy, device_type, given)
            cast_args: Any = [_cast(arg, dtype) for arg in args]
            cast_kwargs: Any = {name: _cast(arg, dtype) for name, arg in kwargs.items()}
            return function(*cast_args, **cast_kwargs)

        return with_casts

    return decorate


def _device_type(args: tuple) -> str:
    """That of the first tensor."""
    for arg in args:
        if isinstance(arg, Tensor):
            return arg.device.type
    return "cpu"


def _dtype(policy: Policy, device_type: str, args: tuple) -> torch.dtype:
    if policy == "lower":
        return torch.get_autocast_dtype(device_type)
    floats = [arg.dtype for arg in args if isinstance(arg, Tensor) and arg.is_floating_point()]
    return functools.reduce(torch.promote_types, floats) if policy == "widest" and floats else torch.float32


def _cast(arg: Any, dtype: torch.dtype) -> Any:
    """As autocast does: float64 and integers stay what they are."""
    if isinstance(arg, Tensor) and arg.is_floating_point() and arg.dtype != torch.float64:
        return arg.to(dtype)
    return arg

"""Every private name of torch that the package uses: what it is for, and what is done without it.

No other file holds one. torch 2.6 to 2.14 have all of them; what a later one has no more is answered by a fallback that
is right, if slower, and a hook to override by an ImportError. Names are looked up here, once, by presence.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

NAMES: dict[str, Any] = {}  # each name with its fallback


def _found(name: str, fallback: Any) -> Any:
    """The part of torch that has this name, or the fallback."""
    NAMES[name] = fallback
    try:
        return functools.reduce(getattr, name.split("."), torch)
    except AttributeError:
        return fallback


def require_hook(cls: type[torch.nn.Module], name: str) -> None:
    """ImportError where a class of torch.nn has no such method to override: it would run its built-in layer."""
    if not hasattr(cls, name):
        raise ImportError(
            f"torch {torch.__version__} has no {cls.__name__}.{name}, which torchfromscratch overrides for "
            f"{cls.__name__} to run by hand: use a version of torch that has it"
        )


# What follows tensors


def _has_no_storage(tensor: Tensor) -> bool:
    """As a tensor has that torch.func wraps, under vmap, grad or jvp."""
    try:
        tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return True
    return False


def _is_in_forward_mode() -> bool:
    one = torch.zeros(())
    try:
        forward_ad.make_dual(one, one)
    except RuntimeError:  # no level exists
        return False
    return True


def _is_transformed() -> bool:
    """As far as can be known, always."""
    return True


@contextmanager
def _inference_mode_without_tangents(enabled: bool) -> Iterator[None]:
    grad_enabled = torch.is_grad_enabled()
    with torch.inference_mode(not enabled), torch.set_grad_enabled(grad_enabled and enabled):
        yield


# For `is_batched` and `has_concrete_values`: what stands for many, or what torch.func follows, has no bits to look at.
is_batchedtensor = _found("_C._functorch.is_batchedtensor", _has_no_storage)
is_legacy_batchedtensor = _found("_C._functorch.is_legacy_batchedtensor", _has_no_storage)
is_functorch_wrapped_tensor = _found("_C._functorch.is_functorch_wrapped_tensor", _has_no_storage)

# For `is_differentiating`: the transform of torch.func that runs, or None. Without it each layer is a Function, always.
peek_interpreter_stack = _found("_C._functorch.peek_interpreter_stack", _is_transformed)

# For `is_forward_mode`: the innermost level of forward mode, −1 outside. Without it a dual tensor is tried.
if isinstance(_found("autograd.forward_ad._current_level", _is_in_forward_mode), int):

    def is_in_forward_mode() -> bool:
        return forward_ad._current_level >= 0
else:
    is_in_forward_mode = _is_in_forward_mode

# For writes that have no tangent, and for a `jvp`, which torch calls with forward mode off. Without it inference mode.
set_forward_mode = _found("autograd.forward_ad._set_fwd_grad_enabled", _inference_mode_without_tangents)

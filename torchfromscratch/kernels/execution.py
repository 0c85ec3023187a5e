"""The mode we run in: what may be done with tensors, and what pays, depends on who else computes with us."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

is_jit_tracing = torch.jit.is_tracing


def is_tracing() -> bool:
    """Whether operations are traced, to be run again: by a compiler, torch.jit.trace or make_fx."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or get_proxy_mode() is not None


def is_exporting() -> bool:
    """Whether torch.export traces what is computed now."""
    return torch.compiler.is_compiling() and torch.compiler.is_exporting()


if not hasattr(torch.compiler, "is_exporting"):  # before torch 2.7, which tells no export that Dynamo traces

    def is_exporting() -> bool:
        return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()


def is_batched(*tensors: Tensor | None) -> bool:
    """Whether one of the tensors stands for many, under vmap or where torch.autograd takes a batch of gradients.

    Such a tensor has no bits to look at, and what is not such a tensor cannot be overwritten with it.
    """
    if torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch
    given = [t for t in tensors if t is not None]
    return any([functorch.is_batchedtensor(t) or functorch.is_legacy_batchedtensor(t) for t in given])


def is_differentiating() -> bool:
    """Whether somebody differentiates what is computed now: autograd, torch.func or forward mode."""
    if torch.compiler.is_compiling():
        return False
    return (
        torch.is_grad_enabled()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def warn_of_constants(what: str) -> None:
    """TracerWarning of what a program that torch.jit.trace records will hold for constant."""
    if torch.jit.is_tracing():
        warnings.warn(f"torch.jit.trace records {what}", torch.jit.TracerWarning, stacklevel=3)


def without_derivative(change: Callable[..., None]) -> Callable[..., None]:
    """`change`, whose writes to tensors have no derivative: torch.no_grad alone stops no tangent."""

    @functools.wraps(change)
    @torch.no_grad()
    def changed(*args: Any) -> None:
        if torch.compiler.is_compiling():
            return change(*args)
        with forward_ad._set_fwd_grad_enabled(False):
            return change(*args)

    return changed


def may_be_looked_at(*tensors: Tensor) -> bool:
    """Whether Python may branch on what the tensors hold."""
    return in_cpu_memory(*tensors) and all([type(t) in (Tensor, torch.nn.Parameter) for t in tensors])


def in_cpu_memory(*tensors: Tensor | None) -> bool:
    """Whether the tensors are bytes in the memory of a CPU, computed with once and for all."""
    if is_tracing() or is_batched(*tensors):
        return False
    return all([t is None or t.device.type == "cpu" for t in tensors])


def in_compiled_cpu_code(tensor: Tensor) -> bool:
    """Whether torch.compile, which is to run the graph itself and not to export it, traces a CPU's tensor."""
    return tensor.device.type == "cpu" and torch.compiler.is_compiling() and not is_exporting()

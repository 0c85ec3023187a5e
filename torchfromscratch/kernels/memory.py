"""Where tensors live and what follows them, and so what pays: a CPU's memory is reused, and its bits are looked at."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode


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


def no_view(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor that nothing else refers to, in another shape: to autograd no view, which it would not let be changed.

    In place behind a Function, that is, as in `x = embedding(ids); x *= 2`. What torch.jit.trace records is no
    Function, and would hold the sizes for constants.
    """
    if tensor.dim() == len(shape):
        return tensor
    return tensor.view(shape) if torch.jit.is_tracing() else torch.ops.aten._unsafe_view.default(tensor, shape)


def call_out(operation: Callable[..., Tensor], *operands: Tensor, out: Tensor) -> Tensor:
    """operation(*operands), written to `out` of the shape of the result where that may be, else to a new tensor.

    It may not be while operations are traced, as autograd will need what would be overwritten, nor under vmap. So
    `memory.copy_(call_out(…, out=memory))` writes in any mode: torch copies nothing from a tensor to itself.
    """
    if is_tracing() or is_batched(*operands):
        return operation(*operands)
    return operation(*operands, out=out)


class Workspace:
    """Memory for what a loop computes between its steps: the n-th tensor asked for is the same in every pass.

    So each core writes where it has written before. Fresh memory of changing sizes may lie where another core has:
    if they share no cache, max pooling takes 1.4 to 2 times as long in it.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.taken = 0

    def begin(self) -> None:
        """A pass: all memory may be overwritten."""
        self.taken = 0

    def like(self, tensor: Tensor) -> Tensor:
        """Memory like a tensor, whose batch may be shorter than that of the pass before."""
        if self.taken == len(self.tensors):
            self.tensors.append(torch.empty_like(tensor))
        self.taken += 1
        return self.tensors[self.taken - 1][: tensor.shape[0]]


class FreshMemory(Workspace):
    """Of what differs in size from step to step, or is computed once."""

    def like(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor)


def buffer_like(tensor: Tensor, workspace: Workspace | None) -> Tensor | None:
    """Memory of the workspace, if there is one."""
    return None if workspace is None else workspace.like(tensor)

"""Memory that is reused, and `out=` where it may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch.kernels.execution import is_batched, is_jit_tracing, is_tracing


def no_view(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor that nothing else refers to, in another shape: to autograd no view, which it would not let be changed.

    In place behind a Function, that is, as in `x = embedding(ids); x *= 2`. What torch.jit.trace records is no
    Function, and would hold the sizes for constants.
    """
    if tensor.dim() == len(shape):
        return tensor
    return tensor.view(shape) if is_jit_tracing() else private.unsafe_view(tensor, shape)


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
        self.used = 0

    def begin(self) -> None:
        """A pass: all memory may be overwritten."""
        self.used = 0

    def like(self, tensor: Tensor) -> Tensor:
        """Memory like a tensor, whose batch may be shorter than that of the pass before."""
        if self.used == len(self.tensors):
            self.tensors.append(torch.empty_like(tensor))
        self.used += 1
        return self.tensors[self.used - 1][: tensor.shape[0]]


class FreshMemory(Workspace):
    """Of what differs in size from step to step, or is computed once."""

    def like(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor)


def buffer_like(tensor: Tensor, workspace: Workspace | None) -> Tensor | None:
    """Memory of the workspace, if there is one."""
    return None if workspace is None else workspace.like(tensor)

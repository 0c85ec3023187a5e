"""Memory that is reused, and `out=` where it may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch.kernels.execution import is_batched, is_jit_tracing, is_tracing, is_watched


def no_view(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor that nothing else refers to, in another shape. To autograd it is no view.

    Autograd forbids to change a view behind a Function in place, as `x = embedding(ids); x *= 2` does. torch.jit.trace
    records no Function, and would take the sizes for constants: there it is a view.
    """
    if tensor.dim() == len(shape):
        return tensor
    return tensor.view(shape) if is_jit_tracing() else private.unsafe_view(tensor, shape)


def call_out(operation: Callable[..., Tensor], *operands: Tensor, out: Tensor) -> Tensor:
    """operation(*operands), written to `out`, or to a new tensor where operations are traced, kept or under vmap.

    A traced graph may be differentiated, and needs what would be overwritten; so does a selective checkpoint, which
    keeps results of operations. `memory.copy_(call_out(…, out=memory))` writes in any mode, as torch copies nothing
    from a tensor to itself. `out` has the shape of the result.
    """
    if is_tracing() or is_batched(*operands) or is_watched():
        return operation(*operands)
    return operation(*operands, out=out)


class Workspace:
    """Memory for what a loop computes between its steps: the n-th tensor asked for is the same in every pass.

    So each core writes where it wrote before. Fresh memory may lie where another core wrote: where cores share no
    cache, max pooling takes 1.4 to 2 times as long in it.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.used = 0

    def begin(self) -> None:
        """Begins a pass, which may overwrite all memory."""
        self.used = 0

    def like(self, tensor: Tensor) -> Tensor:
        """Memory like a tensor. Its batch may be shorter than in the pass before."""
        if self.used == len(self.tensors):
            self.tensors.append(torch.empty_like(tensor))
        self.used += 1
        return self.tensors[self.used - 1][: tensor.shape[0]]


class FreshMemory(Workspace):
    """New memory each time, where sizes differ from step to step or a tensor is computed once."""

    def like(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor)


def buffer_like(tensor: Tensor, workspace: Workspace | None) -> Tensor | None:
    """Memory of the workspace, if there is one."""
    return None if workspace is None else workspace.like(tensor)

"""The mode we run in: what may be done with tensors, and what pays, depends on who else computes with us.

Nothing else in the package asks torch for it. Each column is asked of a tensor in CPU memory, under torch.no_grad() in
all but autograd:

    predicate               eager autograd compile export strict jit.trace make_fx vmap grad jvp
    is_compiling              -      -        x      x      x        -        -     -    -    -
    is_dynamo_compiling       -      -        x      -      x        -        -     -    -    -
    is_exporting              -      -        -      x      x        -        -     -    -    -
    is_jit_tracing            -      -        -      -      -        x        -     -    -    -
    is_transforming           -      -        -      -      -        -        -     x    x    x
    is_tracing                -      -        x      x      x        x        x     -    -    -
    is_watched                -      -        -      -      -        -        -     -    -    -
    is_batched                -      -        -      -      -        -        -     x    -    -
    is_differentiating        -      x        -      -      -        -        -     x    x    x
    is_forward_mode           -      -        -      -      -        -        -     -    -    x
    needs_gradient            -      x        -      -      -        -        -     -    x    -
    has_concrete_values       x      x        -      -      -        -        -     -    -    -
    in_cpu_memory             x      x        -      -      -        -        -     -    x    x
    in_plain_cpu_memory       x      x        -      -      -        -        -     -    x    x
    in_compiled_cpu_code      -      -        x      -      -        -        -     -    -    -

Audit, fake tensors and a selective checkpoint watch operations; of the columns, none that is not traced does.
A compiler differentiates the graph that it has traced: while it traces, nobody does. Export is strict where Dynamo
traces for it. Dynamo traces for torch.compile as well: torch 2.6 takes either for that, torch 2.7 for export.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from torchfromscratch import _torch_private as private

# Asked for once: the Dynamo of older versions cannot trace the question.
AUTOCAST_DEVICES = {name for name in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(name)}

is_compiling = torch.compiler.is_compiling
is_dynamo_compiling = torch.compiler.is_dynamo_compiling
is_jit_tracing = torch.jit.is_tracing
is_any_autocast_enabled = private.is_any_autocast_enabled

# The transform of torch.func that maps or differentiates what is computed now, or None. Not to be traced by Dynamo.
running_transform = private.peek_interpreter_stack


def is_exporting() -> bool:
    """Whether torch.export traces what is computed now."""
    return is_compiling() and private.is_exporting()


@private.constant_to_dynamo
def is_transforming() -> bool:
    """Whether a transform of torch.func maps or differentiates what is computed now, in a compiler, too."""
    return running_transform() is not None


def is_tracing() -> bool:
    """Whether operations are traced, to be run again: by a compiler, torch.jit.trace or make_fx."""
    return is_compiling() or is_jit_tracing() or get_proxy_mode() is not None


def is_watched() -> bool:
    """Whether a mode sees each operation, and may keep its result, where none is traced."""
    return not is_tracing() and private.count_dispatch_modes() > 0


def is_batched(*tensors: Tensor | None) -> bool:
    """Whether one of the tensors stands for many, under vmap or where torch.autograd takes a batch of gradients.

    Such a tensor has no bits to look at, and only a tensor of its kind can be overwritten with it.
    """
    if is_compiling():
        return False
    for tensor in tensors:
        if tensor is not None and (private.is_batchedtensor(tensor) or private.is_legacy_batchedtensor(tensor)):
            return True
    return False


def is_differentiating() -> bool:
    """Whether somebody differentiates what is computed now: autograd, torch.func or forward mode."""
    if is_compiling():
        return False
    return torch.is_grad_enabled() or running_transform() is not None or private.is_in_forward_mode()


def is_forward_mode() -> bool:
    """Whether tangents may be asked for."""
    return not is_compiling() and private.is_in_forward_mode()


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether autograd will differentiate by one of the tensors."""
    return torch.is_grad_enabled() and any([tensor.requires_grad for tensor in tensors])


def has_concrete_values(*tensors: Tensor) -> bool:
    """Whether Python may branch on the elements: those of traced, mapped and fake tensors are not there."""
    return not is_tracing() and all([_is_concrete(tensor) for tensor in tensors])


def _is_concrete(tensor: Tensor) -> bool:
    if private.is_functorch_wrapped_tensor(tensor) or private.is_legacy_batchedtensor(tensor) or tensor.is_meta:
        return False
    return not _answers_itself(tensor)


def _answers_itself(tensor: Tensor) -> bool:
    """Whether the tensor is of a class that answers operations itself, as fake tensors do, and may have no memory."""
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def in_cpu_memory(*tensors: Tensor | None) -> bool:
    """Whether the tensors are bytes in the memory of a CPU, and no operation on them is traced."""
    if is_tracing() or is_batched(*tensors):
        return False
    return all([t is None or t.is_cpu for t in tensors])


def in_plain_cpu_memory(*tensors: Tensor | None) -> bool:
    """`in_cpu_memory`, and Python may branch on the elements, or hand them to operations that few classes have."""
    return in_cpu_memory(*tensors) and not any([t is not None and _answers_itself(t) for t in tensors])


def in_compiled_cpu_code(tensor: Tensor) -> bool:
    """Whether torch.compile traces a tensor of a CPU, to run the graph and not to export it."""
    return tensor.device.type == "cpu" and is_compiling() and not is_exporting()


def is_autocasting(device_type: str) -> bool:
    """Whether autocast is on for this kind of device; 'meta' has none."""
    return device_type in AUTOCAST_DEVICES and torch.is_autocast_enabled(device_type)


def warn_of_constants(what: str) -> None:
    """Warns that torch.jit.trace records something as a constant of the program."""
    if is_jit_tracing():
        warnings.warn(f"torch.jit.trace records {what}", torch.jit.TracerWarning, stacklevel=3)


def without_derivative(change: Callable[..., None]) -> Callable[..., None]:
    """`change` without derivatives of its writes to tensors. torch.no_grad alone stops no tangent."""

    @functools.wraps(change)
    @torch.no_grad()
    def call(*args: Any) -> None:
        if is_compiling():
            return change(*args)
        with private.set_forward_mode(False):
            return change(*args)

    return call

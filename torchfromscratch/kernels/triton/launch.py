"""From a kernel to an operation: how it is launched, and what a launch costs.

Offsets into tensors are computed in int64 (a program's number is cast before it is multiplied), as a tensor may have
more than 2³¹ elements. The grid has one dimension: only that may exceed 65,535. Sums are kept in float32, or in
float64 for float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from torchfromscratch.kernels.custom_ops import define

F = TypeVar("F", bound=Callable[..., Any])

# (launches, bytes read and written) of a call of an operation, from its arguments and its results
Traffic = Callable[[Sequence[Any], Sequence[Tensor]], tuple[int, int]]

# By the name of the operation, as torch.ops.torchfromscratch has it. The others are one launch that reads every tensor
# given and writes every tensor answered once.
TRAFFIC: dict[str, Traffic] = {}


def operation(
    like: Callable[..., Any], *, traffic: Traffic | None = None, mutates: Sequence[str] = ()
) -> Callable[[F], F]:
    """The function, which launches kernels, as the operation `torchfromscratch::triton_<its name>`.

    `like` takes the same arguments and answers with empty tensors like the results: for meta and fake tensors, and so
    for torch.compile. A function that overwrites the tensors it `mutates` answers with None. Autograd sees no
    derivative of it: that is what the Functions of `autograd/` are for. What its formula launches besides (a copy to
    another memory format) belongs in front of the operation, where it is counted.
    """

    def decorate(function: F) -> F:
        name = f"triton_{function.__name__.lstrip('_')}"
        if traffic is not None:
            TRAFFIC[name] = traffic
        defined: Any = define(name, function, like, ("CUDA", "CPU"), mutates)
        LAUNCHERS[name] = function
        return defined

    return decorate


def as_bytes(*tensors: Tensor) -> int:
    """How many bytes the tensors have."""
    return sum([tensor.numel() * tensor.element_size() for tensor in tensors])


def two_launches(*read_twice: int, between: Callable[..., int] = lambda *_: 0) -> Traffic:
    """Of an operation that reads these arguments in both of two launches, and writes and reads bytes `between` them."""

    def traffic(args: Sequence[Any], results: Sequence[Tensor]) -> tuple[int, int]:
        read = [*args, *[args[position] for position in read_twice]]
        once = as_bytes(*[arg for arg in read if isinstance(arg, Tensor)], *results)
        return 2, once + 2 * between(*args)

    return traffic


# The functions behind the operations: what a test compiles ahead of time is what these launch.
LAUNCHERS: dict[str, Callable[..., Any]] = {}


def launch(kernel: Any, programs: int, *args: Any, warps: int = 4, stages: int = 3, **constants: Any) -> None:
    """So many programs of the kernel, none for no elements, on the device of the first tensor."""
    if programs == 0:
        return
    first = next(arg for arg in args if isinstance(arg, Tensor))
    with torch.cuda.device_of(first):
        kernel[(programs,)](*args, num_warps=warps, num_stages=stages, **constants)


def blocks_of(elements: int, block: int) -> int:
    """How many blocks it takes to cover the elements."""
    return -(-elements // block)


def three(values: Sequence[int], missing: int = 1) -> tuple[int, ...]:
    """Numbers along one to three dimensions as those along depth, height and width."""
    return (*[missing] * (3 - len(values)), *values)


def sizes(tensor: Tensor) -> tuple[int, ...]:
    """Depth, height and width."""
    return three(tensor.shape[2:])


def strides(tensor: Tensor) -> tuple[int, ...]:
    """Those of (N, C, depth, height, width)."""
    batch, channel, *space = tensor.stride()
    return batch, channel, *three(space, missing=0)


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill a stretch of memory, in whatever order."""
    expected = 1
    for size, stride in sorted(zip(tensor.shape, tensor.stride(), strict=True), key=lambda pair: (pair[1], pair[0])):
        if size != 1 and stride != expected:
            return size == 0
        expected = expected * size
    return True


def only_number(tensor: Tensor) -> Tensor:
    """Of a tensor that repeats one number, as a sum's gradient does, that number; others as they are."""
    repeats = all([size == 1 or stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)])
    return tensor[(0,) * tensor.dim()] if repeats and tensor.dim() else tensor


def in_one_order(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one shape, dense and in the memory order of the first: views where they are, else copies.

    An elementwise kernel then counts through memory, whatever the format.
    """
    first = tensors[0] if is_dense(tensors[0]) else tensors[0].contiguous()
    same = [tensor if tensor.stride() == first.stride() else _copy_like(tensor, first) for tensor in tensors[1:]]
    return [first, *same]


def _copy_like(tensor: Tensor, first: Tensor) -> Tensor:
    return torch.empty_strided(first.shape, first.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)

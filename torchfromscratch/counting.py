"""What a computation would cost a GPU: launches, bytes moved and the largest tensor, counted on meta tensors.

Nothing is computed, so any machine can count. An operation is a launch, unless it only looks at memory or reserves it,
and moves each element that it reads or writes once: what a cache saves or misses is not counted, for either side.
What is launched otherwise says so: operations of `kernels/triton` in `TRAFFIC`, and torch's backward of a convolution,
for which cuDNN has a kernel for each gradient that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch.kernels.triton.launch import TRAFFIC

# What they write to is not read before.
OVERWRITING = {"copy_", "fill_", "zero_", "bernoulli_", "uniform_", "normal_", "random_", "exponential_"}

# They reserve memory, and launch nothing.
RESERVING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


@dataclass
class Count:
    """Launches, bytes read and written, and the bytes of the largest tensor."""

    launches: int = 0
    bytes_moved: int = 0
    largest: int = 0


class Counter(private.TorchDispatchMode):
    """Counts what is launched inside."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        given, answered = list(tensors_in((args, kwargs))), list(tensors_in(result))
        storages = {storage(tensor) for tensor in given}
        fresh = [tensor for tensor in answered if storage(tensor) not in storages]
        self.count.largest = max([self.count.largest, *map(size, fresh)])
        written = [argument for argument in private.mutated_arguments(function, args, kwargs) if argument is not None]
        name = private.operation_name(function)
        if name in RESERVING or not (fresh or written):
            return result
        launches, bytes_moved = traffic(name, args, given, fresh, list(tensors_in(written)))
        self.count.launches += launches
        self.count.bytes_moved += bytes_moved
        return result


def traffic(name: str, args: tuple, given: list[Tensor], fresh: list[Tensor], written: list[Tensor]) -> tuple[int, int]:
    """Launches and bytes of one operation."""
    if name in TRAFFIC:
        return TRAFFIC[name](args, fresh)
    if name == "convolution_backward":
        return convolution_backward(args, fresh)
    read = [] if name in OVERWRITING else written
    others = [tensor for tensor in given if not any(tensor is one for one in written)]
    return 1, sum(map(size, [*distinct(others), *read, *written, *fresh]))


def convolution_backward(args: tuple, gradients: list[Tensor]) -> tuple[int, int]:
    """dL/dx is computed from dL/dy and w, dL/dw from dL/dy and x, dL/db from dL/dy."""
    grad_output, input, weight = args[:3]
    wanted, reads = args[10], (weight, input, None)
    read = [
        size(grad_output) + (0 if other is None else size(other))
        for other, is_wanted in zip(reads, wanted, strict=True)
        if is_wanted
    ]
    return len(read), sum(read) + sum(map(size, gradients))


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """The tensors among arguments or results, but for numbers in CPU memory, which a launch takes along."""
    for leaf in private.tree_leaves(tree):
        if isinstance(leaf, Tensor) and not (leaf.is_cpu and leaf.dim() == 0):
            yield leaf


def distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Each place in memory once."""
    return list({(storage(t), t.storage_offset(), t.shape, t.stride()): t for t in tensors}.values())


def storage(tensor: Tensor) -> int:
    """Which memory it is in."""
    return private.storage_id(tensor)


def size(tensor: Tensor) -> int:
    """The bytes of the elements in memory: an expanded dimension repeats the same."""
    elements = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= length if stride else min(length, 1)
    return elements


def count(step: Callable[[], object]) -> Count:
    """What a step launches and moves."""
    with Counter() as counter:
        step()
    return counter.count

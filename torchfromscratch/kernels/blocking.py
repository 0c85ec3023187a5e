"""Blocks that fit the cache: of a batch, of an axis, of an elementwise formula's tensors.

On a CPU, a step reads what the step before has written. If that fits the cache, it is read from there, many times
faster than from memory. Large amounts of memory are fetched from the system anew each time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.kernels.execution import has_concrete_values, is_differentiating, is_tracing

# Measured for the rows of im2col: 2 to 8 MiB are equally fast, the whole batch takes 1.5 to 5 times as long.
BATCH_BLOCK_BYTES = 4 * 2**20

# Elements for each thread: fewer cost more in calls than they save, and 2^18 are no faster. Over the whole of
# 2^20 float32, a formula of three steps takes up to 4 times as long: each step may fetch new memory from the system.
ELEMENTWISE_BLOCK = 2**17

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def batch_blocks(batch: Tensor, elements_per_sample: int) -> list[slice]:
    """Blocks of the batch whose intermediate results fit the cache; one block on other devices and in traced code."""
    return axis_blocks(batch, batch.shape[0], elements_per_sample)


def axis_blocks(like: Tensor, size: int, elements: int) -> list[slice]:
    """Blocks of an axis of `size` items that take so many elements each; one block where `batch_blocks` has one.

    The blocks are about equal, and each core has as many items of a block as the others. Torch divides a tensor evenly
    among the cores, so each step finds what it reads in the cache of its core. Depthwise convolutions gain a tenth.
    """
    # One block of narrow types too: the gradient of a weight would be rounded once more with every block.
    if like.device.type != "cpu" or like.element_size() < 4 or is_tracing():
        return [slice(0, size)]
    return even_blocks(size, BATCH_BLOCK_BYTES // max(1, elements * like.element_size()), torch.get_num_threads())


def even_blocks(size: int, most: int, cores: int) -> list[slice]:
    """Blocks of at most so many of the `size` items, but of at least one, and of as many for each core."""
    step = block_size(size, max(1, most))
    if most >= cores:
        step += -step % cores
    return [slice(start, min(start + step, size)) for start in range(0, max(1, size), step)]


def block_size(total: int, most: int) -> int:
    """The size of equal blocks of `total` items, the fewest that hold at most `most` each."""
    return math.ceil(total / math.ceil(total / most)) if total else 1


def take_block(tensor: Tensor, block: slice, dim: int = 0) -> Tensor:
    """A block of the tensor along `dim`, as a view; the tensor itself, if that is all of it."""
    if block.stop - block.start >= tensor.shape[dim]:
        return tensor
    return tensor.narrow(dim, block.start, block.stop - block.start)


def split_by_core(batch: Tensor, cores: int) -> Tensor:
    """(N, …) → (cores, n, …), as a view: the samples of each core."""
    return batch.unflatten(0, (cores, batch.shape[0] // cores))


def compute_in_blocks(formula: Callable[..., Tensor], *args: Any) -> Tensor:
    """`formula(*args)`, a function of each element of its tensors and of constants."""
    tensor_args = [arg for arg in args if isinstance(arg, Tensor)]
    if is_tracing() or max([tensor.numel() for tensor in tensor_args]) <= ELEMENTWISE_BLOCK:
        return formula(*args)
    if is_differentiating() or not _are_concrete(tensor_args):
        return formula(*args)
    numbers = [collapse_constant(arg) if isinstance(arg, Tensor) else arg for arg in args]
    varying = [isinstance(number, Tensor) and number.dim() > 0 for number in numbers]
    tensors = list(itertools.compress(args, varying))
    blocks, output = elementwise_blocks(tensors, ELEMENTWISE_BLOCK) if tensors else [], None
    if len(blocks) <= 1:
        return formula(*args)
    start, first = 0, tensors[0]
    for block in blocks:
        elements = iter(block)
        operands = [next(elements) if varies else number for number, varies in zip(numbers, varying, strict=True)]
        result = formula(*operands)
        count = block[0].numel()
        if output is None:
            output = torch.empty_strided(first.shape, first.stride(), dtype=result.dtype)
        flat_view(output)[start : start + count] = result
        del result  # whose memory the next block takes, while the cache holds it
        start += count
    assert output is not None
    return output


def collapse_constant(tensor: Tensor) -> Tensor:
    """The one number that a tensor repeats, as the gradient of a sum does; any other tensor as it is."""
    repeats = all([size == 1 or stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)])
    return tensor[(0,) * tensor.dim()] if repeats and tensor.numel() > 1 else tensor


def elementwise_blocks(tensors: list[Tensor], per_thread: int) -> list[Sequence[Tensor]]:
    """Blocks of the tensors, one of each at a time; one block where they are short or no plain memory."""
    step = per_thread * torch.get_num_threads()
    if tensors[0].numel() <= step or not _are_plain_memory(tensors):
        return [tensors]
    return list(zip(*[flat_view(tensor).split(step) for tensor in tensors], strict=True))


def flat_view(tensor: Tensor) -> Tensor:
    """All elements of a tensor without gaps, in the order in which they lie."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def _are_plain_memory(tensors: list[Tensor]) -> bool:
    """Whether the tensors lie alike, without gaps, and nobody differentiates what is computed."""
    first = tensors[0]
    is_dense = first.is_contiguous() or (
        first.dim() in LAYOUTS and first.is_contiguous(memory_format=LAYOUTS[first.dim()])
    )
    return (
        not is_differentiating()
        and is_dense
        and _are_concrete(tensors)
        and all([(t.shape, t.stride()) == (first.shape, first.stride()) for t in tensors])
        and not any([t.is_conj() or t.is_neg() for t in tensors])
    )


def _are_concrete(tensors: list[Tensor]) -> bool:
    return all([tensor.device.type == "cpu" for tensor in tensors]) and has_concrete_values(*tensors)

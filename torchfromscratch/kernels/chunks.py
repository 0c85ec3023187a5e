"""A batch in parts that fit the cache.

On a CPU, what one step writes is read by the next from the cache, if it fits, or from memory at a
fraction of the speed; and large blocks of memory are fetched from the system anew each time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchfromscratch.kernels.memory import is_tracing

# Measured for the rows of im2col: 2 to 8 MiB are equally fast, the whole batch takes 1.5 to 5 times as long.
CHUNK_BYTES = 4 * 2**20


def chunks(batch: Tensor, elements_per_picture: int) -> list[slice]:
    """The batch in parts whose intermediate results fit; on other devices, and where operations are recorded, whole."""
    return slices(batch, batch.shape[0], elements_per_picture)


def slices(like: Tensor, size: int, elements: int) -> list[slice]:
    """`size` items, each of which takes so many elements, in parts that fit; whole where `chunks` says so.

    The parts are about equal, and of as many items for each core: torch divides a tensor evenly among the cores, so
    each step finds what it reads in the cache of its own core. Depthwise convolutions take up to a tenth less time.
    """
    # Narrow types stay whole too: they would round once more with every part of a weight's gradient.
    if like.device.type != "cpu" or like.element_size() < 4 or is_tracing():
        return [slice(0, size)]
    most, cores = max(1, CHUNK_BYTES // max(1, elements * like.element_size())), torch.get_num_threads()
    step = evenly(size, most)
    if most >= cores:
        step += -step % cores
    return [slice(start, min(start + step, size)) for start in range(0, max(1, size), step)]


def evenly(total: int, most: int) -> int:
    """The size of as many equal parts as keep each of them at `most`."""
    return math.ceil(total / math.ceil(total / most)) if total else 1


def part_of(tensor: Tensor, part: slice, dim: int = 0) -> Tensor:
    """`part` of the tensor along `dim`, as a view; itself, if that is all of it."""
    if part.stop - part.start >= tensor.shape[dim]:
        return tensor
    return tensor.narrow(dim, part.start, part.stop - part.start)


def by_core(batch: Tensor, cores: int) -> Tensor:
    """(N, …) → (cores, n, …), as a view: each core's own part of the batch."""
    return batch.unflatten(0, (cores, batch.shape[0] // cores))

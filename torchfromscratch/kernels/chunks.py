"""A batch in parts that fit the cache, and memory that one part after the other is computed in.

On a CPU, what one step writes is read by the next from the cache, if it fits, or from memory at a
fraction of the speed; and large blocks of memory are fetched from the system anew each time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Measured for the rows of im2col: 2 to 8 MiB are equally fast, the whole batch takes 1.5 to 5 times as long.
CHUNK_BYTES = 4 * 2**20


def chunks(batch: Tensor, elements_per_picture: int) -> list[slice]:
    """The batch in parts whose intermediate results fit; on other devices, and where code is traced, whole."""
    return slices(batch, batch.shape[0], elements_per_picture)


def slices(like: Tensor, size: int, elements: int) -> list[slice]:
    """`size` items, each of which takes so many elements, in parts that fit; whole where `chunks` says so."""
    step = max(1, size)
    # Narrow types stay whole too: they would round once more with every part of a weight's gradient.
    if like.device.type == "cpu" and like.element_size() >= 4 and not torch.compiler.is_compiling():
        step = max(1, CHUNK_BYTES // max(1, elements * like.element_size()))
    return [slice(start, min(start + step, max(1, size))) for start in range(0, max(1, size), step)]


class Scratch:
    """Memory for the intermediate results of a part of a batch, which the next part overwrites."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.memory: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor in the memory of this name, which grows to the largest that was asked for."""
        elements = math.prod(shape)
        if name not in self.memory or self.memory[name].numel() < elements:
            self.memory[name] = self.like.new_empty(elements)
        return self.memory[name][:elements].view(shape)

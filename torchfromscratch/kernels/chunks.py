"""A batch in parts that fit the cache.

On a CPU, what one step writes is read by the next from the cache, if it fits, or from memory at a
fraction of the speed; and large blocks of memory are fetched from the system anew each time.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Measured for the rows of im2col: 2 to 8 MiB are equally fast, the whole batch takes 1.5 to 5 times as long.
CHUNK_BYTES = 4 * 2**20


def chunks(batch: Tensor, elements_per_picture: int) -> list[slice]:
    """The batch in parts whose intermediate results fit; on other devices, and where code is traced, whole."""
    size = step = max(1, batch.shape[0])
    # Narrow types stay whole too: they would round once more with every part of a weight's gradient.
    if batch.device.type == "cpu" and batch.element_size() >= 4 and not torch.compiler.is_compiling():
        step = max(1, CHUNK_BYTES // max(1, elements_per_picture * batch.element_size()))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]

"""Windows that begin at random, so that an axis of any length comes out at any smaller one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def window_starts(samples: Tensor, length: int, window: int, outputs: int) -> Tensor:
    """⌊(o + u)·α⌋ − ⌊u·α⌋ with α = (I − k) / (O − 1), and I − k of the last: u (N, C) → (N, C, O)."""
    last = torch.full_like(samples, length - window, dtype=torch.int64).unsqueeze(-1)
    if outputs <= 1:
        return last[..., :outputs]
    u = samples.unsqueeze(-1)
    alpha = torch.full_like(u, length - window) / (outputs - 1)
    place = torch.arange(outputs - 1, dtype=u.dtype, device=u.device)
    return torch.cat([((place + u) * alpha).long() - (u * alpha).long(), last], -1)


def winners(x: Tensor, samples: Sequence[Tensor], window: Sequence[int], outputs: Sequence[int]) -> Tensor:
    """The position in its channel of the largest element of each window: x (N, C, *input) → (N, C, *outputs)."""
    dims, index = len(window), torch.zeros((), dtype=torch.int64, device=x.device)
    for axis, (length, size, count) in enumerate(zip(x.shape[2:], window, outputs, strict=True)):
        taps = window_starts(samples[axis], length, size, count).unsqueeze(-1) + torch.arange(size, device=x.device)
        ones = [1] * dims
        shape = [*ones[:axis], count, *ones[axis + 1 :], *ones[:axis], size, *ones[axis + 1 :]]
        index = index * length + taps.reshape(*x.shape[:2], *shape)
    index = index.reshape(*x.shape[:2], math.prod(outputs), math.prod(window))
    values = x.reshape(*x.shape[:2], math.prod(x.shape[2:])).gather(2, index.flatten(2)).view(index.shape)
    first = values.max(-1, keepdim=True).indices
    return index.gather(-1, first).view(*x.shape[:2], *outputs)

"""Dropout in one launch, which draws the mask m of zeros and ones where it is used.

    y = x·m / q        m = 1 where u < q        q the probability of a one, u uniform in [0, 1)

u is Philox's number of an element's place in memory, with a seed that torch's generator of the device draws. So
torch.manual_seed repeats a mask; it is not the mask that torch.nn draws.

Source for that: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchfromscratch.kernels.triton import IS_INTERPRETED
from torchfromscratch.kernels.triton.launch import blocks_of, is_dense, launch, operation
from torchfromscratch.kernels.triton.mathematics import wide

# Elements that a program gets each of the four numbers for that Philox draws at once.
QUARTER = 2**11 if IS_INTERPRETED else 256


def drop(input: Tensor, q: float) -> tuple[Tensor, Tensor]:
    """y and the mask, both as x lies."""
    seed = torch.empty(1, dtype=torch.int64, device=input.device).random_()
    return drop_at_random(input if is_dense(input) else input.contiguous(), seed, q)


def _empty(input: Tensor, seed: Tensor, q: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(input), torch.empty_like(input, dtype=torch.bool)


@operation(like=_empty)
def drop_at_random(input: Tensor, seed: Tensor, q: float) -> tuple[Tensor, Tensor]:
    output, mask = _empty(input, seed, q)
    size = input.numel()
    launch(drop_kernel, blocks_of(size, 4 * QUARTER), input, seed, output, mask, size, q=q, quarter=QUARTER)
    return output, mask


@triton.jit
def drop_kernel(input, seed, output, mask, size, q: tl.constexpr, quarter: tl.constexpr):
    program, place = tl.program_id(0), tl.arange(0, quarter)
    u1, u2, u3, u4 = tl.rand4x(tl.load(seed), program * quarter + place)
    at = program.to(tl.int64) * (4 * quarter) + place
    _drop(input, output, mask, at, u1, size, q)
    _drop(input, output, mask, at + quarter, u2, size, q)
    _drop(input, output, mask, at + 2 * quarter, u3, size, q)
    _drop(input, output, mask, at + 3 * quarter, u4, size, q)


@triton.jit
def _drop(input, output, mask, at, u, size, q: tl.constexpr):
    x, m = wide(tl.load(input + at, mask=at < size, other=0)), u < q
    tl.store(output + at, x * m.to(x.dtype) * (1 / q), mask=at < size)
    tl.store(mask + at, m, mask=at < size)

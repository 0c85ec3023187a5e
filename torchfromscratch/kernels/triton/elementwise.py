"""Elementwise formulas, one launch each."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchfromscratch.kernels.triton.launch import blocks_of, in_one_order, launch, operation

# A program's elements.
BLOCK = 1024


def gate(values: Tensor, output: Tensor) -> Tensor:
    """`values` where `output` is positive or NaN, and 0 elsewhere: dL/dx of y = max(0, x), from dL/dy and y."""
    return _gate(*in_one_order(values, output))


@operation(like=lambda values, output: torch.empty_like(values))
def _gate(values: Tensor, output: Tensor) -> Tensor:
    result = torch.empty_like(values)
    launch(gate_kernel, blocks_of(values.numel(), BLOCK), values, output, result, values.numel(), block=BLOCK)
    return result


@triton.jit
def gate_kernel(values, output, result, size, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < size
    y = tl.load(output + at, mask=inside, other=0)
    tl.store(result + at, tl.where(y <= 0, 0, tl.load(values + at, mask=inside, other=0)), mask=inside)

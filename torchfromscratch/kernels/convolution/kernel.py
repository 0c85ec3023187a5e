"""A convolution to compute, and what an algorithm of convolution states of itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchfromscratch.kernels.windows import Windows

# A product of matrices with one column takes ten times as long for each multiplication as one with many.
COLUMN_COST = 10


@dataclass(frozen=True)
class Task:
    """A convolution to be computed: all that the choice of an algorithm depends on.

    `batch` samples of `channels` (C, O). `on_cpu` says that the tensors are a CPU's memory, computed with once and for
    all; GPUs and compilers get whole matrices. `by_triton` says that kernels written in Triton may take the tensors.
    """

    batch: int
    channels: tuple[int, int]
    input_size: Sequence[int]
    windows: Windows
    dtype: torch.dtype
    channels_last: bool
    on_cpu: bool
    is_tracing: bool
    by_triton: bool = False

    @property
    def multiplications(self) -> int:
        """The multiplications of the definition: one for each output, tap and channel that it sees."""
        outputs = self.batch * math.prod(self.windows.output_size(self.input_size))
        return outputs * self.windows.tap_count * math.prod(self.channels) // self.windows.groups

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel has kernels of its own."""
        return self.channels[0] == self.windows.groups > 1

    @property
    def may_round(self) -> bool:
        """Whether slightly larger rounding errors are allowed. In float64 a caller wants the last digit."""
        return self.dtype == torch.float32 and self.on_cpu

    @property
    def cost_of_matrices(self) -> int:
        """The cost of the definition as products of matrices, in multiplications."""
        return self.multiplications * (COLUMN_COST if self.is_depthwise else 1)


@dataclass
class Kernel:
    """An algorithm: the convolutions that it `fits`, their `cost` in multiplications, and its three operations.

    Shapes are those of the package's docstring. `gradients` computes the last two operations together, for less than
    one after the other. A kernel that `rounds_once` computes each result as one sum, so that it may be given float16 or
    bfloat16; others get float32.
    """

    name: str
    fits: Callable[[Task], bool]
    cost: Callable[[Task], float]
    correlate: Callable[[Tensor, Tensor, Tensor | None, Windows], Tensor]
    full_convolution: Callable[[Tensor, Tensor, Windows, Sequence[int]], Tensor]
    weight_gradient: Callable[[Tensor, Tensor, Windows], Tensor]
    gradients: Callable[[Tensor, Tensor, Tensor, Windows], tuple[Tensor, Tensor]] | None = None
    rounds_once: bool = False

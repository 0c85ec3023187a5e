"""Linear, with in_features given or found, Bilinear, and Flatten."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch import functional as F
from torchfromscratch.autograd.flatten import flatten
from torchfromscratch.kernels.execution import is_jit_tracing, needs_gradient

__all__ = ["Bilinear", "Flatten", "LazyLinear", "Linear"]


class Linear(torch.nn.Linear):
    """y = x wᵀ + b: torch.nn.Linear by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class LazyLinear(torch.nn.LazyLinear, Linear):
    """A Linear from its first call on, which finds in_features: torch.nn.LazyLinear by hand."""

    cls_to_become = Linear


class Bilinear(torch.nn.Bilinear):
    """y = x₁ᵀ w x₂ + b: torch.nn.Bilinear by hand."""

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)


class Flatten(torch.nn.Flatten):
    """One dimension in place of several: torch.nn.Flatten by hand.

    Where no gradient is recorded it is a view of the input, as torch's is. Where one is, it has memory of its
    own, and what is written into it in place does not reach the input: autograd forbids writing into a view
    that a Function made, and an `x += 1` behind a Flatten is to work.
    """

    def forward(self, input: Tensor) -> Tensor:
        # torch.jit.trace compares what it traced with a second run without gradients: one graph for both
        if is_jit_tracing() or needs_gradient(input):
            return flatten(input, self.start_dim, self.end_dim)
        return input.flatten(self.start_dim, self.end_dim)

"""Linear and Flatten."""

from __future__ import annotations

import torch.nn
from torch import Tensor

from torchfromscratch import functional as F
from torchfromscratch.autograd.flatten import flatten

__all__ = ["Flatten", "Linear"]


class Linear(torch.nn.Linear):
    """y = x wᵀ + b: torch.nn.Linear by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class Flatten(torch.nn.Flatten):
    """One dimension in place of several: torch.nn.Flatten by hand, in memory of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return flatten(input, self.start_dim, self.end_dim)

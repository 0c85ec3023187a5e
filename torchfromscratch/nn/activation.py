"""Activation modules."""

from __future__ import annotations

import torch.nn
from torch import Tensor

from torchfromscratch import functional as F

__all__ = ["ReLU", "Sigmoid"]


class ReLU(torch.nn.ReLU):
    """max(0, x): torch.nn.ReLU by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class Sigmoid(torch.nn.Sigmoid):
    """1 / (1 + e⁻ˣ): torch.nn.Sigmoid by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)

"""Windows written out as columns, and back."""

from __future__ import annotations

import torch.nn
from torch import Tensor

from torchfromscratch import functional as F

__all__ = ["Fold", "Unfold"]


class Unfold(torch.nn.Unfold):
    """Every window as a column: torch.nn.Unfold by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(torch.nn.Fold):
    """Columns summed where their windows overlap: torch.nn.Fold by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

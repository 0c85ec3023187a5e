"""Fractional max pooling modules."""

from __future__ import annotations

from typing import Any

import torch.nn
from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch import functional as F

__all__ = ["FractionalMaxPool2d", "FractionalMaxPool3d"]


class FractionalMaxPool2d(torch.nn.FractionalMaxPool2d):
    """The largest elements of windows that begin at random: torch.nn.FractionalMaxPool2d by hand."""

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool2d(
            input,
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            private.random_samples(self),
        )


class FractionalMaxPool3d(torch.nn.FractionalMaxPool3d):
    """The largest elements of windows that begin at random: torch.nn.FractionalMaxPool3d by hand."""

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool3d(
            input,
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            private.random_samples(self),
        )

"""Resizing modules."""

from __future__ import annotations

import torch.nn
from torch import Tensor

from torchfromscratch import functional as F

__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]


class Upsample(torch.nn.Upsample):
    """A signal, image or volume in another size: torch.nn.Upsample by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )


class UpsamplingNearest2d(Upsample, torch.nn.UpsamplingNearest2d):
    """An image in another size, of its own pixels: torch.nn.UpsamplingNearest2d by hand."""


class UpsamplingBilinear2d(Upsample, torch.nn.UpsamplingBilinear2d):
    """An image in another size, of means of pixels: torch.nn.UpsamplingBilinear2d by hand."""

"""Modules that rearrange channels and pixels."""

from __future__ import annotations

import torch.nn
from torch import Tensor

from torchfromscratch import functional as F

__all__ = ["ChannelShuffle", "PixelShuffle", "PixelUnshuffle"]


class PixelShuffle(torch.nn.PixelShuffle):
    """Blocks of pixels from the channels of one: torch.nn.PixelShuffle by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(torch.nn.PixelUnshuffle):
    """Blocks of pixels as the channels of one: torch.nn.PixelUnshuffle by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)


class ChannelShuffle(torch.nn.ChannelShuffle):
    """The groups of channels dealt out: torch.nn.ChannelShuffle by hand."""

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)

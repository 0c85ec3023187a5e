"""Convolution modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn
from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch import functional as F

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
]


class Conv1d(torch.nn.Conv1d):
    """Cross-correlation over (N, C, L): torch.nn.Conv1d by hand."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _convolve(self, F.conv1d, input, weight, bias)


class Conv2d(torch.nn.Conv2d):
    """Cross-correlation over (N, C, H, W): torch.nn.Conv2d by hand."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _convolve(self, F.conv2d, input, weight, bias)


class Conv3d(torch.nn.Conv3d):
    """Cross-correlation over (N, C, D, H, W): torch.nn.Conv3d by hand."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _convolve(self, F.conv3d, input, weight, bias)


class ConvTranspose1d(torch.nn.ConvTranspose1d):
    """Full convolution over (N, C, L): torch.nn.ConvTranspose1d by hand."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _convolve_transposed(self, F.conv_transpose1d, input, output_size)


class ConvTranspose2d(torch.nn.ConvTranspose2d):
    """Full convolution over (N, C, H, W): torch.nn.ConvTranspose2d by hand."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _convolve_transposed(self, F.conv_transpose2d, input, output_size)


class ConvTranspose3d(torch.nn.ConvTranspose3d):
    """Full convolution over (N, C, D, H, W): torch.nn.ConvTranspose3d by hand."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _convolve_transposed(self, F.conv_transpose3d, input, output_size)


class LazyConv1d(torch.nn.LazyConv1d, Conv1d):  # type: ignore[misc]
    """A Conv1d from its first call on, which finds in_channels: torch.nn.LazyConv1d by hand."""

    cls_to_become = Conv1d


class LazyConv2d(torch.nn.LazyConv2d, Conv2d):  # type: ignore[misc]
    """A Conv2d from its first call on, which finds in_channels: torch.nn.LazyConv2d by hand."""

    cls_to_become = Conv2d


class LazyConv3d(torch.nn.LazyConv3d, Conv3d):  # type: ignore[misc]
    """A Conv3d from its first call on, which finds in_channels: torch.nn.LazyConv3d by hand."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(torch.nn.LazyConvTranspose1d, ConvTranspose1d):  # type: ignore[misc]
    """A ConvTranspose1d from its first call on, which finds in_channels: torch.nn.LazyConvTranspose1d by hand."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(torch.nn.LazyConvTranspose2d, ConvTranspose2d):  # type: ignore[misc]
    """A ConvTranspose2d from its first call on, which finds in_channels: torch.nn.LazyConvTranspose2d by hand."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(torch.nn.LazyConvTranspose3d, ConvTranspose3d):  # type: ignore[misc]
    """A ConvTranspose3d from its first call on, which finds in_channels: torch.nn.LazyConvTranspose3d by hand."""

    cls_to_become = ConvTranspose3d


def _convolve(
    module: Any, function: Callable[..., Tensor], input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """The module's convolution; what is not padded with zeros is padded beforehand."""
    padding = module.padding
    if module.padding_mode != "zeros":
        input = F.pad(input, private.frame(module), mode=module.padding_mode)
        padding = 0
    return function(input, weight, bias, module.stride, padding, module.dilation, module.groups)


def _convolve_transposed(
    module: Any, function: Callable[..., Tensor], input: Tensor, output_size: list[int] | None
) -> Tensor:
    """The module's transposed convolution, padded at its end to `output_size` where that is given."""
    output_padding = module._output_padding(
        input,
        output_size,
        module.stride,
        module.padding,
        module.kernel_size,
        len(module.kernel_size),
        module.dilation,
    )
    return function(
        input,
        module.weight,
        module.bias,
        module.stride,
        module.padding,
        output_padding,
        module.groups,
        module.dilation,
    )

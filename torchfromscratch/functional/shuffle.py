"""Rearrangements of channels and pixels, and classes as vectors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torchfromscratch.autograd import shuffle as autograd
from torchfromscratch.functional.arguments import is_int
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.execution import has_concrete_values

__all__ = ["channel_shuffle", "native_channel_shuffle", "one_hot", "pixel_shuffle", "pixel_unshuffle"]


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """y[c, h·r + i, w·r + j] = x[(c·r + i)·r + j, h, w]: a block of r × r pixels from the channels of one.

    dL/dx is `pixel_unshuffle` of dL/dy. Shapes: input (*, C·r², H, W) → (*, C, H·r, W·r). Raises RuntimeError where
    the channels are no multiple of r², TypeError for a factor that is no int.
    Source: W. Shi et al., "Real-time single image and video super-resolution", 2016.
    """
    _check_factor("pixel_shuffle", "upscale_factor", input, upscale_factor)
    if input.shape[-3] % upscale_factor**2:
        raise RuntimeError(
            f"pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, "
            f"but input.size(-3)={input.shape[-3]} is not divisible by {upscale_factor**2}"
        )
    return _of_images(autograd.pixel_shuffle, input, upscale_factor)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of `pixel_shuffle`: a block of r × r pixels as the channels of one, dL/dx by `pixel_shuffle`.

    Shapes: input (*, C, H·r, W·r) → (*, C·r², H, W). Raises RuntimeError where height or width is no multiple of r.
    """
    _check_factor("pixel_unshuffle", "downscale_factor", input, downscale_factor)
    for name, size in (("height", input.shape[-2]), ("width", input.shape[-1])):
        if size % downscale_factor:
            raise RuntimeError(
                f"pixel_unshuffle expects {name} to be divisible by downscale_factor, "
                f"but {size} is not divisible by {downscale_factor}"
            )
    return _of_images(autograd.pixel_unshuffle, input, downscale_factor)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """y[n, c·G + g] = x[n, g·C/G + c]: the groups of channels dealt out; dL/dx deals dL/dy out to C/G groups.

    Shapes: input (N, C, …) → the same. Raises RuntimeError for less than three dimensions, and where G does not
    divide C. Source: X. Zhang et al., "ShuffleNet", 2018.
    """
    if input.dim() <= 2:
        raise RuntimeError(f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(input.shape)}")
    if not is_int(groups):
        raise TypeError(f"channel_shuffle(): argument 'groups' must be int, not {type(groups).__name__}")
    if groups <= 0:
        raise RuntimeError(f"Number of groups to divide channels in must be positive. Value of groups:{groups}")
    if input.shape[1] % groups:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {input.shape[1]} channels and {groups} groups."
        )
    return autograd.channel_shuffle(input, groups)


def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """`channel_shuffle`, under another of its names."""
    return channel_shuffle(input, groups)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """y[…, c] = [t = c]: 1 at each class and 0 elsewhere, int64. There are as many as the largest and 1, unless given.

    Shapes: (*) → (*, C). Raises RuntimeError for classes that are no int64, negative or too large.
    """
    if tensor.dtype != torch.int64:
        raise RuntimeError(f"one_hot is only applicable to index tensor of type LongTensor, but got {tensor.dtype}")
    has_values = has_concrete_values(tensor)
    least, largest = [int(bound) for bound in tensor.aminmax()] if has_values and tensor.numel() else (0, -1)
    if num_classes == -1:
        if not has_values:
            raise RuntimeError("one_hot needs an explicit positive num_classes where the classes have no values yet")
        if tensor.numel() == 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
        num_classes = largest + 1
    if num_classes < 1:
        raise RuntimeError(f"one_hot needs at least one class, but got num_classes={num_classes}")
    if least < 0:
        raise RuntimeError(f"Class values must be non-negative, but one is {least}")
    if largest >= num_classes:
        raise RuntimeError(f"Class values must be smaller than num_classes={num_classes}, got {largest}")
    zeros = torch.zeros(*tensor.shape, num_classes, dtype=torch.int64, device=tensor.device)
    scatter = zeros.scatter_ if has_values else zeros.scatter
    return scatter(-1, tensor.unsqueeze(-1), 1)


def _of_images(shuffle: Callable[[Tensor, int], Tensor], input: Tensor, factor: int) -> Tensor:
    """The shuffle of (*, C, H, W) as of one batch."""
    images = input if input.dim() == 4 else input.reshape(math.prod(input.shape[:-3]), *input.shape[-3:])
    output = shuffle(images, factor)
    return output if input.dim() == 4 else no_view(output, (*input.shape[:-3], *output.shape[1:]))


def _check_factor(function: str, name: str, input: Tensor, factor: int) -> None:
    if not is_int(factor):
        raise TypeError(f"{function}(): argument {name!r} must be int, not {type(factor).__name__}")
    if input.dim() < 3:
        raise RuntimeError(
            f"{function} expects input to have at least 3 dimensions, but got input with {input.dim()} dimension(s)"
        )
    if factor <= 0:
        raise RuntimeError(f"{function} expects a positive {name}, but got {factor}")

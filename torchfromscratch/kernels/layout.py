"""Memory formats: torch.nn's layers answer channels last when one of their operands lies so."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def any_channels_last(*tensors: Tensor) -> bool:
    """Whether one of the (N, C, height, width) or (N, C, depth, height, width) tensors lies channels last."""
    return any([*map(is_channels_last, tensors)])  # a list: Dynamo traces no unfinished generator


def is_channels_last(tensor: Tensor) -> bool:
    """Whether the strides grow from channels over space to batch; torch takes ambiguous ones for contiguous."""
    if tensor.dim() not in (4, 5):
        return False
    sizes, strides, least = tensor.shape, tensor.stride(), 0
    if strides[1] == 0:
        return False
    for dim in (1, *range(len(sizes) - 1, 1, -1), 0):
        size, stride = sizes[dim], strides[dim]
        if size == 0 or stride < least or (dim == 0 and least == strides[1]):
            return False
        least = stride * size
    return True


def copy_to_memory_format(tensor: Tensor, channels_last: bool) -> Tensor:
    """A copy of (N, C, *spatial) in the memory format asked for."""
    return empty(tensor.shape, channels_last, like=tensor).copy_(tensor)


def to_memory_format(tensor: Tensor, channels_last: bool) -> Tensor:
    """(N, C, *spatial) in the memory format asked for: the tensor, or a copy.

    Behind a Flatten, a gradient is contiguous, whatever the format of its tensor.
    """
    return tensor if is_channels_last(tensor) == channels_last else copy_to_memory_format(tensor, channels_last)


def empty(shape: Sequence[int], channels_last: bool, like: Tensor) -> Tensor:
    """An empty (N, C, *spatial) tensor in the memory format asked for.

    It is no view of a tensor in the other format. Autograd forbids to overwrite a view that a Function made, and a
    ReLU(inplace=True) may stand behind a layer.
    """
    if not channels_last:
        return like.new_empty(tuple(shape))
    return like.new_empty_strided(tuple(shape), dense_strides(shape, channels_last))


def dense_strides(shape: Sequence[int], channels_last: bool) -> tuple[int, ...]:
    """The strides of (N, C, *spatial) without gaps in the memory format asked for."""
    spatial = range(len(shape) - 1, 1, -1)
    strides, step = [0] * len(shape), 1
    for dim in (1, *spatial, 0) if channels_last else (*spatial, 1, 0):
        strides[dim] = step
        step = step * max(1, shape[dim])  # no `*=`: torch.jit.trace hands over sizes as tensors
    return tuple(strides)


def match_memory_format(output: Tensor, input: Tensor) -> Tensor:
    """`output` channels last where the input (N, C, height, width) is: torch's averages keep no other format."""
    if input.dim() == 4 and is_channels_last(input):
        return to_memory_format(output, channels_last=True)
    return output.contiguous()

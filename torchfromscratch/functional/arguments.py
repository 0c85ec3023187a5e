"""Checks of arguments that several families share; the exceptions are of torch.nn.functional's types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch.kernels.execution import has_concrete_values, is_differentiating, needs_gradient

Size = int | Sequence[int]

MANY = 2**31  # elements, beside whose computation it takes no time to ask whether there is memory for them


def per_dimension(name: str, value: Any, dims: int) -> tuple[int, ...]:
    """An int for all spatial dimensions, or a sequence of one or `dims` ints, as a tuple of `dims`."""
    if type(value) is int and abs(value) < 2**63:
        return (value,) * dims
    if type(value) is tuple and len(value) == dims and all([type(size) is int and abs(size) < 2**63 for size in value]):
        return value
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not all([is_int(v) for v in values]):
        raise TypeError(f"{name} must be an int or a tuple of {dims} ints, but got {value!r}")
    if any([isinstance(v, int) and abs(v) >= 2**63 for v in values]):
        raise ValueError(f"Overflow when unpacking long long: {name} must be less than 2⁶³, but got {value!r}")
    if len(values) == 1:
        values *= dims
    if len(values) != dims:
        raise RuntimeError(f"{name!r} should contain one int or {dims} ints, but got {len(values)}: {value!r}")
    return values


def require_memory(size: Sequence[int], like: Tensor) -> None:
    """RuntimeError where no memory holds so many elements, before anything is done for each of them."""
    if has_concrete_values(like) and (count := math.prod(size)) > MANY:
        if count >= 2**63:
            raise RuntimeError(f"Storage size calculation overflowed with sizes={list(size)}")
        like.new_empty(size)


def is_int(value: Any) -> bool:
    """Whether `value` counts something: a boolean does not."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


def no_tensor(function: str, name: str, value: Any) -> TypeError:
    """The error for an argument that should be a tensor."""
    return TypeError(f"{function}(): argument {name!r} must be Tensor, not {type(value).__name__}")


def not_implemented(function: str, dtype: torch.dtype) -> NotImplementedError:
    """The error for numbers of a type that the function is not defined for."""
    return NotImplementedError(
        f"{function!r} not implemented for {scalar_type(dtype)!r}: it is not defined for {dtype}"
    )


def scalar_type(dtype: torch.dtype) -> str:
    """What torch's errors call a type: Float, Long."""
    return torch.empty(0, dtype=dtype).type().removeprefix("torch.").removesuffix("Tensor")


def changeable(kept: Tensor) -> Tensor:
    """A copy, where the backward pass needs what is `kept` and a user may change it before in place."""
    return kept.clone() if is_differentiating() else kept


def inexact(input: Tensor) -> Tensor:
    """Integers as floats."""
    return input if input.is_floating_point() or input.is_complex() else input.to(torch.get_default_dtype())


def overwrite(input: Tensor, output: Tensor) -> Tensor:
    """`input`, holding `output`, which was computed from it: what a layer with inplace=True returns.

    `copy_` alone would send a gradient of zeros, contiguous whatever the input's memory format, back to what
    is overwritten. Where nothing else looks at that, it is let go of first.
    """
    if needs_gradient(input) and has_concrete_values(input) and not _is_watched(input):
        input.detach_()
    return input.copy_(output)


def _is_watched(tensor: Tensor) -> bool:
    """Whether the gradient of what the tensor holds now is looked at from elsewhere."""
    return tensor.is_leaf or private.is_view(tensor) or tensor.retains_grad or private.has_hooks(tensor)


def as_batch(function: str, input: Tensor, dims: int) -> Tensor:
    """(N, C, *spatial) as it is, (C, *spatial) as a batch of one."""
    if input.dim() == dims + 2:
        return input
    if input.dim() == dims + 1:
        return input.unsqueeze(0)
    raise RuntimeError(
        f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {function}, "
        f"but got input of size: {list(input.shape)}"
    )

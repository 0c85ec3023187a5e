"""Fractional max pooling in two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.pooling import fetch
from torchfromscratch.functional.arguments import Size, as_batch, not_implemented, per_dimension
from torchfromscratch.functional.autocast import autocast
from torchfromscratch.kernels import fractional as kernel
from torchfromscratch.kernels.buffers import no_view
from torchfromscratch.kernels.execution import warn_of_constants

__all__ = [
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
]

Ratio = float | Sequence[float] | None

# Which axis each of the random numbers of a channel is for: torch counts those of images from the last.
NUMBER_OF_AXIS = {2: (1, 0), 3: (0, 1, 2)}


@autocast(cpu="float32", cuda="as given")
def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: Ratio = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The largest element of windows that begin at random places, as many as are asked for.

    Window o of an axis begins at ⌊(o + u)·α⌋ − ⌊u·α⌋ with α = (I − k) / (O − 1) and a random u of the channel, the last
    at its end. dL/dx sends dL/dy to the winners alone. With `return_indices` also their positions in the channel.

    Shapes: input (N, C, H, W) or (C, H, W) → (N, C, H', W') or (C, H', W'): `output_size`, or `output_ratio` of the
    input's. `_random_samples` are u, (N, C, 2), if they are not to be drawn.
    Raises ValueError without either, RuntimeError where sizes do not fit. Source: B. Graham, "Fractional Max-Pooling",
    2014.
    """
    output, positions = _fractional(2, input, kernel_size, output_size, output_ratio, _random_samples)
    return (output, positions) if return_indices else output


@autocast(cpu="float32", cuda="as given")
def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: Ratio = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool2d` with the winners' positions, whatever `return_indices` says, as in torch."""
    return _fractional(2, input, kernel_size, output_size, output_ratio, _random_samples)


@autocast(cpu="float32", cuda="as given")
def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: Ratio = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The largest element of windows that begin at random places: see `fractional_max_pool2d`.

    Shapes: input (N, C, D, H, W) or (C, D, H, W) → (N, C, D', H', W') or (C, D', H', W'); u (N, C, 3).
    """
    output, positions = _fractional(3, input, kernel_size, output_size, output_ratio, _random_samples)
    return (output, positions) if return_indices else output


@autocast(cpu="float32", cuda="as given")
def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None = None,
    output_ratio: Ratio = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool3d` with the winners' positions, whatever `return_indices` says, as in torch."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, _random_samples)


def _fractional(
    dims: int,
    input: Tensor,
    kernel_size: Size,
    output_size: Size | None,
    output_ratio: Ratio,
    samples: Tensor | None,
) -> tuple[Tensor, Tensor]:
    name = f"fractional_max_pool{dims}d"
    x = as_batch(name, input, dims)
    if output_size is None:
        if output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
        ratios = output_ratio if isinstance(output_ratio, (tuple, list)) else [output_ratio] * dims
        if len(ratios) > dims:
            raise ValueError(f"{name} requires output_ratio to be one number or {dims}, but got {output_ratio}")
        output_size = [int(length * ratio) for length, ratio in zip(x.shape[2:], ratios, strict=True)]
    window, outputs = per_dimension("kernel_size", kernel_size, dims), per_dimension("output_size", output_size, dims)
    _check_sizes(name, x, window, outputs)
    warn_of_constants("how many windows fractional pooling has, for inputs of this size alone")
    if samples is None:
        samples = torch.rand(*x.shape[:2], dims, dtype=x.dtype, device=x.device)
    if samples.dim() != 3 or samples.shape[0] < x.shape[0] or samples.shape[1:] != (x.shape[1], dims):
        raise RuntimeError(
            f"Expect _random_samples to be of size {[*x.shape[:2], dims]}, but got {list(samples.shape)}"
        )
    if samples.dtype != x.dtype:
        raise RuntimeError(f"Expect _random_samples to have the same dtype as input, but got {samples.dtype}")
    of_axis = [samples[: x.shape[0], :, number] for number in NUMBER_OF_AXIS[dims]]
    positions = kernel.winners(x.detach(), of_axis, window, outputs)
    output = fetch(x.contiguous(), positions, None)  # torch's lies so too
    return (output, positions) if x is input else (no_view(output, output.shape[1:]), positions.squeeze(0))


def _check_sizes(name: str, x: Tensor, window: Sequence[int], outputs: Sequence[int]) -> None:
    if not x.is_floating_point():
        raise not_implemented(name, x.dtype)
    if 0 in x.shape[2:]:
        raise RuntimeError(
            f"{name}(): Expected input to have non-zero size for non-batch dimensions, but got {list(x.shape)}"
        )
    if min(window) <= 0 or min(outputs) <= 0:
        raise RuntimeError(
            f"{name}: kernel_size and output_size must be greater than zero, but got {window} and {outputs}"
        )
    for length, size, count in zip(x.shape[2:], window, outputs, strict=True):
        if count + size - 1 > length:
            raise RuntimeError(
                f"{name}(): windows of {size} and an output of {count} are too large relative to input of {length}"
            )

"""Resizing along one dimension: an output is a weighted sum of inputs.

Output o of O lies among I inputs at u = (o + ½)·scale − ½ with scale = I / O, or, with the corners aligned, at
u = o·scale with scale = (I − 1) / (O − 1). Its weights are w(u − i) for the inputs i around it, where what lies
over the edge repeats the edge:

    linear     w(t) = 1 − |t|                                             for |t| < 1
    cubic      w(t) = (a + 2)|t|³ − (a + 3)|t|² + 1                       for |t| < 1
               w(t) = a|t|³ − 5a|t|² + 8a|t| − 4a                         for |t| < 2,  a = −¾
    lanczos    w(t) = sinc(t) sinc(t / 3)                                 for |t| < 3

Against aliasing w is stretched by the scale where that is above 1, cut off at the edges, and its weights are
divided by their sum; a is −½ then.

Sources: R. Keys, "Cubic convolution interpolation for digital image processing", 1981; C. Duchon, "Lanczos
filtering in one and two dimensions", 1979.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import batch_blocks, take_block
from torchfromscratch.kernels.execution import in_cpu_memory, is_tracing

# Weights are computed for so many outputs at a time. For 2·10⁶, each step would take new memory from the system.
BLOCK = 2**16


class Axis(NamedTuple):
    """One dimension to resize: the scale factor is the user's, where one was given."""

    inputs: int
    outputs: int
    scale_factor: float | None
    align_corners: bool

    @property
    def scale(self) -> float:
        """How many inputs there are for an output."""
        if self.align_corners:
            return (self.inputs - 1) / (self.outputs - 1) if self.outputs > 1 else 0.0
        return 1 / self.scale_factor if self.scale_factor else self.inputs / self.outputs


class Filter(NamedTuple):
    """A weight w(t) for |t| < reach, and the one that takes its place against aliasing."""

    reach: int
    weight: Callable[[Tensor], Tensor]
    smooth: Callable[[Tensor], Tensor]


def _linear(t: Tensor) -> Tensor:
    return (1 - t.abs()).clamp(min=0)


def _cubic(t: Tensor, a: float) -> Tensor:
    t = t.abs()
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return torch.where(t < 1, near, torch.where(t < 2, far, 0))


def _lanczos(t: Tensor) -> Tensor:
    return torch.where(t.abs() < 3, torch.sinc(t) * torch.sinc(t / 3), 0)


FILTERS = {
    "linear": Filter(1, _linear, _linear),
    "cubic": Filter(2, partial(_cubic, a=-0.75), partial(_cubic, a=-0.5)),
    "lanczos": Filter(3, _lanczos, _lanczos),
}


def nearest(axis: Axis, exact: bool, precision: torch.dtype, device: torch.device) -> Tensor:
    """Positions (1, O) of the inputs at ⌊o·scale⌋, or ⌊(o + ½)·scale⌋ if exact.

    Where the position is a whole number but for rounding, `precision` decides between two inputs.
    """
    outputs = torch.arange(axis.outputs, device=device)
    scale = torch.tensor(axis.scale, dtype=precision, device=device)
    position = ((outputs + 0.5 * exact) * scale).float().floor().long().clamp(max=axis.inputs - 1)
    return position.unsqueeze(0)


def filter_taps(
    axis: Axis, filter: Filter, antialias: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Positions (taps, O) and weights (taps, O) of the inputs around each output, in float64 and then in a type."""
    outputs = torch.arange(axis.outputs, device=device, dtype=torch.float64)
    if axis.outputs <= BLOCK or device.type != "cpu" or is_tracing():
        position, weight = _filter_taps(axis, filter, antialias, outputs)
        return position, weight.to(dtype)
    positions, weights = [], []
    for block in outputs.split(BLOCK):
        position, weight = _filter_taps(axis, filter, antialias, block)
        positions.append(position)
        weights.append(weight.to(dtype))
    return torch.cat(positions, 1), torch.cat(weights, 1)


def _filter_taps(axis: Axis, filter: Filter, antialias: bool, outputs: Tensor) -> tuple[Tensor, Tensor]:
    if antialias:
        return _smooth_taps(axis, filter, (outputs + 0.5) * axis.scale)
    u = outputs * axis.scale if axis.align_corners else (outputs + 0.5) * axis.scale - 0.5
    offsets = torch.arange(1 - filter.reach, filter.reach + 1, device=outputs.device).unsqueeze(1)
    position = u.floor() + offsets
    return position.long().clamp(0, axis.inputs - 1), filter.weight(u - position)


def _smooth_taps(axis: Axis, filter: Filter, centre: Tensor) -> tuple[Tensor, Tensor]:
    stretch = max(axis.scale, 1.0)
    start = (centre - filter.reach * stretch + 0.5).long().clamp(min=0)
    end = (centre + filter.reach * stretch + 0.5).long().clamp(max=axis.inputs)
    longest = min(axis.inputs, int(2 * filter.reach * stretch) + 2)
    position = start + torch.arange(longest, device=centre.device).unsqueeze(1)
    weight = filter.smooth((position + 0.5 - centre) / stretch).masked_fill(position >= end, 0)
    return position.minimum(end - 1), weight / weight.sum(0)


def weighted_sum(input: Tensor, position: Tensor, weight: Tensor | None, dim: int) -> Tensor:
    """Σ_k w[k, o] x[i(k, o)] along `dim`, which is not the first: (*, I, *) → (*, O, *)."""
    if weight is None:
        return input.index_select(dim, position[0])
    taps = list(zip(position, _along(weight, input, dim), strict=True))
    if not in_cpu_memory(input, position, weight):
        return reduce(torch.add, [input.index_select(dim, i) * w for i, w in taps])
    output = input.new_empty((*input.shape[:dim], position.shape[1], *input.shape[dim + 1 :]))
    blocks = batch_blocks(output, 2 * math.prod(output.shape[1:]))  # sums, and what is added to them
    (first, first_weight), *others = taps
    scratch = torch.empty_like(take_block(output, blocks[0]))
    for block in blocks:
        samples, sums = take_block(input, block), take_block(output, block)
        torch.index_select(samples, dim, first, out=sums).mul_(first_weight)
        for i, w in others:
            sums.addcmul_(torch.index_select(samples, dim, i, out=scratch[: len(samples)]), w)
    return output


def weighted_sum_transpose(
    grad_output: Tensor, position: Tensor, weight: Tensor | None, dim: int, inputs: int
) -> Tensor:
    """Σ w[k, o] y[o] over all k, o with i(k, o) = i, the transpose of `weighted_sum`: (*, O, *) → (*, I, *)."""
    shape = (*grad_output.shape[:dim], inputs, *grad_output.shape[dim + 1 :])
    grad_input = grad_output.new_zeros(shape)
    if weight is None:
        return grad_input.index_add(dim, position[0], grad_output)
    weights = _along(weight, grad_output, dim)
    if not in_cpu_memory(grad_output, position, weight):
        shares = torch.cat([grad_output * w for w in weights], dim)
        return grad_input.index_add(dim, position.reshape(-1), shares)
    blocks = batch_blocks(grad_output, 2 * math.prod(grad_output.shape[1:]))
    scratch = torch.empty_like(take_block(grad_output, blocks[0]), memory_format=torch.contiguous_format)
    for block in blocks:
        samples, sums = take_block(grad_output, block), take_block(grad_input, block)
        for i, w in zip(position, weights, strict=True):
            sums.index_add_(dim, i, torch.mul(samples, w, out=scratch[: len(samples)]))
    return grad_input


def _along(weight: Tensor, input: Tensor, dim: int) -> Tensor:
    """(taps, O) as (taps, 1, …, O, …, 1), to be multiplied with the input along `dim`."""
    return weight.view(len(weight), -1, *[1] * (input.dim() - dim - 1))

"""Sampling of few channels on a CPU: each tap fetches from an image that is shifted by some pixels.

With k zeros around an image, of as many taps as k, all taps of a place outside are zeros, and the place needs no mask.
The pixels of a place lie side by side: one index names the first of them in the image, and the next one in the same
image that begins a pixel, or a row, later. So an index is computed for each place, not for each tap of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import batch_blocks
from torchfromscratch.kernels.execution import in_cpu_memory, is_differentiating
from torchfromscratch.kernels.positions import SPAN, Axis
from torchfromscratch.kernels.precision import widen
from torchfromscratch.kernels.sampling import LEAST_CHANNELS

BUFFERS = 24  # of each place: index, weights, slopes, what they are computed from, and a tap of each channel


def fits(input: Tensor, grid: Tensor, mode: str, padding: str) -> bool:
    """Whether the taps of a place are neighbours, and the channels too few for `kernels.sampling`'s products."""
    return (
        in_cpu_memory(input, grid)
        and not is_differentiating()
        and input.shape[1] < LEAST_CHANNELS
        and (mode != "bicubic" or padding == "zeros")
        and min(input.numel(), grid.numel()) > 0
    )


def sample(input: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:
    """y[n, c, p] = Σ_k w_k · x[n, c, i_k]: input (N, C, *spatial), grid (N, P, dims) → (N, C, P), widened."""
    blocks = []
    for block in batch_blocks(input, BUFFERS * grid.shape[1]):
        x = _pad(input[block], mode)
        places = _Places(input.shape[2:], grid[block], mode, padding, align_corners, False)
        index, y = places.index.expand(-1, x.shape[1], -1), None
        for tap in places.taps():
            pixels = x.narrow(2, tap.offset, x.shape[2] - tap.offset).gather(2, index)
            y = pixels.mul_(tap.weight) if y is None else y.addcmul_(pixels, tap.weight)
        assert y is not None
        blocks.append(y)
    return torch.cat(blocks)


def gradients(
    input: Tensor | None,
    grid: Tensor,
    grad_output: Tensor,
    spatial: Sequence[int],
    mode: str,
    padding: str,
    align_corners: bool,
    needs_input: bool,
    needs_grid: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """dL/dx (N, C, *spatial) and dL/dgrid (N, P, dims), those that are needed, of dL/dy (N, C, P)."""
    grads_input, grads_grid = [], []
    for block in batch_blocks(grad_output, BUFFERS * grid.shape[1]):
        g = widen(grad_output[block])
        places = _Places(spatial, grid[block], mode, padding, align_corners, needs_grid)
        index = places.index.expand(-1, g.shape[1], -1)
        x = _pad(input[block], mode) if needs_grid and input is not None else None
        grad_input = g.new_zeros(*g.shape[:2], math.prod(places.lengths)) if needs_input else None
        grad_axes = [g.new_zeros(g.shape[0], g.shape[2]) for _ in spatial]
        for tap in places.taps():
            if grad_input is not None:
                shifted = grad_input.narrow(2, tap.offset, grad_input.shape[2] - tap.offset)
                shifted.scatter_add_(2, index, g * tap.weight)
            if x is not None:
                pixels = x.narrow(2, tap.offset, x.shape[2] - tap.offset).gather(2, index)
                dots = pixels.mul_(g).sum(1)
                for grad_axis, slope in zip(grad_axes, tap.slopes, strict=True):
                    grad_axis.addcmul_(dots, slope)
        if grad_input is not None:
            grads_input.append(_inner(grad_input.view(*g.shape[:2], *places.lengths), mode))
        if needs_grid:
            grads_grid.append(torch.stack(grad_axes, -1))
    return torch.cat(grads_input) if needs_input else None, torch.cat(grads_grid) if needs_grid else None


class _Tap(NamedTuple):
    """How far behind the first pixel of a place, with which weight (N, 1, P), and its slope along each axis (N, P)."""

    offset: int
    weight: Tensor
    slopes: list[Tensor]


class _Places:
    """The places of a grid in the padded image."""

    def __init__(
        self, spatial: Sequence[int], grid: Tensor, mode: str, padding: str, align_corners: bool, with_slopes: bool
    ) -> None:
        _, count = SPAN[mode]
        self.lengths = [length + 2 * count for length in spatial]
        runs = [
            Axis(length, mode, padding, align_corners).run(widen(grid[..., axis]), with_slopes)
            for axis, length in enumerate(reversed(spatial))
        ]
        self.strides = [math.prod(self.lengths[len(self.lengths) - axis :]) for axis in range(len(runs))]
        self.index = reduce(torch.add, [run.pixels * stride for run, stride in zip(runs, self.strides, strict=True)])
        self.index = self.index.unsqueeze(1)
        self.weights = [run.weights.unbind(1) for run in runs]
        self.slopes = [() if run.slopes is None else run.slopes.expand_as(run.weights).unbind(1) for run in runs]

    def taps(self) -> Iterator[_Tap]:
        """One for each choice of a pixel along each axis."""
        axes = range(len(self.weights))
        for chosen in itertools.product(*[range(len(weights)) for weights in self.weights]):
            factors = [self.weights[axis][chosen[axis]] for axis in axes]
            slopes = []
            for axis in axes if self.slopes[0] else ():
                others = [factor for other, factor in enumerate(factors) if other != axis]
                slopes.append(reduce(torch.mul, [self.slopes[axis][chosen[axis]], *others]))
            offset = sum([stride * k for stride, k in zip(self.strides, chosen, strict=True)])
            yield _Tap(offset, reduce(torch.mul, factors).unsqueeze(1), slopes)


def _pad(x: Tensor, mode: str) -> Tensor:
    """(N, C, *spatial) with zeros around → (N, C, all pixels)."""
    _, count = SPAN[mode]
    padded = widen(x).new_zeros(*x.shape[:2], *[length + 2 * count for length in x.shape[2:]])
    _inner(padded, mode).copy_(x)
    return padded.flatten(2)


def _inner(padded: Tensor, mode: str) -> Tensor:
    """What the zeros are around."""
    _, count = SPAN[mode]
    for dim in range(2, padded.dim()):
        padded = padded.narrow(dim, count, padded.shape[dim] - 2 * count)
    return padded

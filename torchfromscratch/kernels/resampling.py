"""Resizing along one dimension: which input positions an output is a weighted sum of.

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

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor


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

    Where that is whole but for rounding, `precision` decides between two inputs.
    """
    outputs = torch.arange(axis.outputs, device=device)
    scale = torch.tensor(axis.scale, dtype=precision, device=device)
    position = ((outputs + 0.5 * exact) * scale).float().floor().long().clamp(max=axis.inputs - 1)
    return position.unsqueeze(0)


def filtered(axis: Axis, filter: Filter, antialias: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions (taps, O) and weights (taps, O) of the inputs around each output."""
    outputs = torch.arange(axis.outputs, device=device, dtype=torch.float64)
    if antialias:
        return _stretched(axis, filter, (outputs + 0.5) * axis.scale)
    u = outputs * axis.scale if axis.align_corners else (outputs + 0.5) * axis.scale - 0.5
    around = torch.arange(1 - filter.reach, filter.reach + 1, device=device).unsqueeze(1)
    position = u.floor() + around
    return position.long().clamp(0, axis.inputs - 1), filter.weight(u - position)


def _stretched(axis: Axis, filter: Filter, centre: Tensor) -> tuple[Tensor, Tensor]:
    stretch = max(axis.scale, 1.0)
    start = (centre - filter.reach * stretch + 0.5).long().clamp(min=0)
    end = (centre + filter.reach * stretch + 0.5).long().clamp(max=axis.inputs)
    longest = min(axis.inputs, int(2 * filter.reach * stretch) + 2)
    position = start + torch.arange(longest, device=centre.device).unsqueeze(1)
    weight = filter.smooth((position + 0.5 - centre) / stretch).masked_fill(position >= end, 0)
    return position.minimum(end - 1), weight / weight.sum(0)

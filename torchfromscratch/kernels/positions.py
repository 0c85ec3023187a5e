"""Positions between the pixels of an axis: which pixels count around each, and with what weight."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchfromscratch.kernels.execution import is_differentiating

A = -0.75  # of Keys' cubic convolution, as torch has it

# The first of the pixels around a position from ⌊u⌋, or from the nearest, and how many there are.
SPAN = {"nearest": (0, 1), "bilinear": (0, 2), "bicubic": (-1, 4)}


class Taps(NamedTuple):
    """The pixels around each position, (N, k, P): their numbers, weights, and d weight / d coordinate if asked for."""

    pixels: Tensor
    weights: Tensor
    slopes: Tensor | None


class Axis(NamedTuple):
    """An axis of `length` pixels, and how it is sampled."""

    length: int
    mode: str
    padding: str
    align_corners: bool

    def taps(self, coordinate: Tensor, with_slopes: bool) -> Taps:
        """Of coordinates (N, P), which are −1 and 1 at the axis' ends: the outer pixels' centres or their edges."""
        position, slope = self._locate(coordinate)
        first = position.detach().round() if self.mode == "nearest" else position.detach().floor()
        weights = _weights(position - first, self.mode)
        slopes = _slopes(position - first, self.mode) * slope if with_slopes else None
        pixels = first.unsqueeze(1) + _offsets(self.mode, first)
        if self.mode == "bicubic" and self.padding != "zeros":
            pixels, _ = self._inside(pixels)
        index = pixels.clamp(0, self.length - 1)
        if self.padding == "zeros":
            is_inside = (index == pixels).to(weights.dtype)
            weights, slopes = weights * is_inside, None if slopes is None else slopes * is_inside
        return Taps(index.nan_to_num(nan=0.0).round().long(), weights, slopes)  # NaN is anywhere

    def run(self, coordinate: Tensor, with_slopes: bool) -> Taps:
        """The same of an axis with k zeros at either end, but of k pixels side by side their first alone, (N, P).

        Outside, all of them are zeros, so that none needs a mask.
        """
        position, slope = self._locate(coordinate)
        nearest = position.round() if self.mode == "nearest" else position.floor()
        weights = _weights(position - nearest, self.mode)
        slopes = _slopes(position - nearest, self.mode) * slope if with_slopes else None
        offset, count = SPAN[self.mode]
        first = (nearest + (offset + count)).clamp_(0, self.length + count).nan_to_num_(nan=0.0)
        return Taps(first.long(), weights, slopes)

    def _locate(self, coordinate: Tensor) -> tuple[Tensor, Tensor | float]:
        """Positions among the pixels, and d position / d coordinate."""
        scale = (self.length - 1) / 2 if self.align_corners else self.length / 2
        position = (coordinate + 1) * scale - (0 if self.align_corners else 0.5)
        if self.mode == "bicubic" or self.padding == "zeros":  # bicubic moves each of its pixels inside
            return position, scale
        position, factor = self._inside(position)
        return position, (factor * scale).unsqueeze(1)

    def _inside(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Positions moved inside by padding, and the derivative: ±1, or 0 where they are at the end."""
        original, factor = position, torch.ones_like(position)
        if self.padding == "reflection":
            position, factor = self._reflect(position.detach())
        last = self.length - 1
        between = (position > 0) & (position < last)
        constant = position.nan_to_num(nan=0.0).clamp(0, last)
        factor = (factor * between.to(factor.dtype)).detach()
        if is_differentiating():
            moving = original.masked_fill(factor == 0, 0)
            constant = constant.detach() + factor * (moving - moving.detach())
        return constant, factor

    def _reflect(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """At the outer pixels' centres, or at their edges, as often as it takes."""
        low, span = (0.0, self.length - 1) if self.align_corners else (-0.5, self.length)
        if span == 0:
            return torch.zeros_like(position), torch.zeros_like(position)
        distance = (position - low).abs()
        flips = (distance / span).floor()
        remainder = distance.fmod(span)
        is_odd = flips.fmod(2) != 0
        factor = torch.where(position < low, -1.0, 1.0) * torch.where(is_odd, -1.0, 1.0)
        return torch.where(is_odd, span - remainder, remainder) + low, factor.to(position.dtype)


def _offsets(mode: str, like: Tensor) -> Tensor:
    """Of the pixels around a position from ⌊u⌋, or the nearest."""
    first, count = SPAN[mode]
    return torch.arange(first, first + count, dtype=like.dtype, device=like.device).view(-1, 1)


def _weights(t: Tensor, mode: str) -> Tensor:
    """Of the pixels around a position, by its fraction t."""
    if mode == "nearest":
        return torch.ones_like(t).unsqueeze(1)
    if mode == "bilinear":
        return torch.stack([1 - t, t], 1)
    return torch.stack([_far(1 + t), _near(t), _near(1 - t), _far(2 - t)], 1)


def _slopes(t: Tensor, mode: str) -> Tensor:
    """dw/dt."""
    if mode == "nearest":
        return torch.zeros_like(t).unsqueeze(1)
    if mode == "bilinear":
        return torch.stack([-torch.ones_like(t), torch.ones_like(t)], 1)
    return torch.stack([_far_slope(1 + t), _near_slope(t), -_near_slope(1 - t), -_far_slope(2 - t)], 1)


def _near(d: Tensor) -> Tensor:
    """Keys' w of distances up to 1."""
    return ((A + 2) * d - (A + 3)) * d * d + 1


def _near_slope(d: Tensor) -> Tensor:
    return (3 * (A + 2) * d - 2 * (A + 3)) * d


def _far(d: Tensor) -> Tensor:
    """Keys' w of distances from 1 to 2."""
    return ((A * d - 5 * A) * d + 8 * A) * d - 4 * A


def _far_slope(d: Tensor) -> Tensor:
    return (3 * A * d - 10 * A) * d + 8 * A

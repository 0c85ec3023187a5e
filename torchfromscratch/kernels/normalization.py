"""Standardisation and its gradient, in parts of the batch that fit the cache.

Memory is read twice and written once: a first walk sums, a second applies the sums. Where each sample has
its own statistics, both walks are over one part after the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from torchfromscratch.kernels.chunks import chunks, part_of
from torchfromscratch.kernels.layout import any_channels_last, laid_out
from torchfromscratch.kernels.memory import computed, stands_for_many
from torchfromscratch.kernels.precision import widened

TEMPORARIES = 2  # tensors of a part's size that a walk reads and writes beside the batch itself


@dataclass(frozen=True)
class Statistics:
    """The elements along `dims` share a variance and, if centred, a mean."""

    dims: tuple[int, ...]
    eps: float
    centred: bool = True

    def count(self, x: Tensor) -> int:
        """How many elements share: at least 1, so that the mean of none is 0."""
        return max(1, math.prod([x.shape[dim] for dim in self.dims]))

    def mean(self, x: Tensor) -> Tensor:
        return sum_over(x, self.dims) / self.count(x)

    def centre(self, x: Tensor) -> Tensor:
        """The mean that normalisation takes away."""
        return self.mean(x) if self.centred else x.new_zeros([1] * x.dim())


def normalize(input: Tensor, weight: Tensor, bias: Tensor | None, over: Statistics) -> tuple[Tensor, Tensor, Tensor]:
    """γ·(x − μ) / √(σ² + ε) + β, μ and σ²."""
    x = widened(input)
    output = torch.empty_like(x)
    means, variances = [], []
    for group in _groups(x, weight, over):
        mean, variance = _moments([_part(x, span) for span in group], over)
        rho = (variance + over.eps).rsqrt()
        for span in group:
            y = computed(torch.sub, _part(x, span), mean, _part(output, span))
            y = y.mul_(weight * rho) if weight.shape == rho.shape else y.mul_(rho).mul_(weight)
            if bias is not None:
                y.add_(bias)
        means.append(mean)
        variances.append(variance)
    return output.to(input.dtype), _joined(means), _joined(variances)


def gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, over: Statistics
) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dx = ρ·(h − mean(h) − x̂·mean(h·x̂)) with h = γ·dL/dy, dL/dγ = Σ dL/dy·x̂ and dL/dβ = Σ dL/dy."""
    x = widened(input)
    g = laid_out(widened(grad_output), any_channels_last(x))
    constant = {dim for dim in range(x.dim()) if weight.shape[dim] == 1}
    shared, varying = constant.intersection(over.dims), set(over.dims) - constant
    groups = _groups(x, weight, over)
    grad_input = torch.empty_like(g if stands_for_many(g) else x)
    buffer = torch.empty_like(_part(x, groups[0][0]))
    grad_weights, grad_biases = [], []
    for group in groups:
        mu, above_zero = _part(mean, group[0]), _part(variance, group[0]) + over.eps
        rho = above_zero.rsqrt()

        parts = [[_part(tensor, span) for tensor in (g, x, grad_input)] for span in group]

        # over the elements that share both γ and their statistics, then over those that share one of the two
        sum_g = _total([sum_over(g_part, shared) for g_part, _, _ in parts])
        products = []
        for g_part, x_part, memory in parts:  # memory that dL/dx takes later
            deviation = _deviation(x_part, mu, buffer)
            products.append(sum_over(computed(torch.mul, g_part, deviation, memory), shared))
        sum_gd = _total(products)
        grad_weights.append(sum_over(sum_gd * rho, constant.difference(over.dims)))
        grad_biases.append(sum_over(sum_g, constant.difference(over.dims)))

        # In the order of ρ·((h − mean(h)) − d·mean(h·d) / (σ² + ε)): where few elements share their statistics,
        # what remains of h is small, and each rounding of the terms before they are subtracted would be felt.
        count = sum([over.count(x_part) for _, x_part, _ in parts])
        inner, outer = (None, weight * rho) if weight.shape == rho.shape else (weight, rho)
        sum_h, sum_hd = (sum_g, sum_gd) if inner is None else (inner * sum_g, inner * sum_gd)
        mean_h = sum_over(sum_h, varying) / count if over.centred else torch.zeros_like(rho)
        slope = sum_over(sum_hd, varying) / count / above_zero
        for g_part, x_part, memory in parts:
            h = g_part if inner is None else computed(torch.mul, g_part, inner, memory)
            h = computed(torch.sub, h, mean_h, memory)
            h.addcmul_(_deviation(x_part, mu, buffer), slope, value=-1).mul_(outer)
    # where nothing shares β, dL/dβ is dL/dy itself, and no Function may return what it was given
    return grad_input.to(input.dtype), _total(grad_weights), _total(grad_biases).clone()


def sum_over(x: Tensor, dims: Collection[int]) -> Tensor:
    """The sum along all of `dims`, which stay as dimensions of size 1."""
    return x.sum([*dims], keepdim=True) if dims else x


def _groups(input: Tensor, weight: Tensor, over: Statistics) -> list[list[slice]]:
    """The parts of the batch, those together that share their statistics."""
    spans = [slice(0, input.shape[0])]
    if weight.shape[0] == 1:
        spans = chunks(input, TEMPORARIES * math.prod(input.shape[1:]))
    return [spans] if 0 in over.dims else [[span] for span in spans]


def _part(tensor: Tensor, span: slice) -> Tensor:
    """What of `tensor` belongs to a part of the batch; all, if it does not vary along the batch."""
    return tensor if tensor.shape[0] == 1 else part_of(tensor, span)


def _moments(parts: list[Tensor], over: Statistics) -> tuple[Tensor, Tensor]:
    """μ and σ² of all parts, from the sums of x − s and (x − s)²: s near μ keeps both accurate far from 0."""
    shift = over.centre(parts[0])
    totals, squares = [], []
    buffer = torch.empty_like(parts[0])
    for part in parts:
        deviation = _deviation(part, shift, buffer)
        totals.append(sum_over(deviation, over.dims))
        squares.append(sum_over(deviation.mul_(deviation), over.dims))
    count = sum([over.count(part) for part in parts])
    mean, mean_square = _total(totals) / count, _total(squares) / count
    if not over.centred:
        return torch.zeros_like(mean), mean_square
    return shift + mean, (mean_square - mean * mean).clamp(min=0)


def _deviation(x: Tensor, mean: Tensor, buffer: Tensor) -> Tensor:
    """x − μ, in the memory of `buffer`, which is as long as the longest part."""
    return computed(torch.sub, x, mean, buffer.narrow(0, 0, x.shape[0]))


def _total(parts: list[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]

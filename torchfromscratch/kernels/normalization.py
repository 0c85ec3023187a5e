"""Standardisation and its gradient, in parts of the batch that fit the cache.

Memory is read twice and written once: a first walk sums, a second applies the sums. Where each sample has
its own statistics, both walks are over one part after the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchfromscratch.kernels.chunks import by_core, part_of, slices
from torchfromscratch.kernels.layout import any_channels_last, laid_out
from torchfromscratch.kernels.memory import computed, in_cpu_memory, settle, stands_for_many
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

    def of_cores(self) -> Statistics:
        """The same of a batch whose pictures are parted among cores, (cores, n, …)."""
        first = (0,) if 0 in self.dims else ()
        return replace(self, dims=(*first, *(dim + 1 for dim in self.dims)))

    def centre(self, x: Tensor) -> Tensor:
        """The mean that normalisation takes away."""
        return self.mean(x) if self.centred else x.new_zeros([1] * x.dim())


def normalize(input: Tensor, weight: Tensor, bias: Tensor | None, over: Statistics) -> tuple[Tensor, Tensor, Tensor]:
    """γ·(x − μ) / √(σ² + ε) + β, μ and σ²."""
    x = widened(input)
    output = torch.empty_like(x)
    x, y_by_core, over = _for_cores(x, over), _for_cores(output, over), over.of_cores()
    weight, bias = weight.unsqueeze(0), None if bias is None else bias.unsqueeze(0)
    means, variances = [], []
    for group in _groups(x, weight, over):
        mean, variance = _moments([_part(x, span) for span in group], over)
        rho = (variance + over.eps).rsqrt()
        for span in group:
            there = _part(y_by_core, span)
            y = computed(torch.sub, _part(x, span), mean, memory=there)
            for factor in (weight * rho,) if weight.shape == rho.shape else (rho, weight):
                y = computed(torch.mul, y, factor, memory=there)
            settle(y if bias is None else computed(torch.add, y, bias, memory=there), there)
        means.append(mean)
        variances.append(variance)
    return output.to(input.dtype), _joined(means).squeeze(0), _joined(variances).squeeze(0)


def gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, over: Statistics
) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dx = ρ·(h − mean(h) − x̂·mean(h·x̂)) with h = γ·dL/dy, dL/dγ = Σ dL/dy·x̂ and dL/dβ = Σ dL/dy."""
    x, g = widened(input), laid_out(widened(grad_output), any_channels_last(input))
    grad_input = torch.empty_like(g if stands_for_many(g) else x)
    x, g, dx, over = _for_cores(x, over), _for_cores(g, over), _for_cores(grad_input, over), over.of_cores()
    weight, mean, variance = weight.unsqueeze(0), mean.unsqueeze(0), variance.unsqueeze(0)
    constant = {dim for dim in range(x.dim()) if weight.shape[dim] == 1}
    shared, varying = constant.intersection(over.dims), set(over.dims) - constant
    groups = _groups(x, weight, over)
    buffer = torch.empty_like(_part(x, groups[0][0]))
    grad_weights, grad_biases = [], []
    for group in groups:
        mu, above_zero = _part(mean, group[0]), _part(variance, group[0]) + over.eps
        rho = above_zero.rsqrt()

        parts = [[_part(tensor, span) for tensor in (g, x, dx)] for span in group]

        # over the elements that share both γ and their statistics, then over those that share one of the two
        sum_g = _total([sum_over(g_part, shared) for g_part, _, _ in parts])
        products = []
        for g_part, x_part, memory in parts:  # memory that dL/dx takes later
            deviation = _deviation(x_part, mu, buffer)
            products.append(sum_over(computed(torch.mul, g_part, deviation, memory=memory), shared))
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
            h = g_part if inner is None else computed(torch.mul, g_part, inner, memory=memory)
            h = computed(torch.sub, h, mean_h, memory=memory)
            settle(h.addcmul_(_deviation(x_part, mu, buffer), slope, value=-1).mul_(outer), memory)
    # where nothing shares β, dL/dβ is dL/dy itself, and no Function may return what it was given
    grad_weight, grad_bias = _total(grad_weights).squeeze(0), _total(grad_biases).squeeze(0).clone()
    return grad_input.to(input.dtype), grad_weight, grad_bias


def sum_over(x: Tensor, dims: Collection[int]) -> Tensor:
    """The sum along all of `dims`, which stay as dimensions of size 1; at last along the first, which may be cores."""
    within = [dim for dim in dims if dim != 0]
    sums = x.sum(within, keepdim=True) if within else x
    return sums.sum(0, keepdim=True) if 0 in dims else sums


def _groups(input: Tensor, weight: Tensor, over: Statistics) -> list[list[slice]]:
    """The parts of the batch, those together that share their statistics."""
    spans = [slice(0, input.shape[1])]
    if weight.shape[1] == 1:
        spans = slices(input, input.shape[1], TEMPORARIES * input.shape[0] * math.prod(input.shape[2:]))
    return [spans] if 1 in over.dims else [[span] for span in spans]


def _for_cores(x: Tensor, over: Statistics) -> Tensor:
    """(N, …) → (cores, n, …), as a view.

    Batch norm takes the statistics of all pictures, a few at a time. Each core has its own among those: it finds
    them in its cache, as layers that are computed whole have left them there, where the other core would be asked.
    """
    if 0 in over.dims and in_cpu_memory(x):
        return by_core(x, math.gcd(x.shape[0], torch.get_num_threads()))
    return x.unsqueeze(0)


def _part(tensor: Tensor, span: slice) -> Tensor:
    """What of `tensor` belongs to a part of the batch; all, if it does not vary along the batch."""
    return tensor if tensor.shape[1] == 1 else part_of(tensor, span, 1)


def _moments(parts: list[Tensor], over: Statistics) -> tuple[Tensor, Tensor]:
    """μ and σ² of all parts, from the sums of x − s and (x − s)²: s near μ keeps both accurate far from 0."""
    shift = over.centre(parts[0])
    totals, squares = [], []
    buffer = torch.empty_like(parts[0])
    for part in parts:
        deviation = _deviation(part, shift, buffer)
        totals.append(sum_over(deviation, over.dims))
        squares.append(sum_over(computed(torch.mul, deviation, deviation, memory=deviation), over.dims))
    count = sum([over.count(part) for part in parts])
    mean, mean_square = _total(totals) / count, _total(squares) / count
    if not over.centred:
        return torch.zeros_like(mean), mean_square
    return shift + mean, (mean_square - mean * mean).clamp(min=0)


def _deviation(x: Tensor, mean: Tensor, buffer: Tensor) -> Tensor:
    """x − μ, in the memory of `buffer`, which is as long as the longest part."""
    return computed(torch.sub, x, mean, memory=buffer.narrow(1, 0, x.shape[1]))


def _total(parts: list[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

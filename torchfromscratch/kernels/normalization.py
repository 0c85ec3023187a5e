"""Standardisation and its gradient, in parts of the batch that fit the cache.

Memory is read twice and written once: a first walk sums, a second applies the sums. Where each sample has
its own statistics, both walks are over one part after the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import by_core, part_of, slices
from torchfromscratch.kernels.layout import any_channels_last, to_memory_format
from torchfromscratch.kernels.memory import call_out, in_cpu_memory, is_batched
from torchfromscratch.kernels.precision import widened


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


class Shared(NamedTuple):
    """The dimensions of a batch, by what the elements along them share."""

    both: set[int]  # γ and their statistics
    statistics: set[int]
    weight: set[int]
    interleaved: bool  # whether a pixel's elements come in short runs that share their statistics

    def sum(self, x: Tensor) -> Tensor:
        """Of the elements that share their statistics."""
        if self.interleaved:
            return sum_over(sum_over(x, self.both), self.statistics)
        return sum_over(x, self.both | self.statistics)

    def by_weight(self, statistic: Tensor, weight: Tensor) -> Tensor:
        """A statistic to compute with: written out for each γ, if it were read in short runs."""
        if not self.interleaved:
            return statistic
        return statistic.expand(torch.broadcast_shapes(statistic.shape, weight.shape)).contiguous()


def normalize(input: Tensor, weight: Tensor, bias: Tensor | None, over: Statistics) -> tuple[Tensor, Tensor, Tensor]:
    """γ·(x − μ) / √(σ² + ε) + β, μ and σ²."""
    x = widened(input)
    output = torch.empty_like(x)
    x, y_by_core, over = _for_cores(x, over), _for_cores(output, over), over.of_cores()
    weight, bias = weight.unsqueeze(0), None if bias is None else bias.unsqueeze(0)
    groups, shared = _groups(x, weight, over), _shared(x, weight, over)
    buffer, means, variances = torch.empty_like(_part(x, groups[0][0])), [], []
    for group in groups:
        mean, variance = _moments([_part(x, span) for span in group], weight, over, shared, buffer)
        rho, mu = (variance + over.eps).rsqrt(), shared.by_weight(mean, weight)
        for span in group:
            there = _part(y_by_core, span)
            y = _deviation(_part(x, span), mu, over, there)
            for factor in (weight * rho,) if shared.both else (rho, weight):
                y = call_out(torch.mul, y, factor, out=there)
            there.copy_(y if bias is None else call_out(torch.add, y, bias, out=there))
        means.append(mean)
        variances.append(variance)
    return output.to(input.dtype), _joined(means).squeeze(0), _joined(variances).squeeze(0)


def gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, over: Statistics
) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dx = ρ·(h − mean(h) − x̂·mean(h·x̂)) with h = γ·dL/dy, dL/dγ = Σ dL/dy·x̂ and dL/dβ = Σ dL/dy."""
    x, g = widened(input), to_memory_format(widened(grad_output), any_channels_last(input))
    grad_input = torch.empty_like(g if is_batched(g) else x)
    x, g, dx, over = _for_cores(x, over), _for_cores(g, over), _for_cores(grad_input, over), over.of_cores()
    weight, mean, variance = weight.unsqueeze(0), mean.unsqueeze(0), variance.unsqueeze(0)
    groups, shared = _groups(x, weight, over), _shared(x, weight, over)
    buffer = torch.empty_like(_part(x, groups[0][0]))
    scratch = None if shared.both else torch.empty_like(_part(dx, groups[0][0]))
    grad_weights, grad_biases = [], []
    for group in groups:
        mu, above_zero = _part(mean, group[0]), _part(variance, group[0]) + over.eps
        rho, mu_by_weight = above_zero.rsqrt(), shared.by_weight(mu, weight)
        parts = [[_part(tensor, span) for tensor in (g, x, dx)] for span in group]

        # over the elements that share both γ and their statistics, then over those that share one of the two
        sum_g = _total([sum_over(g_part, shared.both) for g_part, _, _ in parts])
        products = []
        for g_part, x_part, memory in parts:  # memory that dL/dx takes later
            deviation = _deviation(x_part, mu_by_weight, over, buffer)
            products.append(sum_over(call_out(torch.mul, g_part, deviation, out=memory), shared.both))
        sum_gd, room = _total(products), None if scratch is None else _beginning(scratch, parts[0][0])
        grad_weights.append(_sum_of_products(sum_gd, rho, shared.weight, room))
        grad_biases.append(sum_over(sum_g, shared.weight))

        # In the order of ρ·((h − mean(h)) − d·mean(h·d) / (σ² + ε)): where few elements share their statistics,
        # what remains of h is small, and each rounding of the terms before they are subtracted would be felt.
        count = sum([over.count(x_part) for _, x_part, _ in parts])
        inner, outer = (weight, rho) if shared.statistics else (None, weight * rho)
        slope = _sum_of_products(sum_gd, inner, shared.statistics, room) / count / above_zero
        mean_h = _sum_of_products(sum_g, inner, shared.statistics, room) / count if over.centred else None
        slope, outer = shared.by_weight(slope, weight), shared.by_weight(outer, weight)
        for g_part, x_part, memory in parts:
            h = g_part if inner is None else call_out(torch.mul, g_part, inner, out=memory)
            if mean_h is not None:
                h = call_out(torch.sub, h, shared.by_weight(mean_h, weight), out=memory)
            if len(parts) > 1:  # else it is still there
                deviation = _deviation(x_part, mu_by_weight, over, buffer)
            h = call_out(functools.partial(torch.addcmul, value=-1), h, deviation, slope, out=memory)
            memory.copy_(h.mul_(outer))
    # where nothing shares β, dL/dβ is dL/dy itself, and no Function may return what it was given
    grad_weight, grad_bias = _total(grad_weights).squeeze(0), _total(grad_biases).squeeze(0).clone()
    return grad_input.to(input.dtype), grad_weight, grad_bias


def sum_over(x: Tensor, dims: Collection[int]) -> Tensor:
    """The sum along all of `dims`, which stay as dimensions of size 1; at last along the first, which may be cores."""
    within = [dim for dim in dims if dim != 0]
    sums = x.sum(within, keepdim=True) if within else x
    return sums.sum(0, keepdim=True) if 0 in dims else sums


def _shared(x: Tensor, weight: Tensor, over: Statistics) -> Shared:
    constant = {dim for dim in range(weight.dim()) if weight.shape[dim] == 1}
    both, statistics = constant.intersection(over.dims), set(over.dims) - constant
    interleaved = bool(both and statistics) and not x.is_contiguous()
    return Shared(both, statistics, constant.difference(over.dims), interleaved)


def _groups(input: Tensor, weight: Tensor, over: Statistics) -> list[list[slice]]:
    """The parts of the batch, those together that share their statistics."""
    spans = [slice(0, input.shape[1])]
    if weight.shape[1] == 1:
        spans = slices(input, input.shape[1], input.shape[0] * math.prod(input.shape[2:]))
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


def _moments(
    parts: list[Tensor], weight: Tensor, over: Statistics, shared: Shared, buffer: Tensor
) -> tuple[Tensor, Tensor]:
    """μ and σ² of all parts, from the sums of x − s and (x − s)²: s near μ keeps both accurate far from 0."""
    count = sum([over.count(part) for part in parts])
    shift = shared.sum(parts[0]) / over.count(parts[0]) if over.centred else parts[0].new_zeros([1] * parts[0].dim())
    totals, squares = [], []
    for part in parts:
        deviation = _deviation(part, shared.by_weight(shift, weight), over, buffer)
        if over.centred:
            totals.append(shared.sum(deviation))
        squares.append(shared.sum(call_out(torch.mul, deviation, deviation, out=_beginning(buffer, part))))
    mean_square = _total(squares) / count
    if not over.centred:
        return torch.zeros_like(mean_square), mean_square
    mean = _total(totals) / count
    return shift + mean, (mean_square - mean * mean).clamp(min=0)


def _deviation(x: Tensor, mean: Tensor, over: Statistics, memory: Tensor) -> Tensor:
    """x − μ, in memory for the longest part; x itself where no mean is taken away."""
    return call_out(torch.sub, x, mean, out=_beginning(memory, x)) if over.centred else x


def _sum_of_products(x: Tensor, factor: Tensor | None, dims: Collection[int], room: Tensor | None) -> Tensor:
    """Σ factor · x, in memory for the products if there is some."""
    if factor is not None:
        x = x * factor if room is None else call_out(torch.mul, x, factor, out=room)
    return sum_over(x, dims)


def _beginning(memory: Tensor, x: Tensor) -> Tensor:
    """As much of the memory for a part as this one takes."""
    return memory.narrow(1, 0, x.shape[1])


def _total(parts: list[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

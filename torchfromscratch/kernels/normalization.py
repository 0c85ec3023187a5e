"""Standardisation and its gradient, in blocks of the batch that fit the cache.

Each has two kernels. Where the samples share their statistics, as in batch norm, a first walk over all blocks sums,
and a second applies the sums. Where each sample has its own, both walks are over one block after the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from torchfromscratch.kernels import triton
from torchfromscratch.kernels.blocking import axis_blocks, split_by_core, take_block
from torchfromscratch.kernels.buffers import call_out
from torchfromscratch.kernels.execution import in_cpu_memory, is_batched
from torchfromscratch.kernels.layout import any_channels_last, to_memory_format
from torchfromscratch.kernels.precision import widen

FEW = 2**12  # elements, from where on var_mean takes longer than the steps of `_moments`
_minus_product = functools.partial(torch.addcmul, value=-1)


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

    def spans_batch(self, x: Tensor) -> bool:
        """Whether samples share statistics, channel by channel, as in batch norm."""
        return self.centred and 0 in self.dims and len(self.dims) < x.dim()


class ReductionAxes(NamedTuple):
    """The axes along which elements share γ, their statistics, or both."""

    both: set[int]
    statistics: set[int]  # alone
    weight: set[int]  # alone
    interleaved: bool  # a pixel's elements lie in short runs that share their statistics

    def sum(self, x: Tensor) -> Tensor:
        """Of the elements that share their statistics."""
        if self.interleaved:
            return sum_over(sum_over(x, self.both), self.statistics)
        return sum_over(x, self.both | self.statistics)

    def by_weight(self, statistic: Tensor, weight: Tensor) -> Tensor:
        """A statistic to compute with. One that would be read in short runs is written out for each γ."""
        if not self.interleaved:
            return statistic
        return statistic.expand(torch.broadcast_shapes(statistic.shape, weight.shape)).contiguous()


def normalize(input: Tensor, weight: Tensor, bias: Tensor | None, stats: Statistics) -> tuple[Tensor, Tensor, Tensor]:
    """γ·(x − μ) / √(σ² + ε) + β, μ and σ²."""
    kernels = triton.kernels("normalization", input, weight, bias)
    results = None if kernels is None else kernels.normalize(input, weight, bias, stats)
    if results is not None:
        return results
    x = widen(input)
    output = torch.empty_like(x)
    kernel = _normalize_batch if stats.spans_batch(x) else _normalize_samples
    mean, variance = kernel(x, weight, bias, stats, output)
    return output.to(input.dtype), mean, variance


def _normalize_samples(
    x: Tensor, weight: Tensor, bias: Tensor | None, stats: Statistics, output: Tensor
) -> tuple[Tensor, Tensor]:
    """μ and σ² shared within a sample, or within a part of one; y is written to `output`."""
    axes, blocks = _reduction_axes(x, weight, stats), _sample_blocks(x, weight, stats)
    scratch, means, variances = torch.empty_like(take_block(x, blocks[0])), [], []
    for block in blocks:
        x_block = take_block(x, block)
        mean, variance = _moments([x_block], weight, stats, axes, scratch)
        rho, mu = (variance + stats.eps).rsqrt(), axes.by_weight(mean, weight)
        factors = (weight * rho,) if axes.both else (rho, weight)
        _standardize(x_block, mu, factors, bias, stats, take_block(output, block))
        means.append(mean)
        variances.append(variance)
    return _concatenate(means), _concatenate(variances)


def _normalize_batch(
    x: Tensor, weight: Tensor, bias: Tensor | None, stats: Statistics, output: Tensor
) -> tuple[Tensor, Tensor]:
    """μ and σ² shared over the batch; y is written to `output`."""
    x, output, stats = _by_core(x), _by_core(output), _of_cores(stats)
    weight, bias = weight.unsqueeze(0), None if bias is None else bias.unsqueeze(0)
    axes, blocks = _reduction_axes(x, weight, stats), _batch_blocks(x)
    x_blocks = [take_block(x, block, 1) for block in blocks]
    mean, variance = _moments(x_blocks, weight, stats, axes, torch.empty_like(x_blocks[0]))
    factors = (weight * (variance + stats.eps).rsqrt(),)
    for block, x_block in zip(blocks, x_blocks, strict=True):
        _standardize(x_block, mean, factors, bias, stats, take_block(output, block, 1))
    return mean.squeeze(0), variance.squeeze(0)


def gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, stats: Statistics
) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dx = ρ·(h − mean(h) − x̂·mean(h·x̂)) with h = γ·dL/dy, dL/dγ = Σ dL/dy·x̂ and dL/dβ = Σ dL/dy.

    dL/dx is computed as ρ·((h − mean(h)) − d·mean(h·d) / (σ² + ε)). Where few elements share their statistics, little
    of h remains, and each rounding of the terms before they are subtracted would be felt.
    """
    kernels = triton.kernels("normalization", grad_output, input, weight, mean, variance)
    results = None if kernels is None else kernels.gradients(grad_output, input, weight, mean, variance, stats)
    if results is not None:
        return results
    x, g = widen(input), to_memory_format(widen(grad_output), any_channels_last(input))
    grad_input = torch.empty_like(g if is_batched(g) else x)
    kernel = _batch_gradients if stats.spans_batch(x) else _sample_gradients
    grad_weight, grad_bias = kernel(g, x, weight, mean, variance, stats, grad_input)
    return grad_input.to(input.dtype), grad_weight, grad_bias


def _sample_gradients(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, stats: Statistics, grad_input: Tensor
) -> tuple[Tensor, Tensor]:
    """dL/dγ and dL/dβ for statistics shared within a sample; dL/dx is written to `grad_input`."""
    axes, blocks = _reduction_axes(x, weight, stats), _sample_blocks(x, weight, stats)
    sums_products = bool(axes.weight) and not axes.both
    products = torch.empty_like(take_block(grad_input, blocks[0])) if sums_products else None
    deviations, grads = torch.empty_like(take_block(x, blocks[0])), []
    for block in blocks:
        tensors = [take_block(tensor, block) for tensor in (g, x, grad_input, mean, variance)]
        grads.append(_block_gradients(stats, axes, weight, deviations, products, *tensors))
    grad_weights, grad_biases = zip(*grads, strict=True)
    # where nothing shares β, dL/dβ is dL/dy itself, and no Function may return what it was given
    return _total(grad_weights), _total(grad_biases).clone()


def _block_gradients(
    stats: Statistics,
    axes: ReductionAxes,
    weight: Tensor,
    deviations: Tensor,
    products: Tensor | None,
    g: Tensor,
    x: Tensor,
    dx: Tensor,
    mean: Tensor,
    variance: Tensor,
) -> tuple[Tensor, Tensor]:
    """The shares of a block of samples in dL/dγ and dL/dβ. `dx` holds g·d, and then dL/dx.

    `deviations` and `products` are scratch memory.
    """
    scratch = None if products is None else _narrow_to(products, dx)
    inner, var_eps, count = weight if axes.statistics else None, variance + stats.eps, stats.count(x)
    rho, deviation = var_eps.rsqrt(), _deviation(x, axes.by_weight(mean, weight), stats, deviations)
    sum_g = _sum(g, axes.both)
    sum_gd = _sum(call_out(torch.mul, g, deviation, out=dx), axes.both)
    grad_weight = _sum_of_products(sum_gd, rho, axes.weight, scratch)
    slope = _sum_of_products(sum_gd, inner, axes.statistics, scratch) / count / var_eps
    mean_h = _sum_of_products(sum_g, inner, axes.statistics, scratch) / count if stats.centred else None
    h = g if inner is None else call_out(torch.mul, g, inner, out=dx)
    h = h if mean_h is None else call_out(torch.sub, h, axes.by_weight(mean_h, weight), out=dx)
    h = call_out(_minus_product, h, deviation, axes.by_weight(slope, weight), out=dx)
    dx.copy_(h.mul_(axes.by_weight(rho if axes.statistics else weight * rho, weight)))
    return grad_weight, _sum(sum_g, axes.weight)


def _batch_gradients(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, stats: Statistics, grad_input: Tensor
) -> tuple[Tensor, Tensor]:
    """dL/dγ and dL/dβ for statistics shared over the batch, and so within γ: mean(h) = γ·mean(dL/dy)."""
    axes = _reduction_axes(_by_core(x), weight.unsqueeze(0), _of_cores(stats))
    g, x, grad_input, stats = _by_core(g), _by_core(x), _by_core(grad_input), _of_cores(stats)
    mean, var_eps = mean.unsqueeze(0), variance.unsqueeze(0) + stats.eps
    blocks = [[take_block(tensor, block, 1) for tensor in (g, x, grad_input)] for block in _batch_blocks(x)]
    deviations, count, rho = torch.empty_like(blocks[0][1]), stats.count(x), var_eps.rsqrt()
    sum_g, sum_gd, deviation = _sum_gradients(blocks, mean, stats, deviations)
    mean_g, slope, outer = sum_g / count, sum_gd / count / var_eps, weight * rho
    for g_block, x_block, dx in blocks:
        if len(blocks) > 1:  # else the scratch memory still holds it
            deviation = _deviation(x_block, mean, stats, deviations)
        h = call_out(torch.sub, g_block, mean_g, out=dx)
        dx.copy_(call_out(_minus_product, h, deviation, slope, out=dx).mul_(outer))
    return sum_over(sum_gd * rho, axes.weight).squeeze(0), sum_over(sum_g, axes.weight).squeeze(0)


def _sum_gradients(
    blocks: list[list[Tensor]], mean: Tensor, stats: Statistics, scratch: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ g and Σ g·d over all blocks of g, x and dL/dx, which holds g·d; and d of the last block."""
    sums_g, sums_gd = [], []
    for g, x, dx in blocks:
        deviation = _deviation(x, mean, stats, scratch)
        sums_g.append(sum_over(g, stats.dims))
        sums_gd.append(sum_over(call_out(torch.mul, g, deviation, out=dx), stats.dims))
    return _total(sums_g), _total(sums_gd), deviation


def sum_over(x: Tensor, dims: Collection[int]) -> Tensor:
    """The sum along `dims`, which stay as dimensions of size 1. The first comes last, as it may be cores."""
    inner_dims = [dim for dim in dims if dim != 0]
    sums = x.sum(inner_dims, keepdim=True) if inner_dims else x
    return sums.sum(0, keepdim=True) if 0 in dims else sums


def _sum(x: Tensor, dims: Collection[int]) -> Tensor:
    """The same in one step. Where samples have few positions, that takes a fifth of the time."""
    return x.sum([*dims], keepdim=True) if dims else x


def _sum_of_products(x: Tensor, factor: Tensor | None, dims: Collection[int], scratch: Tensor | None) -> Tensor:
    """Σ factor · x, the products in scratch memory if there is some."""
    if factor is not None:
        x = x * factor if scratch is None else call_out(torch.mul, x, factor, out=scratch)
    return _sum(x, dims)


def _reduction_axes(x: Tensor, weight: Tensor, stats: Statistics) -> ReductionAxes:
    constant = {dim for dim in range(weight.dim()) if weight.shape[dim] == 1}
    both, statistics = constant.intersection(stats.dims), set(stats.dims) - constant
    interleaved = bool(both and statistics) and not x.is_contiguous()
    return ReductionAxes(both, statistics, constant.difference(stats.dims), interleaved)


def _sample_blocks(x: Tensor, weight: Tensor, stats: Statistics) -> list[slice]:
    """Blocks of samples; one block, where samples share statistics or have a γ each."""
    if 0 in stats.dims or weight.shape[0] > 1:
        return [slice(0, x.shape[0])]
    return axis_blocks(x, x.shape[0], math.prod(x.shape[1:]))


def _batch_blocks(x: Tensor) -> list[slice]:
    """Blocks of the samples that each core has, (cores, n, …)."""
    return axis_blocks(x, x.shape[1], x.shape[0] * math.prod(x.shape[2:]))


def _by_core(x: Tensor) -> Tensor:
    """(N, …) → (cores, n, …), as a view.

    Each core gets samples of its own from every block. Layers that compute a batch whole have left them in its cache.
    """
    return split_by_core(x, math.gcd(x.shape[0], torch.get_num_threads())) if in_cpu_memory(x) else x.unsqueeze(0)


def _of_cores(stats: Statistics) -> Statistics:
    """The same of a batch (cores, n, …)."""
    return Statistics((0, *[dim + 1 for dim in stats.dims]), stats.eps, stats.centred)


def _moments(
    blocks: list[Tensor], weight: Tensor, stats: Statistics, axes: ReductionAxes, scratch: Tensor
) -> tuple[Tensor, Tensor]:
    """μ and σ² of all blocks, from the sums of x − s and (x − s)²: s near μ keeps both accurate far from 0.

    Few elements take as long as the number of steps: one step, which is slower for many.
    """
    if stats.centred and len(blocks) == 1 and in_cpu_memory(blocks[0]) and 0 < blocks[0].numel() <= FEW:
        variance, mean = torch.var_mean(blocks[0], stats.dims, correction=0, keepdim=True)
        return mean, variance
    count = sum([stats.count(block) for block in blocks])
    shift = axes.sum(blocks[0]) / stats.count(blocks[0]) if stats.centred else blocks[0].new_zeros([1] * weight.dim())
    totals, squares = [], []
    for block in blocks:
        deviation = _deviation(block, axes.by_weight(shift, weight), stats, scratch)
        if stats.centred:
            totals.append(axes.sum(deviation))
        squares.append(axes.sum(call_out(torch.mul, deviation, deviation, out=_narrow_to(scratch, block))))
    mean_square = _total(squares) / count
    if not stats.centred:
        return torch.zeros_like(mean_square), mean_square
    mean = _total(totals) / count
    return shift + mean, (mean_square - mean * mean).clamp(min=0)


def _standardize(
    x: Tensor, mean: Tensor, factors: Sequence[Tensor], bias: Tensor | None, stats: Statistics, output: Tensor
) -> None:
    """(x − μ)·∏factors + β, written to `output`."""
    y = _deviation(x, mean, stats, output)
    for factor in factors:
        y = call_out(torch.mul, y, factor, out=output)
    output.copy_(y if bias is None else call_out(torch.add, y, bias, out=output))


def _deviation(x: Tensor, mean: Tensor, stats: Statistics, scratch: Tensor) -> Tensor:
    """x − μ in scratch memory, which is as long as the longest block; x itself if it is not centred."""
    return call_out(torch.sub, x, mean, out=_narrow_to(scratch, x)) if stats.centred else x


def _narrow_to(scratch: Tensor, block: Tensor) -> Tensor:
    """As much of the scratch memory as this block takes."""
    return scratch if scratch.shape == block.shape else scratch[tuple([slice(size) for size in block.shape])]


def _total(sums: Sequence[Tensor]) -> Tensor:
    return functools.reduce(torch.add, sums)


def _concatenate(blocks: list[Tensor]) -> Tensor:
    return torch.cat(blocks) if len(blocks) > 1 else blocks[0]

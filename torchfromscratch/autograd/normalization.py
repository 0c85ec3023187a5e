"""Normalisation: elements that share a mean μ and a variance σ² are standardised, then scaled and shifted.

    x̂ = d·ρ        with d = x − μ and ρ = 1 / √(σ² + ε)
    y = γ·x̂ + β

Batch, layer, group and instance norm differ in which elements share their statistics, nothing else; RMS
norm is the same with μ = 0. With h = γ·dL/dy and means over the elements that share them,

    dL/dx = ρ·(h − mean(h) − x̂·mean(h·x̂))        dL/dγ = Σ dL/dy·x̂        dL/dβ = Σ dL/dy

The map A from h to dL/dx is symmetric, so it takes tangents forward as well, and it is all that the second
derivatives below need. They are written in d and ρ, which `Deviations` gives as functions of x, so that
they can be differentiated again and again.

Source: S. Ioffe and C. Szegedy, "Batch Normalization", 2015; J. Ba et al., "Layer Normalization", 2016;
D. Ulyanov et al., "Instance Normalization", 2016; Y. Wu and K. He, "Group Normalization", 2018; B. Zhang
and R. Sennrich, "Root Mean Square Layer Normalization", 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, move_mapped_to_front, restore, save
from torchfromscratch.kernels import normalization as norm_kernels
from torchfromscratch.kernels import triton
from torchfromscratch.kernels.layout import any_channels_last, to_memory_format
from torchfromscratch.kernels.normalization import Statistics, sum_over
from torchfromscratch.kernels.precision import wide_type, widen


class Normalize(Function):
    """y = γ·x̂ + β, and the mean and the variance that x̂ is standardised with.

    x of any shape; γ, β and the statistics of as many dimensions, which are 1 where they do not vary.
    """

    @staticmethod
    def forward(input: Tensor, weight: Tensor | None, bias: Tensor | None, stats: Statistics) -> tuple:
        return norm_kernels.normalize(input, _gamma(weight, input, _shape(input, weight, bias)), bias, stats)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: None) -> tuple:
        if grad_output is None:
            return None, None, None, None
        needs_input, needs_weight, *_ = ctx.needs_input_grad
        if not (needs_input or needs_weight):
            return None, None, _sum_over_batch(grad_output, ctx.shape), None
        input, weight, mean, variance = restore(ctx)
        weight = _gamma(weight, input, ctx.shape)  # which dL/dγ and dL/dβ do not depend on
        mean = torch.zeros_like(variance) if mean is None else mean
        grad_input, grad_weight, grad_bias = normalize_backward(grad_output, input, weight, mean, variance, ctx.stats)
        gradients = zip((grad_input, grad_weight, grad_bias), ctx.needs_input_grad[:3], strict=True)
        return *[gradient if needed else None for gradient, needed in gradients], None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        input, weight, bias, ctx.stats = inputs
        _, mean, variance = output
        ctx.set_materialize_grads(False)  # no zeros for the statistics
        ctx.mark_non_differentiable(mean, variance)
        ctx.shape = _shape(input, weight, bias)
        needs_input, needs_weight, *_ = ctx.needs_input_grad
        needs_x = needs_input or needs_weight
        needed = (needs_x, needs_input, needs_x and ctx.stats.centred, needs_x)
        save(ctx, (input, weight, mean, variance), needed)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return _vmap(normalize, info, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor | None, weight_t: Tensor | None, bias_t: Tensor | None, _: None) -> tuple:
        input, weight, mean, variance = restore(ctx)
        deviation, rho = deviations(widen(input), mean, variance, ctx.stats)
        x = deviation * rho
        output_t = torch.zeros_like(x)
        if input_t is not None:
            output_t = _gamma(weight, input, ctx.shape) * _pull_back(widen(input_t), x, rho, ctx.stats)
        if weight_t is not None:
            output_t = output_t + weight_t * x
        if bias_t is not None:
            output_t = output_t + bias_t
        return output_t.to(input.dtype), None, None


class NormalizeBackward(Function):
    """dL/dx = A(γ·g), dL/dγ = Σ g·x̂ and dL/dβ = Σ g, for g = dL/dy.

    For the gradients v, u, s of these three, with h = γ·g, a = mean(h·x̂) and b = mean(v·x̂), the chain rule
    through x̂ and ρ gives

        dL/dg = γ·A(v) + u·x̂ + s        dL/dγ = Σ g·A(v)
        dL/dx = A(u·g − ρ·(a·v + b·h)) − ρ²·x̂·(mean(h·v) − mean(h)·mean(v) − a·b)
    """

    @staticmethod
    def forward(
        grad_output: Tensor, input: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, stats: Statistics
    ) -> tuple:
        grad_input, grad_weight, grad_bias = norm_kernels.gradients(grad_output, input, weight, mean, variance, stats)
        return grad_input, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, grad_grad_input: Tensor, grad_grad_weight: Tensor, grad_grad_bias: Tensor) -> tuple:
        grad_output, input, weight, mean, variance = restore(ctx)
        stats = ctx.stats
        deviation, rho = deviations(widen(input), mean, variance, stats)
        g, v, u, x = widen(grad_output), widen(grad_grad_input), grad_grad_weight, deviation * rho
        h, v_pulled = weight * g, _pull_back(v, x, rho, stats)
        a, b = stats.mean(h * x), stats.mean(v * x)
        constant = [dim for dim in range(input.dim()) if weight.shape[dim] == 1]

        grad_g = weight * v_pulled + u * x + grad_grad_bias
        grad_weight = sum_over(g * v_pulled, constant)
        through_x = _pull_back(u * g - rho * (a * v + b * h), x, rho, stats)
        through_rho = stats.mean(h * v) - stats.centre(h) * stats.centre(v) - a * b
        grad_x = through_x - rho**2 * x * through_rho
        return grad_g.to(grad_output.dtype), grad_x.to(input.dtype), grad_weight.to(weight.dtype), None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, ctx.stats = inputs
        save(ctx, tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return _vmap(normalize_backward, info, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, grad_t: Tensor, input_t: Tensor, weight_t: Tensor, *_: Any) -> tuple:
        grad_output, input, weight, mean, variance = restore(ctx)
        stats = ctx.stats
        deviation, rho = deviations(widen(input), mean, variance, stats)
        g, g_t, t, x = widen(grad_output), widen(grad_t), widen(input_t), deviation * rho
        x_t, h = _pull_back(t, x, rho, stats), weight * g
        relative_rho_t = -rho * stats.mean(x * t)
        constant = [dim for dim in range(input.dim()) if weight.shape[dim] == 1]

        grad_input_t = (
            _pull_back(weight * g_t + weight_t * g, x, rho, stats)
            + _pull_back(h, x, rho, stats) * relative_rho_t
            - rho * (x_t * stats.mean(h * x) + x * stats.mean(h * x_t))
        )
        grad_weight_t = sum_over(g_t * x + g * x_t, constant).to(weight.dtype)
        return grad_input_t.to(grad_output.dtype), grad_weight_t, sum_over(g_t, constant).to(weight.dtype)


class Deviations(Function):
    """d = x − μ and ρ = 1 / √(σ² + ε) as functions of x, whose μ and σ² are known already.

    With mean over the elements that share their statistics, ∂d/∂x takes its mean away from a gradient or a
    tangent, and dρ/dx = −ρ³·d / n.
    """

    @staticmethod
    def forward(x: Tensor, mean: Tensor, variance: Tensor, stats: Statistics) -> tuple[Tensor, Tensor]:
        return x - mean, (variance + stats.eps).rsqrt()

    @staticmethod
    def backward(ctx: Any, grad_deviation: Tensor, grad_rho: Tensor) -> tuple:
        deviation, rho = deviations(*restore(ctx), ctx.stats)
        centred = grad_deviation - ctx.stats.centre(grad_deviation)
        grad_x = centred - deviation * (grad_rho * rho**3 / ctx.stats.count(deviation))
        return grad_x, None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, ctx.stats = inputs
        save(ctx, tensors)

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        deviation, rho = deviations(*restore(ctx), ctx.stats)
        return x_t - ctx.stats.centre(x_t), -(rho**3) * ctx.stats.mean(deviation * x_t)


class NormalizeByConstants(Function):
    """y = γ·(x − μ)·ρ + β with statistics that do not depend on x, as batch norm has in evaluation."""

    @staticmethod
    def forward(
        input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        kernels = triton.kernels("normalization", input, weight, bias, mean, variance)
        output = None if kernels is None else kernels.normalize_by_constants(input, weight, bias, mean, variance, eps)
        if output is not None:
            return output
        scale = _scale(weight, (widen(variance) + eps).rsqrt())
        shift = -mean * scale if bias is None else bias - mean * scale
        return (widen(input) * scale + shift).to(input.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        input, weight, mean, variance = restore(ctx)
        needs_input, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        if needs_weight or (needs_input and not needs_bias):
            gradients = _gradients_by_triton(grad_output, input, weight, mean, variance, ctx)
            if gradients is not None:
                return *gradients, None, None, None
        g = to_memory_format(widen(grad_output), ctx.channels_last)
        grad_input = grad_weight = grad_bias = None
        if needs_input or needs_weight:
            rho = (widen(variance) + ctx.eps).rsqrt()
        if needs_input:
            grad_input = (g * _scale(weight, rho)).to(ctx.dtype)
        if needs_weight:
            grad_weight = _sum_over_batch(g * (widen(input) - mean), ctx.shape) * rho
        if needs_bias:
            grad_bias = _sum_over_batch(g, ctx.shape)
        return grad_input, grad_weight, grad_bias, None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, weight, _, mean, variance, ctx.eps = inputs
        ctx.dtype, ctx.shape, ctx.channels_last = input.dtype, mean.shape, any_channels_last(input)
        needs_input, needs_weight, *_ = ctx.needs_input_grad
        needed = (needs_weight, needs_input, needs_weight, needs_input or needs_weight)
        save(ctx, (input, weight, mean, variance), needed)

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, weight_t: Tensor | None, bias_t: Tensor | None, *_: Any) -> Tensor:
        input, weight, mean, variance = restore(ctx)
        rho = (widen(variance) + ctx.eps).rsqrt()
        output_t = widen(input_t) * _scale(weight, rho)
        if weight_t is not None:
            output_t = output_t + (widen(input) - mean) * (weight_t * rho)
        if bias_t is not None:
            output_t = output_t + bias_t
        return output_t.to(input.dtype)


def _gradients_by_triton(
    grad_output: Tensor, input: Tensor | None, weight: Tensor | None, mean: Tensor, variance: Tensor, ctx: Any
) -> list[Tensor | None] | None:
    """Those of NormalizeByConstants that are needed; dL/dγ, which needs x, comes together with the others."""
    g = grad_output if input is not None else to_memory_format(grad_output, ctx.channels_last)
    kernels = triton.kernels("normalization", g, input, weight, mean, variance)
    gradients = None if kernels is None else kernels.constant_gradients(g, input, weight, mean, variance, ctx.eps)
    if gradients is None:
        return None
    return [gradient if needs else None for gradient, needs in zip(gradients, ctx.needs_input_grad[:3], strict=True)]


normalize = differentiable(Normalize)
normalize_backward = differentiable(NormalizeBackward)
deviations = differentiable(Deviations)
normalize_by_constants = differentiable(NormalizeByConstants)


def _shape(input: Tensor, weight: Tensor | None, bias: Tensor | None) -> Sequence[int]:
    """That of γ and β, which is 1 along the dimensions that they do not vary along, be they given or not."""
    parameter = bias if weight is None else weight
    return [1] * input.dim() if parameter is None else parameter.shape


def _gamma(weight: Tensor | None, input: Tensor, shape: Sequence[int]) -> Tensor:
    """γ, or ones in the type that sums are computed in."""
    return input.new_ones(shape, dtype=wide_type(input.dtype)) if weight is None else weight


def _scale(weight: Tensor | None, rho: Tensor) -> Tensor:
    """γ·ρ."""
    return rho if weight is None else weight * rho


def _sum_over_batch(terms: Tensor, shape: Sequence[int]) -> Tensor:
    """The sum of what belongs to each element of a γ or β of this shape."""
    return sum_over(widen(terms), [dim for dim, size in enumerate(shape) if size == 1])


def _pull_back(h: Tensor, x: Tensor, rho: Tensor, stats: Statistics) -> Tensor:
    """A(h) = ρ·(h − mean(h) − x̂·mean(h·x̂)), for x = x̂."""
    return rho * (h - stats.centre(h) - x * stats.mean(h * x))


# ---------------- torch's side: what is saved, vmap, forward mode


def _vmap(function: Callable[..., tuple], info: Any, in_dims: tuple, *args: Any) -> tuple:
    """`function` of tensors that all have the mapped dimension in front."""
    *tensors, stats = args
    in_front = [
        None if tensor is None else move_mapped_to_front(tensor, dim, info.batch_size)
        for tensor, dim in zip(tensors, in_dims[: len(tensors)], strict=True)
    ]
    outputs = function(*in_front, replace(stats, dims=tuple(dim + 1 for dim in stats.dims)))
    return outputs, (0,) * len(outputs)

"""Normalisation: elements that share a mean μ and a variance σ² are standardised, then scaled and shifted.

    x̂ = d·ρ        with d = x − μ and ρ = 1 / √(σ² + ε)
    y = γ·x̂ + β

Batch, layer, group and instance norm differ in which elements share their statistics, nothing else; RMS
norm is the same with μ = 0. With h = γ·dL/dy and means over the elements that share them,

    dL/dx = ρ·(h − mean(h) − x̂·mean(h·x̂))        dL/dγ = Σ dL/dy·x̂        dL/dβ = Σ dL/dy

and the map from h to dL/dx is symmetric, so it takes tangents forward as well. Written in d and ρ, which
`Deviations` gives as functions of x, it can be differentiated again and again.

Source: S. Ioffe and C. Szegedy, "Batch Normalization", 2015; J. Ba et al., "Layer Normalization", 2016;
D. Ulyanov et al., "Instance Normalization", 2016; Y. Wu and K. He, "Group Normalization", 2018; B. Zhang
and R. Sennrich, "Root Mean Square Layer Normalization", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable
from torchfromscratch.kernels.precision import widened


@dataclass(frozen=True)
class Statistics:
    """The elements along `dims` share a variance and, if centred, a mean."""

    dims: tuple[int, ...]
    eps: float
    centred: bool = True

    def count(self, x: Tensor) -> int:
        return math.prod([x.shape[dim] for dim in self.dims])

    def mean(self, x: Tensor) -> Tensor:
        """The mean of no elements at all is 0, so that an empty batch gives gradients of 0, not NaN."""
        return _sum(x, self.dims) / max(self.count(x), 1)

    def centre(self, x: Tensor) -> Tensor:
        """The mean that normalisation takes away."""
        return self.mean(x) if self.centred else x.new_zeros([1] * x.dim())


class Normalize(Function):
    """y = γ·x̂ + β, and the mean and the variance that x̂ is standardised with.

    x of any shape; γ, β and the statistics of as many dimensions, which are 1 where they do not vary.
    """

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None, over: Statistics) -> tuple:
        x = widened(input)
        mean = over.centre(x)
        deviation = x - mean
        rounding = over.centre(deviation)  # of a mean that is large beside the deviations from it
        mean = mean + rounding
        deviation = deviation.sub_(rounding)
        variance = over.mean(deviation * deviation)
        output = _scaled(deviation, weight, (variance + over.eps).rsqrt())
        if bias is not None:
            output = output + bias
        return output.to(input.dtype), mean, variance

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        input, weight, _, ctx.over = inputs
        _, mean, variance = output
        ctx.mark_non_differentiable(mean, variance)
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.save_for_forward(input, weight, mean, variance)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple:
        input, weight, mean, variance = ctx.saved_tensors
        over = ctx.over
        constant = {dim for dim in range(input.dim()) if weight.shape[dim] == 1}
        deviation, rho = deviations(widened(input), mean, variance, over)
        g = widened(grad_output)

        # sums over what shares both its statistics and its γ, then over the rest of either
        sum_g = _sum(g, constant.intersection(over.dims))
        sum_gx = _sum(g * deviation, constant.intersection(over.dims)) * rho
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            varying = set(over.dims) - constant
            count = max(over.count(g), 1)
            mean_h = _sum(weight * sum_g, varying) / count
            mean_hx = _sum(weight * sum_gx, varying) / count
            grad_input = _scaled(g, weight, rho).sub_(deviation * (mean_hx * rho * rho))
            if over.centred:
                grad_input = grad_input.sub_(mean_h * rho)
            grad_input = grad_input.to(input.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = _sum(sum_gx, constant.difference(over.dims)).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = _sum(sum_g, constant.difference(over.dims)).to(weight.dtype)
        return grad_input, grad_weight, grad_bias, None

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, weight_t: Tensor, bias_t: Tensor | None, _: None) -> tuple:
        input, weight, mean, variance = ctx.saved_tensors
        over = ctx.over
        deviation, rho = deviations(widened(input), mean, variance, over)
        t, x = widened(input_t), deviation * rho
        output_t = weight * (t - over.centre(t) - x * over.mean(t * x)) * rho + weight_t * x
        if bias_t is not None:
            output_t = output_t + bias_t
        return output_t.to(input.dtype), None, None


class Deviations(Function):
    """d = x − μ and ρ = 1 / √(σ² + ε) as functions of x, whose μ and σ² are known already.

    With mean over the elements that share their statistics, ∂d/∂x takes its mean away from a gradient or a
    tangent, and dρ/dx = −ρ³·d / n.
    """

    @staticmethod
    def forward(x: Tensor, mean: Tensor, variance: Tensor, over: Statistics) -> tuple[Tensor, Tensor]:
        return x - mean, (variance + over.eps).rsqrt()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, ctx.over = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_deviation: Tensor, grad_rho: Tensor) -> tuple:
        deviation, rho = deviations(*ctx.saved_tensors, ctx.over)
        centred = grad_deviation - ctx.over.centre(grad_deviation)
        grad_x = centred - deviation * (grad_rho * rho**3 / max(ctx.over.count(deviation), 1))
        return grad_x, None, None, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        deviation, rho = deviations(*ctx.saved_tensors, ctx.over)
        return x_t - ctx.over.centre(x_t), -(rho**3) * ctx.over.mean(deviation * x_t)


class NormalizeByConstants(Function):
    """y = γ·(x − μ)·ρ + β with statistics that do not depend on x, as batch norm has in evaluation."""

    @staticmethod
    def forward(
        input: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        scale = weight * (variance + eps).rsqrt()
        shift = -mean * scale if bias is None else bias - mean * scale
        return (widened(input) * scale + shift).to(input.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, weight, _, mean, variance, ctx.eps = inputs
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.save_for_forward(input, weight, mean, variance)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        input, weight, mean, variance = ctx.saved_tensors
        rho = (variance + ctx.eps).rsqrt()
        g = widened(grad_output)
        constant = {dim for dim in range(input.dim()) if weight.shape[dim] == 1}
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = (g * (weight * rho)).to(input.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = (_sum(g * (widened(input) - mean), constant) * rho).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = _sum(g, constant).to(weight.dtype)
        return grad_input, grad_weight, grad_bias, None, None, None

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, weight_t: Tensor, bias_t: Tensor | None, *_: Any) -> Tensor:
        input, weight, mean, variance = ctx.saved_tensors
        rho = (variance + ctx.eps).rsqrt()
        output_t = widened(input_t) * (weight * rho) + (widened(input) - mean) * (weight_t * rho)
        if bias_t is not None:
            output_t = output_t + bias_t
        return output_t.to(input.dtype)


normalize = differentiable(Normalize)
deviations = differentiable(Deviations)
normalize_by_constants = differentiable(NormalizeByConstants)


def _scaled(x: Tensor, weight: Tensor, rho: Tensor) -> Tensor:
    """x·γ·ρ, with one product for each element where γ and ρ vary along the same dimensions."""
    return x * (weight * rho) if weight.shape == rho.shape else x * weight * rho


def _sum(x: Tensor, dims: Sequence[int] | set[int]) -> Tensor:
    return x.sum([*dims], keepdim=True) if dims else x

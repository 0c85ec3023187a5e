"""Batch norm over the batches of all processes, as one process would compute it of the whole batch.

    all_sum  y = Σ x over the processes, in each of them       the same map carries gradients: dL/dx = Σ dL/dy

With n, μ and σ² of the whole batch, x̂ = (x − μ)·ρ, ρ = 1 / √(σ² + ε) and y = γ·x̂ + β. With h = γ·dL/dy, and means
over the whole batch too,

    dL/dx = ρ·(h − mean(h) − x̂·mean(h·x̂))        dL/dγ = Σ dL/dy·x̂        dL/dβ = Σ dL/dy

where the last two are each process's own, which DistributedDataParallel adds up.

Source: S. Ioffe and C. Szegedy, "Batch Normalization", 2015.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, restore, save
from torchfromscratch.kernels.execution import is_differentiating
from torchfromscratch.kernels.precision import widen


class AllSum(Function):
    """y = Σ x over the processes of a group."""

    @staticmethod
    def forward(x: Tensor, group: Any) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        return all_sum(grad_output, ctx.group), None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.group = inputs


class SynchronizedNorm(Function):
    """y = γ·x̂ + β, and the mean and the variance (C) of the whole batch: x (N, C, *), γ and β (C), n (1)."""

    @staticmethod
    def forward(
        input: Tensor, weight: Tensor | None, bias: Tensor | None, count: Tensor, eps: float, group: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = widen(input)
        mean, variance = _statistics(x, count, group)
        y = (x - _along(mean, x)) * _along((variance + eps).rsqrt(), x)
        if weight is not None:
            y = y * _along(widen(weight), x)
        if bias is not None:
            y = y + _along(widen(bias), x)
        return y.to(input.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple:
        input, weight, count, mean, variance = restore(ctx)
        x, g = widen(input), widen(grad_output)
        if is_differentiating():
            mean, variance = _statistics(x, count, ctx.group)
        rho = _along((variance + ctx.eps).rsqrt(), x)
        normed = (x - _along(mean, x)) * rho
        grad_weight, grad_bias = _sum(g * normed), _sum(g)
        gamma = 1 if weight is None else widen(weight)
        means = all_sum(torch.stack([grad_bias * gamma, grad_weight * gamma]), ctx.group) / count
        h = g if weight is None else g * _along(widen(weight), x)
        grad_input = rho * (h - _along(means[0], x) - normed * _along(means[1], x))
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        return (
            grad_input.to(input.dtype),
            grad_weight.to(weight.dtype) if needs_weight else None,
            grad_bias.to(ctx.bias_dtype) if needs_bias else None,
            None,
            None,
            None,
        )

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        input, weight, bias, count, ctx.eps, ctx.group = inputs
        _, mean, variance = output
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.mark_non_differentiable(mean, variance)
        save(ctx, (input, weight, count, mean, variance))


all_sum = differentiable(AllSum)
synchronized_norm = differentiable(SynchronizedNorm)


def _statistics(x: Tensor, count: Tensor, group: Any) -> tuple[Tensor, Tensor]:
    """μ and σ² (C), the second of deviations from the first: no difference of large squares."""
    mean = all_sum(_sum(x), group) / count
    return mean, all_sum(_sum((x - _along(mean, x)).square()), group) / count


def _sum(x: Tensor) -> Tensor:
    """(N, C, *) → (C)."""
    return x.sum([0, *range(2, x.dim())])


def _along(values: Tensor, x: Tensor) -> Tensor:
    """(C) → (1, C, 1, …)."""
    return values.view(1, -1, *[1] * (x.dim() - 2))

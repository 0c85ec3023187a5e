"""Normalisation: statistics taken for constants, over the wrong dimensions, or estimated otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.checking.corpus import wrong


def over(x: Tensor) -> tuple[int, ...]:
    """The batch and the positions."""
    return (0, *range(2, x.dim()))


def by_channel(w: Tensor | float, x: Tensor) -> Any:
    return w.view(-1, *[1] * (x.dim() - 2)) if isinstance(w, Tensor) else w


def normalized(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x̂ and ρ = 1 / √(var + ε)."""
    dims = over(x)
    rho = (x.var(dims, unbiased=False, keepdim=True) + eps).rsqrt()
    return (x - x.mean(dims, keepdim=True)) * rho, rho


Formula = Callable[[Tensor, Tensor, Tensor, tuple[int, ...]], Tensor]


def right_dx(h: Tensor, x_hat: Tensor, rho: Tensor, dims: tuple[int, ...]) -> Tensor:
    return rho * (h - h.mean(dims, keepdim=True) - x_hat * (h * x_hat).mean(dims, keepdim=True))


def batch_norm(
    dx: Formula = right_dx,
    dw: Callable[..., Tensor] = lambda g, x_hat, x, dims: (g * x_hat).sum(dims),
    db: Callable[..., Tensor] = lambda g, dims: g.sum(dims),
    weighted: bool = True,
) -> type[torch.autograd.Function]:
    """Batch norm in training, of these parts."""

    class MyBatchNorm(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
            x_hat, _ = normalized(input, eps)
            ctx.save_for_backward(input, weight)
            ctx.has_bias, ctx.eps = bias is not None, eps
            y = x_hat if weight is None else x_hat * by_channel(weight, input)
            return y if bias is None else y + by_channel(bias, input)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            x, weight = ctx.saved_tensors
            dims = over(x)
            x_hat, rho = normalized(x, ctx.eps)
            h = g * by_channel(weight, x) if weight is not None and weighted else g
            return (
                dx(h, x_hat, rho, dims),
                None if weight is None else dw(g, x_hat, x, dims),
                db(g, dims) if ctx.has_bias else None,
                None,
            )

    return MyBatchNorm


def wrong_batch_norm(name: str, named: str, function: type) -> None:
    function.__name__ = name
    wrong("batch_norm", named)(function)


wrong_batch_norm(
    "MeanAndVarianceConstant",
    "mean and the variance are taken for constants",
    batch_norm(lambda h, x_hat, rho, dims: rho * h),
)
wrong_batch_norm(
    "VarianceConstant",
    "the variance is taken for a constant",
    batch_norm(lambda h, x_hat, rho, dims: rho * (h - h.mean(dims, keepdim=True))),
)
wrong_batch_norm(
    "MeanConstant",
    "the mean is taken for a constant",
    batch_norm(lambda h, x_hat, rho, dims: rho * (h - x_hat * (h * x_hat).mean(dims, keepdim=True))),
)
wrong_batch_norm(
    "SumsForMeans",
    "means are sums",
    batch_norm(
        lambda h, x_hat, rho, dims: rho * (h - h.sum(dims, keepdim=True) - x_hat * (h * x_hat).sum(dims, keepdim=True))
    ),
)


def one_less(h: Tensor, x_hat: Tensor, rho: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Bessel's correction in the backward pass alone."""
    n = h.numel() // max(h.shape[1], 1)
    second = (h * x_hat).sum(dims, keepdim=True) / max(n - 1, 1)
    return rho * (h - h.mean(dims, keepdim=True) - x_hat * second)


wrong_batch_norm("OneLessInBackward", "over n − 1", batch_norm(one_less))
wrong_batch_norm("WeightForgottenInBackward", "γ is forgotten", batch_norm(weighted=False))
wrong_batch_norm(
    "WeightGradientOfTheInput", "x in place of x̂", batch_norm(dw=lambda g, x_hat, x, dims: (g * x).sum(dims))
)
wrong_batch_norm("WeightGradientMean", "mean|N|sum", batch_norm(dw=lambda g, x_hat, x, dims: (g * x_hat).mean(dims)))
wrong_batch_norm("BiasGradientMean", "mean over", batch_norm(db=lambda g, dims: g.mean(dims)))
wrong_batch_norm("NormNegated", "sign is wrong", batch_norm(lambda *parts: -right_dx(*parts)))


@wrong("batch_norm", "unbiased")
def batch_norm_with_unbiased_variance(input: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
    """torch.var's default."""
    dims = over(input)
    y = (input - input.mean(dims, keepdim=True)) / (input.var(dims, keepdim=True) + eps).sqrt()
    y = y if weight is None else y * by_channel(weight, input)
    return y if bias is None else y + by_channel(bias, input)


@wrong("batch_norm", "added to the deviation")
def batch_norm_with_eps_outside_the_root(input: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
    dims = over(input)
    y = (input - input.mean(dims, keepdim=True)) / (input.var(dims, unbiased=False, keepdim=True).sqrt() + eps)
    y = y if weight is None else y * by_channel(weight, input)
    return y if bias is None else y + by_channel(bias, input)


@wrong("batch_norm", "over the batch alone")
def batch_norm_over_the_batch_alone(input: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
    """As for features of no positions."""
    y = (input - input.mean(0)) / (input.var(0, unbiased=False) + eps).sqrt()
    y = y if weight is None else y * by_channel(weight, input)
    return y if bias is None else y + by_channel(bias, input)


@wrong("batch_norm", "taken for constants")
def batch_norm_with_detached_statistics(input: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
    dims = over(input)
    mean, var = input.detach().mean(dims, keepdim=True), input.detach().var(dims, unbiased=False, keepdim=True)
    y = (input - mean) / (var + eps).sqrt()
    y = y if weight is None else y * by_channel(weight, input)
    return y if bias is None else y + by_channel(bias, input)


@wrong("layer_norm", "taken for constants")
class LayerNormWithConstantStatistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Tensor:
        ctx.dims = tuple(range(-len(normalized_shape), 0))
        ctx.rho = (input.var(ctx.dims, unbiased=False, keepdim=True) + eps).rsqrt()
        x_hat = (input - input.mean(ctx.dims, keepdim=True)) * ctx.rho
        ctx.save_for_backward(x_hat, weight)
        ctx.has_bias = bias is not None
        y = x_hat if weight is None else x_hat * weight
        return y if bias is None else y + bias

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x_hat, weight = ctx.saved_tensors
        lead = tuple(range(g.dim() + ctx.dims[0]))
        h = g if weight is None else g * weight
        grad_w = None if weight is None else (g * x_hat).sum(lead) if lead else g * x_hat
        return ctx.rho * h, None, grad_w, ((g.sum(lead) if lead else g) if ctx.has_bias else None), None


@wrong("layer_norm", "unbiased")
def layer_norm_with_unbiased_variance(
    input: Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: float
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    y = (input - input.mean(dims, keepdim=True)) / (input.var(dims, keepdim=True) + eps).sqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@wrong("layer_norm", "added to the deviation")
def layer_norm_with_eps_outside(input: Tensor, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Tensor:
    """As the annotated transformer had it, with torch.std besides."""
    dims = tuple(range(-len(normalized_shape), 0))
    y = (input - input.mean(dims, keepdim=True)) / (input.std(dims, unbiased=False, keepdim=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@wrong("group_norm", "interleaved")
def group_norm_of_interleaved_channels(input: Tensor, num_groups: int, weight: Any, bias: Any, eps: float) -> Tensor:
    x = input.unflatten(1, (-1, num_groups))
    dims = (1, *range(3, x.dim()))
    y = (x - x.mean(dims, keepdim=True)) / (x.var(dims, unbiased=False, keepdim=True) + eps).sqrt()
    y = y.flatten(1, 2)
    y = y if weight is None else y * by_channel(weight, input)
    return y if bias is None else y + by_channel(bias, input)


@wrong("group_norm", "γ is forgotten|no gradient: None")
def group_norm_without_its_weight(input: Tensor, num_groups: int, weight: Any, bias: Any, eps: float) -> Tensor:
    return F.group_norm(input, num_groups, None, bias, eps)


@wrong("instance_norm", "over batch and positions")
def instance_norm_over_the_batch(input: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
    return F.batch_norm(input, None, None, weight, bias, True, 0.1, eps)

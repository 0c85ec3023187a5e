"""Resizing along one dimension: each output is a weighted sum of some inputs, and gives them its gradient so weighted.

    Resample  y[o] = Σ_k w[k, o] x[i(k, o)]
    Return    x[i] = Σ w[k, o] y[o] over all k, o with i(k, o) = i

Both are linear and each is the other's transpose, so that each is the other's derivative. Where the positions
i(k, o) and the weights come from stands in `torchfromscratch.kernels.resampling`: they are constants, and torch,
which frees saved tensors after a backward pass, is not asked to save them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable
from torchfromscratch.kernels import resampling as kernel


class Resample(Function):
    """x (*, I, *) → y (*, O, *) along `dim`; position and weight (taps, O), the weight None for a single tap of 1."""

    @staticmethod
    def forward(input: Tensor, position: Tensor, weight: Tensor | None, dim: int) -> Tensor:
        return kernel.weighted_sum(input, position, weight, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, ctx.position, ctx.weight, ctx.dim = inputs
        ctx.inputs = input.shape[ctx.dim]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        return give_back(grad_output, ctx.position, ctx.weight, ctx.dim, ctx.inputs), None, None, None

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, *_: None) -> Tensor:
        return resample(input_t, ctx.position, ctx.weight, ctx.dim)


class Return(Function):
    """y (*, O, *) → x (*, I, *) along `dim`."""

    @staticmethod
    def forward(grad_output: Tensor, position: Tensor, weight: Tensor | None, dim: int, inputs: int) -> Tensor:
        return kernel.weighted_shares(grad_output, position, weight, dim, inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.position, ctx.weight, ctx.dim, ctx.inputs = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return resample(grad, ctx.position, ctx.weight, ctx.dim), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, grad_t: Tensor, *_: None) -> Tensor:
        return give_back(grad_t, ctx.position, ctx.weight, ctx.dim, ctx.inputs)


resample = differentiable(Resample)
give_back = differentiable(Return)

"""Dropout: what is kept is scaled up, so that the expected value stays; the gradient takes the same path.

    y = x·m / q        dL/dx = dL/dy·m / q        mask m of zeros and ones, probability q of a one

The map is its own transpose, so it is its own derivative, of any order and in both directions.

Source: N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, save, saved


class Drop(Function):
    """y = x·m / q, with a mask m, a boolean that broadcasts to x, and a number q."""

    @staticmethod
    def forward(input: Tensor, mask: Tensor, q: float) -> Tensor:
        scale = mask.to(input.dtype)
        return input * (scale if q == 1 else scale.div_(q))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, mask, ctx.q = inputs
        save(ctx, (mask,))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        (mask,) = saved(ctx)
        return drop(grad_output, mask, ctx.q), None, None

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, *_: None) -> Tensor:
        (mask,) = saved(ctx)
        return drop(input_t, mask, ctx.q)


drop = differentiable(Drop)

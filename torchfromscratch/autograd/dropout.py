"""Dropout: what is kept is scaled up, so that the expected value stays; the gradient takes the same path.

    y = x·m / q        dL/dx = dL/dy·m / q        mask m of zeros and ones, probability q of a one

Source: N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, restore, save
from torchfromscratch.autograd.linear_map import linear_map
from torchfromscratch.kernels import triton


def _drop(input: Tensor, mask: Tensor, q: float) -> Tensor:
    """y = x·m / q, with a mask m, a boolean that broadcasts to x, and a number q."""
    kernels = triton.kernels("elementwise", input, indices=mask)
    result = None if kernels is None else kernels.compute("Drop", input, mask, q)
    if result is not None:
        return result
    scale = mask.to(input.dtype)
    return input * (scale if q == 1 else scale.div_(q))


class DropAtRandom(Function):
    """y = x·m / q and m, whose elements are drawn here, each 1 with probability q."""

    @staticmethod
    def forward(input: Tensor, q: float) -> tuple[Tensor, Tensor]:
        kernels = triton.kernels("dropout", input)
        if kernels is not None:
            return kernels.drop(input, q)
        mask = torch.empty_like(input, dtype=torch.bool).bernoulli_(q)
        return _drop(input, mask, q), mask

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _: None) -> tuple:
        (mask,) = restore(ctx)
        return None if grad_output is None else drop(grad_output, mask, ctx.q), None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        _, ctx.q = inputs
        _, mask = output
        ctx.set_materialize_grads(False)  # no zeros for the mask
        ctx.mark_non_differentiable(mask)
        save(ctx, (mask,))

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, _: None) -> tuple:
        (mask,) = restore(ctx)
        return drop(input_t, mask, ctx.q), None


drop_at_random = differentiable(DropAtRandom)
drop = linear_map("Drop", _drop, saves=1)

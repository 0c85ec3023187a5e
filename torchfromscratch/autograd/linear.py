"""The fully connected layer: y = x wᵀ + b.

    dL/dx = dL/dy w        dL/dw = (dL/dy)ᵀ x        dL/db = Σ dL/dy

Source: lecture notes, "Backward through the fully connected layer" (there w is the transpose of ours).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, save, saved


class Linear(Function):
    """y[n, o] = b[o] + Σ_i w[o, i] · x[n, i].

    x (N, I), w (O, I), b (O) or None → y (N, O).
    """

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return input @ weight.mT if bias is None else torch.addmm(bias, input, weight.mT)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        input, weight = saved(ctx)
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad
        grad_input = grad_output @ weight.conj() if needs_input else None
        grad_weight = grad_output.mT @ input.conj() if needs_weight else None
        grad_bias = grad_output.sum(0) if needs_bias else None
        return grad_input, grad_weight, grad_bias

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, weight, _ = inputs
        needs_input, needs_weight, _ = ctx.needs_input_grad
        save(ctx, (input, weight), needed=(needs_weight, needs_input))

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, weight_t: Tensor, bias_t: Tensor | None) -> Tensor:
        input, weight = saved(ctx)
        output_t = input_t @ weight.mT + input @ weight_t.mT
        return output_t if bias_t is None else output_t + bias_t


linear = differentiable(Linear)

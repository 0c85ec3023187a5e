"""The fully connected layer: y = x wᵀ + b, and the bilinear one: y = x₁ᵀ w x₂ + b.

    dL/dx = dL/dy w        dL/dw = (dL/dy)ᵀ x        dL/db = Σ dL/dy

Source: lecture notes, "Backward through the fully connected layer" (there w is the transpose of ours).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, restore, save


class Linear(Function):
    """y[n, o] = b[o] + Σ_i w[o, i] · x[n, i].

    x (N, I), w (O, I), b (O) or None → y (N, O).
    """

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return input @ weight.mT if bias is None else torch.addmm(bias, input, weight.mT)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        input, weight = restore(ctx)
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
        input, weight = restore(ctx)
        output_t = input_t @ weight.mT + input @ weight_t.mT
        return output_t if bias_t is None else output_t + bias_t


class Bilinear(Function):
    """y[n, o] = Σ_ij x₁[n, i] · w[o, i, j] · x₂[n, j]: a product with the matrix of w, of what x₁ ⊗ x₂ has in a row.

    With m[n, i, j] = Σ_o dL/dy[n, o] · w[o, i, j]: dL/dx₁ = m x₂, dL/dx₂ = mᵀ x₁ and dL/dw = (dL/dy)ᵀ (x₁ ⊗ x₂).
    x₁ (N, I), x₂ (N, J), w (O, I, J) → y (N, O).
    """

    @staticmethod
    def forward(x1: Tensor, x2: Tensor, weight: Tensor) -> Tensor:
        return _outer(x1, x2) @ _matrix(weight).mT

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        x1, x2, weight = restore(ctx)
        needs_x1, needs_x2, needs_weight = ctx.needs_input_grad
        grad_x1 = grad_x2 = grad_weight = None
        if needs_x1 or needs_x2:
            m = (grad_output @ _matrix(weight).conj()).view(-1, *weight.shape[1:])
            grad_x1 = (m @ x2.unsqueeze(2).conj()).squeeze(2) if needs_x1 else None
            grad_x2 = (m.mT @ x1.unsqueeze(2).conj()).squeeze(2) if needs_x2 else None
        if needs_weight:
            grad_weight = (grad_output.mT @ _outer(x1, x2).conj()).view(-1, x1.shape[1], x2.shape[1])
        return grad_x1, grad_x2, grad_weight

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        needs_x1, needs_x2, needs_weight = ctx.needs_input_grad
        needed = (needs_x2 or needs_weight, needs_x1 or needs_weight, needs_x1 or needs_x2)
        save(ctx, inputs, needed)

    @staticmethod
    def jvp(ctx: Any, x1_t: Tensor, x2_t: Tensor, weight_t: Tensor) -> Tensor:
        x1, x2, weight = restore(ctx)
        return (_outer(x1_t, x2) + _outer(x1, x2_t)) @ _matrix(weight).mT + _outer(x1, x2) @ _matrix(weight_t).mT


def _outer(x1: Tensor, x2: Tensor) -> Tensor:
    """x₁ ⊗ x₂ of each sample, as a row."""
    return _matrix(x1.unsqueeze(2) * x2.unsqueeze(1))


def _matrix(tensor: Tensor) -> Tensor:
    """(N, I, J) → (N, I·J)."""
    return tensor.reshape(tensor.shape[0], tensor.shape[1] * tensor.shape[2])


linear = differentiable(Linear)
bilinear = differentiable(Bilinear)

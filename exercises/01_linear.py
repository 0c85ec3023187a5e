"""Linear: y = x Wᵀ + b.

x (N, I), w (O, I), b (O) → y (N, O). Given dL/dy = g (N, O), find dL/dx, dL/dw and dL/db.
The shapes leave you little choice: which product of g, x and w is (N, I), which is (O, I)?

Check it: torchfromscratch check exercises/01_linear.py:Linear --like linear --by-hand
"""

import torch
from torch import Tensor


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # a row of numbers is a batch of one; several dimensions in front are one long batch
        return input @ weight.T + bias

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, weight, _ = inputs
        ctx.save_for_backward(input, weight)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple:
        x, w = ctx.saved_tensors
        rows_x, rows_g = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        raise NotImplementedError("your turn: return grad_x, grad_w, grad_b")

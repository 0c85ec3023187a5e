"""Mean squared error: L = Σ (x − t)² / N, N the number of elements.

Two factors are easily lost; and dL/dL, which is g, is not always 1.

Check it: torchfromscratch check exercises/09_mse_loss.py:MSELoss --like mse_loss --by-hand
"""

import torch
from torch import Tensor


class MSELoss(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, target: Tensor) -> Tensor:
        return (input - target).square().mean()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple:
        x, t = ctx.saved_tensors
        raise NotImplementedError("your turn: return grad_x, -grad_x")

"""Leaky ReLU: x where x > 0 and a·x elsewhere.

dL/dx = dL/dy times the slope of the side that x is on.

Check it: torchfromscratch check exercises/03_leaky_relu.py:LeakyReLU --like leaky_relu --by-hand
"""

import torch
from torch import Tensor


class LeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, negative_slope: float = 0.01) -> Tensor:
        return input.clamp(min=0) + negative_slope * input.clamp(max=0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, ctx.slope = inputs
        ctx.save_for_backward(input)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        raise NotImplementedError("your turn: return grad_x, None")

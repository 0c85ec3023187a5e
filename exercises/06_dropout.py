"""Dropout with its mask given: y = x · mask / (1 − p).

What was dropped gets no gradient; what was kept was scaled.

Check it: torchfromscratch check exercises/06_dropout.py:Dropout --like dropout --by-hand
"""

import torch
from torch import Tensor


class Dropout(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, mask: Tensor, p: float) -> Tensor:
        return input * mask / (1 - p)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, mask, ctx.p = inputs
        ctx.save_for_backward(mask)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple:
        (mask,) = ctx.saved_tensors
        raise NotImplementedError("your turn: return grad_x, None, None")

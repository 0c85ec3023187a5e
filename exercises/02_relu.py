"""ReLU: y = max(0, x).

Where does the gradient pass, and what happens at exactly 0?

Check it: torchfromscratch check exercises/02_relu.py:ReLU --like relu --by-hand
"""

import torch
from torch import Tensor


class ReLU(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return input.clamp(min=0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        raise NotImplementedError("your turn: return grad_x")

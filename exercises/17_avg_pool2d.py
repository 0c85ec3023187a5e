"""Average pooling: every element of a window gets an equal share of its dL/dy.

Windows may overlap: shares add up.

Check it: torchfromscratch check exercises/17_avg_pool2d.py:AvgPool2d --like avg_pool2d --by-hand
"""

import torch
from torch import Tensor


def windows(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """x (N, C, H, W) → (N, C, rows, columns, kernel height, kernel width): what lies below the kernel, a view."""
    return x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class AvgPool2d(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, kernel_size: int | tuple, stride: int | tuple | None = None) -> Tensor:
        kernel = pair(kernel_size)
        return windows(input, kernel, kernel if stride is None else pair(stride)).mean((4, 5))

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, kernel_size, stride = inputs
        ctx.kernel, ctx.size = pair(kernel_size), input.shape
        ctx.stride = ctx.kernel if stride is None else pair(stride)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple:
        raise NotImplementedError("your turn: return grad_x, None, None")

"""Max pooling: to the winner of each window goes its whole dL/dy.

Windows may overlap: an element that wins twice gets both. The first of equal elements wins.

Check it: torchfromscratch check exercises/16_max_pool2d.py:MaxPool2d --like max_pool2d --by-hand
"""

import torch
from torch import Tensor


def windows(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """x (N, C, H, W) → (N, C, rows, columns, kernel height, kernel width): what lies below the kernel, a view."""
    return x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class MaxPool2d(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, kernel_size: int | tuple, stride: int | tuple | None = None) -> Tensor:
        kernel = pair(kernel_size)
        return windows(input, kernel, kernel if stride is None else pair(stride)).amax((4, 5))

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, kernel_size, stride = inputs
        ctx.kernel = pair(kernel_size)
        ctx.stride = ctx.kernel if stride is None else pair(stride)
        ctx.save_for_backward(input)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        n, c, height, width = x.shape
        winners = windows(x, ctx.kernel, ctx.stride).flatten(4).argmax(4)  # which element of its window, row by row
        rows = torch.arange(g.shape[2])[:, None] * ctx.stride[0]  # where each window begins
        columns = torch.arange(g.shape[3]) * ctx.stride[1]
        raise NotImplementedError("your turn: return grad_x, None, None")

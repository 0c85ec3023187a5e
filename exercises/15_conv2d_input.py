"""Convolution: dL/dx.

dL/dx is the full convolution of dL/dy with the kernel rotated by 180°. Four things to do: zeros between the elements
of dL/dy for a stride, a border as wide as the kernel reaches, the rotation, and the channels exchanged; then the
padding is cut off.

Check it: torchfromscratch check exercises/15_conv2d_input.py:Conv2d --like conv2d --by-hand
"""

import torch
from torch import Tensor


def windows(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """x (N, C, H, W) → (N, C, rows, columns, kernel height, kernel width): what lies below the kernel, a view."""
    return x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def pad(x: Tensor, padding: tuple[int, int]) -> Tensor:
    return torch.nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))


class Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, weight: Tensor, stride: int | tuple = 1, padding: int | tuple = 0) -> Tensor:
        below = windows(pad(input, pair(padding)), weight.shape[2:], pair(stride))
        return torch.einsum("ncijkl,ockl->noij", below, weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, weight, stride, padding = inputs
        ctx.stride, ctx.padding = pair(stride), pair(padding)
        ctx.save_for_backward(input, weight)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple:
        x, w = ctx.saved_tensors
        below = windows(pad(x, ctx.padding), w.shape[2:], ctx.stride)
        grad_w = torch.einsum("ncijkl,noij->ockl", below, g)
        raise NotImplementedError("your turn: return grad_x, grad_w, None, None")

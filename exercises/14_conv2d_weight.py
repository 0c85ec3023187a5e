"""Convolution: dL/dw.

y[n, o, i] = Σ w[o, c, k] · x[n, c, i·s + k − p]. Which products does one element of w take part in? The gradient is the
cross-correlation of x with dL/dy. dL/dx is given; it is the next exercise.

Check it: torchfromscratch check exercises/14_conv2d_weight.py:Conv2d --like conv2d --by-hand
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


def input_gradient(x: Tensor, w: Tensor, g: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Every product of g and w, added where its x came from."""
    grad = torch.zeros_like(pad(x, padding))
    for k in range(w.shape[2]):
        for m in range(w.shape[3]):
            rows = slice(k, k + (g.shape[2] - 1) * stride[0] + 1, stride[0])
            columns = slice(m, m + (g.shape[3] - 1) * stride[1] + 1, stride[1])
            grad[:, :, rows, columns] += torch.einsum("noij,oc->ncij", g, w[:, :, k, m])
    return grad[:, :, padding[0] : padding[0] + x.shape[2], padding[1] : padding[1] + x.shape[3]]


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
        below = windows(pad(x, ctx.padding), w.shape[2:], ctx.stride)  # (N, C, rows, columns, K1, K2)
        grad_x = input_gradient(x, w, g, ctx.stride, ctx.padding)
        raise NotImplementedError("your turn: return grad_x, grad_w, None, None")

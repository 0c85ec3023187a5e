"""Softmax and its logarithm, along one dimension.

    y = e^x / Σ e^x              dL/dx = y · (dL/dy − Σ y · dL/dy)
    y = x − log Σ e^x            dL/dx = dL/dy − e^y · Σ dL/dy

Both are written in the output alone. The greatest x is taken off first: the quotient stays the same,
and no exponential overflows. The Jacobian of softmax is symmetric, so backward and jvp are one formula.

Source: lecture notes, "Softmax" and "Backward to the input of softmax".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, restore, save
from torchfromscratch.kernels import triton
from torchfromscratch.kernels.buffers import call_out
from torchfromscratch.kernels.precision import widen


class Softmax(Function):
    """y_k = e^(x_k) / Σ_j e^(x_j), over `dim`."""

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        kernels = triton.kernels("softmax", input)
        if kernels is not None and kernels.fits(input):
            return kernels.softmax(input, dim, logarithm=False)
        below = shift(widen(input), dim)
        exponential = call_out(torch.exp, below, out=below)
        total = exponential.sum(dim, keepdim=True)
        return call_out(torch.div, exponential, total, out=exponential).to(input.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        (output,) = restore(ctx)
        return through_softmax(grad_output, output, ctx.dim), None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.dim = inputs
        save(ctx, (output,))

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, _: None) -> Tensor:
        (output,) = restore(ctx)
        return through_softmax(input_t, output, ctx.dim)


class LogSoftmax(Function):
    """y_k = x_k − log Σ_j e^(x_j), over `dim`."""

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        kernels = triton.kernels("softmax", input)
        if kernels is not None and kernels.fits(input):
            return kernels.softmax(input, dim, logarithm=True)
        below = shift(widen(input), dim)
        log_sum = below.exp().sum(dim, keepdim=True).log()
        return call_out(torch.sub, below, log_sum, out=below).to(input.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        (output,) = restore(ctx)
        return through_log_softmax(grad_output, output, ctx.dim), None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.dim = inputs
        save(ctx, (output,))

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, _: None) -> Tensor:
        (output,) = restore(ctx)
        return log_softmax_t(input_t, output, ctx.dim)


softmax = differentiable(Softmax)
log_softmax = differentiable(LogSoftmax)


def shift(input: Tensor, dim: int) -> Tensor:
    """x − max x, so that e^x is at most 1."""
    return input - input.amax(dim, keepdim=True) if input.numel() else input.clone()


def through_softmax(direction: Tensor, output: Tensor, dim: int) -> Tensor:
    """The Jacobian of softmax, diag(y) − y yᵀ, times `direction`.

    The sum is taken off before multiplying: where one y is nearly 1, y·d and y·Σ are nearly the same, and
    rounding is most of their difference.
    """
    kernels = triton.kernels("softmax", direction, output)
    if kernels is not None and kernels.fits(output):
        return kernels.gradient(direction, output, dim, logarithm=False)
    d, y = widen(direction), widen(output)
    return (y * (d - (y * d).sum(dim, keepdim=True))).to(direction.dtype)


def through_log_softmax(grad_output: Tensor, output: Tensor, dim: int) -> Tensor:
    """dL/dx from dL/dy of y = log softmax(x), the `output`."""
    kernels = triton.kernels("softmax", grad_output, output)
    if kernels is not None and kernels.fits(output):
        return kernels.gradient(grad_output, output, dim, logarithm=True)
    grad, y = widen(grad_output), widen(output).exp()
    return (grad - y * grad.sum(dim, keepdim=True)).to(grad_output.dtype)


# ---------------- torch's side: what is saved, vmap, forward mode


def log_softmax_t(input_t: Tensor, output: Tensor, dim: int) -> Tensor:
    """How y = log softmax(x), the `output`, moves when x moves by `input_t`."""
    tangent, y = widen(input_t), widen(output).exp()
    return (tangent - (y * tangent).sum(dim, keepdim=True)).to(input_t.dtype)

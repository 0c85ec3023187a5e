"""Losses.

Softmax cross-entropy compares a target distribution Y with y = softmax(z):

    L = − Σ_c Y_c · log y_c        dL/dz = y · ΣY − Y        (y − Y where Y sums to one)

Every kind of target is one of two parts of Y = h · onehot(t) + S, or their sum: a class t of weight h,
which is never spread out into a vector, and a density S over all the classes, from class
probabilities or from label smoothing. L is linear in Y, so each part adds its own term.

Source: lecture notes, "Categorical cross-entropy loss" and "Backward to the input of softmax" (L lacks
its minus sign there).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable
from torchfromscratch.autograd.precision import widened
from torchfromscratch.autograd.softmax import log_softmax, shifted, softmax


class SoftmaxCrossEntropy(Function):
    """L = − Σ_c Y_c · log softmax(z)_c with Y = h · onehot(t) + S, over the classes c along `dim`.

    z (N, C, …); t and h (N, 1, …), or None; S (N, C, …), or None → L (N, 1, …) in float32 or wider.
    """

    @staticmethod
    def forward(z: Tensor, t: Tensor | None, h: Tensor | None, s: Tensor | None, dim: int) -> Tensor:
        below = shifted(widened(z), dim)
        log_sum = below.exp().sum(dim, keepdim=True).log()
        loss: Any = 0
        if t is not None:
            loss = loss + h * (log_sum - pick(below, dim, t))
        if s is not None:
            loss = loss + (s * (log_sum - below)).sum(dim, keepdim=True)
        return loss

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.dim = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        z, t, h, s = ctx.saved_tensors
        needs_z, _, needs_h, needs_s, _ = ctx.needs_input_grad
        grad_z = grad_h = grad_s = None
        if needs_z:
            h_scaled, s_scaled = [None if part is None else grad_output * part for part in (h, s)]
            grad_z = _softmax_minus_target(z, t, h_scaled, s_scaled, ctx.dim).to(z.dtype)
        if needs_h:
            grad_h = -grad_output * log_softmax(widened(z), ctx.dim).gather(ctx.dim, t)
        if needs_s:
            grad_s = -grad_output * log_softmax(widened(z), ctx.dim)
        return grad_z, None, grad_h, grad_s, None

    @staticmethod
    def jvp(ctx: Any, z_t: Tensor, _: Any, h_t: Tensor | None, s_t: Tensor | None, __: None) -> Tensor:
        z, t, h, s = ctx.saved_tensors
        through_z = (_softmax_minus_target(z, t, h, s, ctx.dim) * z_t).sum(ctx.dim, keepdim=True)
        return through_z + softmax_cross_entropy(z, t, h_t, s_t, ctx.dim)


class NegativeLogLikelihood(Function):
    """L = − h · x_t: the log-probability of class t along `dim`.

    x (N, C, …), t and h (N, 1, …) → L (N, 1, …) in float32 or wider.
    """

    @staticmethod
    def forward(x: Tensor, t: Tensor, h: Tensor, dim: int) -> Tensor:
        return -h * pick(widened(x), dim, t)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, t, h, ctx.dim = inputs
        ctx.save_for_backward(x, t, h)
        ctx.save_for_forward(x, t, h)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        x, t, h = ctx.saved_tensors
        needs_x, _, needs_h, _ = ctx.needs_input_grad
        grad_x = grad_h = None
        if needs_x:
            grad_x = widened(x).new_zeros(x.shape).scatter(ctx.dim, t, -h * grad_output).to(x.dtype)
        if needs_h:
            grad_h = -grad_output * widened(x).gather(ctx.dim, t)
        return grad_x, None, grad_h, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, _: Any, h_t: Tensor, __: None) -> Tensor:
        x, t, h = ctx.saved_tensors
        return -h * widened(x_t).gather(ctx.dim, t) - h_t * widened(x).gather(ctx.dim, t)


softmax_cross_entropy = differentiable(SoftmaxCrossEntropy)
negative_log_likelihood = differentiable(NegativeLogLikelihood)


def pick(values: Tensor, dim: int, classes: Tensor) -> Tensor:
    """The value of each class; a class out of range, which only the CPU finds, is named as torch names it."""
    try:
        return values.gather(dim, classes)
    except RuntimeError as error:
        outside = classes[(classes < 0) | (classes >= values.shape[dim])]
        if outside.numel() == 0:
            raise
        raise IndexError(f"Target {outside[0]} is out of bounds: there are {values.shape[dim]} classes") from error


def _softmax_minus_target(z: Tensor, t: Tensor | None, h: Tensor | None, s: Tensor | None, dim: int) -> Tensor:
    """y · ΣY − Y, of Y = h · onehot(t) + S."""
    y = softmax(widened(z), dim)
    difference: Any = 0
    if t is not None:
        difference = difference + (y * h).scatter_add(dim, t, -h)
    if s is not None:
        difference = difference + (y * s.sum(dim, keepdim=True) - s)
    return difference

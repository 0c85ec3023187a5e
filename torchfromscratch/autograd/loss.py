"""Losses: what each element, or each class distribution, adds to one. Reductions are made of plain sums.

Losses of a pair of elements are rows of a table, as the activations are.

Softmax cross-entropy compares a target distribution Y with y = softmax(z):

    L = − Σ_c Y_c · log y_c        dL/dz = y · ΣY − Y        (y − Y where Y sums to one)

Every kind of target is one of two parts of Y = h · onehot(t) + S, or their sum: a class t of weight h,
which is never spread out into a vector, and a density S over all the classes, from class
probabilities or from label smoothing. L is linear in Y, so each part adds its own term.

Source: lecture notes, "Categorical cross-entropy loss" and "Backward to the input of softmax" (L lacks
its minus sign there).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.elementwise import elementwise, logsigmoid, sigmoid
from torchfromscratch.autograd.function import Function, differentiable, save, saved
from torchfromscratch.autograd.softmax import log_softmax, shifted, softmax
from torchfromscratch.kernels.memory import computed, followed, in_cpu_memory
from torchfromscratch.kernels.precision import widened

# torch bounds the logarithm of a probability, and the denominator of its derivative, which may be 0.
LEAST_LOG = -100
LEAST_VARIANCE = 1e-12

squared_error = elementwise(
    "SquaredError",
    lambda x, y: (x - y).square(),
    dx=lambda g, x, y: 2 * g * (x - y),
    dy=lambda g, x, y: 2 * g * (y - x),
    contiguous=True,
)
absolute_error = elementwise(
    "AbsoluteError",
    lambda x, y: (x - y).abs(),
    dx=lambda g, x, y: g * (x - y).sign(),
    dy=lambda g, x, y: g * (x - y).sign().neg(),
)
modulus = elementwise(
    "Modulus",  # |a + bi|, the absolute error of complex numbers
    lambda a, b: torch.complex(a, b).abs(),
    da=lambda g, a, b: g * torch.complex(a, b).sgn().real,
    db=lambda g, a, b: g * torch.complex(a, b).sgn().imag,
)
smooth_error = elementwise(
    "SmoothError",  # squared up to β, then absolute: R. Girshick, "Fast R-CNN", 2015
    lambda x, y, beta: _smooth_error((x - y).abs(), beta),
    dx=lambda g, x, y, beta: g * ((x - y) / beta).clamp(-1, 1),
    dy=lambda g, x, y, beta: g * ((y - x) / beta).clamp(-1, 1),
    contiguous=True,
)
huber_error = elementwise(
    "HuberError",  # δ times the former: P. Huber, "Robust estimation of a location parameter", 1964
    lambda x, y, delta: _huber_error((x - y).abs(), delta),
    dx=lambda g, x, y, delta: g * (x - y).clamp(-delta, delta),
    dy=lambda g, x, y, delta: g * (y - x).clamp(-delta, delta),
    contiguous=True,
)
binary_cross_entropy = elementwise(
    "BinaryCrossEntropy",  # −y log x − (1 − y) log(1 − x), x and y probabilities
    lambda x, y: (y - 1) * (-x).log1p().clamp(min=LEAST_LOG) - y * x.log().clamp(min=LEAST_LOG),
    dx=lambda g, x, y: g * (x - y) / (x * (1 - x)).clamp(min=LEAST_VARIANCE),
    dy=lambda g, x, y: g * ((-x).log1p() - x.log()),
)
sigmoid_cross_entropy = elementwise(
    "SigmoidCrossEntropy",  # −p·y·log σ(z) − (1 − y)·log(1 − σ(z)), positives of weight p; σ(z) − y if p is 1
    lambda z, y, p: (1 - y) * z + (1 + (p - 1) * y) * ((-z.abs()).exp().log1p() - z.clamp(max=0)),
    dz=lambda g, z, y, p: (sigmoid(z) * (p * y + 1 - y) - p * y) * g,
    dy=lambda g, z, y, p: g * (logsigmoid(-z) - p * logsigmoid(z)),
    dp=lambda g, z, y, p: -g * y * logsigmoid(z),
)
divergence = elementwise(
    "Divergence",  # Kullback and Leibler's, y·(log y − x), of a log-probability x from a probability y
    lambda x, y: torch.xlogy(y, y) - y * x,
    dx=lambda g, x, y: -g * y,
    dy=lambda g, x, y: g * (y.log() + 1 - x),
)
log_divergence = elementwise(
    "LogDivergence",  # the same of eʸ
    lambda x, y: y.exp() * (y - x),
    dx=lambda g, x, y: -g * y.exp(),
    dy=lambda g, x, y: g * y.exp() * (y - x + 1),
)


class SoftmaxCrossEntropy(Function):
    """L = − Σ_c Y_c · log softmax(z)_c with Y = h · onehot(t) + S, over the classes c along `dim`.

    z (N, C, …); t and h (N, 1, …), or None; S (N, C, …), or None → L (N, 1, …) in float32 or wider.
    """

    @staticmethod
    def forward(z: Tensor, t: Tensor | None, h: Tensor | None, s: Tensor | None, dim: int) -> Tensor:
        below = shifted(widened(z), dim)
        picked = None if t is None else pick(below, dim, t)
        exponential = computed(torch.exp, below, memory=below) if s is None else below.exp()
        log_sum, terms = exponential.sum(dim, keepdim=True).log(), []
        if picked is not None and h is not None:
            terms.append(h * (log_sum - picked))
        if s is not None:
            terms.append((s * (log_sum - below)).sum(dim, keepdim=True))
        return functools.reduce(torch.add, terms)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.dim = inputs
        save(ctx, tensors)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        z, t, h, s = saved(ctx)
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
        z, t, h, s = saved(ctx)
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
        save(ctx, (x, t, h))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        x, t, h = saved(ctx)
        needs_x, _, needs_h, _ = ctx.needs_input_grad
        grad_x = grad_h = None
        if needs_x:
            grad_x = widened(x).new_zeros(x.shape).scatter(ctx.dim, t, -h * grad_output).to(x.dtype)
        if needs_h:
            grad_h = -grad_output * widened(x).gather(ctx.dim, t)
        return grad_x, None, grad_h, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, _: Any, h_t: Tensor, __: None) -> Tensor:
        x, t, h = saved(ctx)
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


def _smooth_error(d: Tensor, beta: float) -> Tensor:
    """d² / 2β, and d − β / 2 from d = β on: without torch.where, which a CPU branches in."""
    within = d.clamp(max=beta)
    return within / beta * (d - within / 2)


def _huber_error(d: Tensor, delta: float) -> Tensor:
    """d² / 2, and δ · (d − δ / 2) from d = δ on."""
    within = d.clamp(max=delta)
    return within * (d - within / 2)


def _softmax_minus_target(z: Tensor, t: Tensor | None, h: Tensor | None, s: Tensor | None, dim: int) -> Tensor:
    """y · ΣY − Y, of Y = h · onehot(t) + S."""
    y = softmax(widened(z), dim)
    if t is None or h is None:
        assert s is not None
        return y * s.sum(dim, keepdim=True) - s
    if s is None and not followed() and in_cpu_memory(z, t, h) and y.is_contiguous():  # as torch's gradient lies
        return y.mul_(h).scatter_add_(dim, t, -h)
    of_class = (y * h).scatter_add(dim, t, -h)
    return of_class if s is None else of_class + (y * s.sum(dim, keepdim=True) - s)

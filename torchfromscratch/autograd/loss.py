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
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.elementwise import elementwise, logsigmoid, sigmoid
from torchfromscratch.autograd.function import Function, differentiable, restore, save
from torchfromscratch.autograd.linear_map import linear_map
from torchfromscratch.autograd.softmax import LogSoftmax, log_softmax_t, through_log_softmax
from torchfromscratch.kernels import triton
from torchfromscratch.kernels.execution import in_cpu_memory, is_differentiating
from torchfromscratch.kernels.precision import widen

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
square = elementwise(
    "Square",  # of a difference, which is kept, as torch does in a weighted mean
    lambda d: d.square(),
    dd=lambda g, d: 2 * g * d,
)
absolute = elementwise(
    "Absolute",  # likewise
    lambda d: d.abs(),
    dd=lambda g, d: g * d.sign(),
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
    dy=lambda g, x: g * ((-x).log1p() - x.log()),
)
sigmoid_cross_entropy = elementwise(
    "SigmoidCrossEntropy",  # −y·log σ(z) − (1 − y)·log(1 − σ(z))
    lambda z, y: (1 - y) * z + ((-z.abs()).exp().log1p() - z.clamp(max=0)),
    dz=lambda g, z, y: (sigmoid(z) - y) * g,
    dy=lambda g, z: -g * z,
)
weighted_sigmoid_cross_entropy = elementwise(
    "WeightedSigmoidCrossEntropy",  # the same with positives of weight p
    lambda z, y, p: (1 - y) * z + (1 + (p - 1) * y) * ((-z.abs()).exp().log1p() - z.clamp(max=0)),
    dz=lambda g, z, y, p: (sigmoid(z) * (p * y + 1 - y) - p * y) * g,
    dy=lambda g, z, p: g * (logsigmoid(-z) - p * logsigmoid(z)),
    dp=lambda g, z, y: -g * y * logsigmoid(z),
)
divergence = elementwise(
    "Divergence",  # Kullback and Leibler's, y·(log y − x), of a log-probability x from a probability y
    lambda x, y: torch.xlogy(y, y) - y * x,
    dx=lambda g, y: -g * y,
    dy=lambda g, x, y: g * (y.log() + 1 - x),
)
log_divergence = elementwise(
    "LogDivergence",  # the same of eʸ
    lambda x, y: y.exp() * (y - x),
    dx=lambda g, y: -g * y.exp(),
    dy=lambda g, x, y: g * y.exp() * (y - x + 1),
)
gaussian_nll = elementwise(
    "GaussianNLL",  # of a difference d = x − y from the mean, without the constant ½ log 2π
    lambda d, v: 0.5 * (v.log() + d.square() / v),
    dd=lambda g, d, v: g * d / v,
    dv=lambda g, d, v: 0.5 * g * (1 - d.square() / v) / v,
)
poisson_nll = elementwise(
    "PoissonNLL",  # λ − y·log λ of a count y, without the constant log y!
    lambda x, y, eps: x - y * (x + eps).log(),
    dx=lambda g, x, y, eps: g * (1 - y / (x + eps)),
    dy=lambda g, x, eps: -g * (x + eps).log(),
)
log_poisson_nll = elementwise(
    "LogPoissonNLL",  # the same of λ = eˣ
    lambda x, y: x.exp() - y * x,
    dx=lambda g, x, y: g * (x.exp() - y),
    dy=lambda g, x: -g * x,
)
stirling = elementwise(
    "Stirling",  # log y! from y > 1 on, approximately
    lambda y: (y * y.log() - y + 0.5 * (2 * math.pi * y).log()).masked_fill(y <= 1, 0),
    dy=lambda g, y: (g * (y.log() + 0.5 / y)).masked_fill(y <= 1, 0),
)


class SoftmaxCrossEntropy(Function):
    """L = − Σ_c Y_c · x_c with x = log softmax(z) and Y = h · onehot(t) + S, over the classes c along `dim`; and x.

    What h is, `Classes` says; S is given or, of label smoothing ε, it is ε·w / C. x is kept for the backward pass: z
    may be changed before. As an output, it leads what differentiates again back to z.
    z (N, C, …); t (N, 1, …) and w (C), or None; S (N, C, …), or None → L (N, 1, …) in float32 or wider, x (N, C, …).
    """

    @staticmethod
    def forward(
        z: Tensor,
        t: Tensor | None,
        w: Tensor | None,
        s: Tensor | None,
        dim: int,
        factor: float,
        ignore_index: int,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        kernels = triton.kernels("softmax", z, w, s, indices=t)
        if kernels is not None and kernels.fits(z):
            return kernels.losses(z, t, w, s, dim, factor, ignore_index, smoothing)
        x = LogSoftmax.forward(widen(z), dim)
        s = _density(s, w, smoothing, x, dim)
        return _cross_entropy(x, _classes(t, w, factor, ignore_index), s, dim), x.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, grad_x: Tensor | None) -> tuple:
        x, t, w, s = restore(ctx)
        needs_z, _, _, needs_s, *_ = ctx.needs_input_grad
        if grad_output is not None and grad_x is None and needs_z and not needs_s:
            kernels = triton.kernels("softmax", grad_output, x, w, s, indices=t)
            if kernels is not None and kernels.fits(x):
                options = ctx.dim, ctx.factor, ctx.ignore_index, ctx.smoothing
                return kernels.losses_gradient(grad_output, x, t, w, s, *options), *[None] * 7
        s = _density(s, w, ctx.smoothing, x, ctx.dim)
        grad_z = grad_s = None
        if grad_output is not None:
            classes = _classes(t, w, ctx.factor, ctx.ignore_index)
            grad_output = grad_output if classes is None else classes.drop_ignored(grad_output)
            grad_z = _softmax_minus_target(x, classes, s, grad_output, ctx.dim).to(x.dtype) if needs_z else None
            grad_s = -grad_output * widen(x) if needs_s else None
        if grad_x is not None and needs_z:
            grad_z = through_log_softmax(grad_x, x, ctx.dim) + (0 if grad_z is None else grad_z)
        return grad_z, None, None, grad_s, None, None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        _, t, w, s, ctx.dim, ctx.factor, ctx.ignore_index, ctx.smoothing = inputs
        _, x = output
        ctx.set_materialize_grads(False)  # no zeros for dL/dx in a first derivative: None, and so with tangents
        needs_z, *_ = ctx.needs_input_grad
        save(ctx, (x, t, w, s), needed=(True, True, needs_z, needs_z))

    @staticmethod
    def jvp(ctx: Any, z_t: Tensor | None, _: None, __: None, s_t: Tensor | None, *___: None) -> tuple[Tensor, Tensor]:
        x, t, w, s = restore(ctx)
        classes, wide = _classes(t, w, ctx.factor, ctx.ignore_index), widen(x)
        x_t = torch.zeros_like(wide) if z_t is None else log_softmax_t(widen(z_t), x, ctx.dim)
        loss_t = _cross_entropy(x_t, classes, _density(s, w, ctx.smoothing, x, ctx.dim), ctx.dim)
        if s_t is not None:
            through_s = (s_t * wide).sum(ctx.dim, keepdim=True)
            loss_t = loss_t - (through_s if classes is None else classes.drop_ignored(through_s))
        return loss_t, x_t.to(x.dtype)


def _negative_log_likelihood(x: Tensor, t: Tensor, w: Tensor | None, dim: int, ignore_index: int) -> Tensor:
    """L = − h · x_t: the log-probability of class t along `dim`, times the weight that `Classes` gives it.

    x (N, C, …), t (N, 1, …), w (C) or None → L (N, 1, …) in float32 or wider.
    """
    kernels = triton.kernels("softmax", x, w, indices=t)
    if kernels is not None and kernels.fits(x):
        return kernels.likelihoods(x, t, w, dim, ignore_index)
    return _cross_entropy(widen(x), Classes(t, w, 1, ignore_index), None, dim)


def _negative_log_likelihood_transpose(
    g: Tensor, t: Tensor, w: Tensor | None, dim: int, ignore_index: int, shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """dL/dx = − h · onehot(t) · dL/dL."""
    kernels = triton.kernels("softmax", g, w, indices=t)
    if kernels is not None and math.prod(shape) > 0:
        return kernels.likelihoods_gradient(g, t, w, dim, ignore_index, shape, dtype)
    classes = Classes(t, w, 1, ignore_index)
    h = classes.weigh(classes.drop_ignored(g))
    return g.new_zeros(shape).scatter(dim, classes.index, -h).to(dtype)


class Classes:
    """Targets t, each of a weight h = factor · w_t with w = 1 unless given, but for those to be ignored."""

    h: Any  # None where it is 1

    def __init__(self, t: Tensor, w: Tensor | None, factor: float, ignore_index: int) -> None:
        self.ignored = t == ignore_index
        self.index = t.masked_fill(self.ignored, 0)
        self.h = None if factor == 1 else factor
        if w is not None:
            self.h = factor * widen(pick(w, 0, self.index.reshape(-1))).reshape(t.shape)

    def weigh(self, values: Tensor) -> Tensor:
        """h · values."""
        return values if self.h is None else values * self.h

    def drop_ignored(self, values: Tensor) -> Tensor:
        """The values of targets, 0 for those that are ignored."""
        return values.masked_fill(self.ignored, 0)


softmax_cross_entropy = differentiable(SoftmaxCrossEntropy)
negative_log_likelihood = linear_map(
    "NegativeLogLikelihood",
    _negative_log_likelihood,
    _negative_log_likelihood_transpose,
    saves=2,
    remember=lambda x, *constants: (x.shape, x.dtype),
)


def total_weight(t: Tensor, w: Tensor | None, ignore_index: int) -> Tensor:
    """Σ h over all targets t that are not ignored."""
    if w is None:
        return (t != ignore_index).sum()
    classes = Classes(t, w, 1, ignore_index)
    return classes.drop_ignored(classes.h).sum()


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


def _classes(t: Tensor | None, w: Tensor | None, factor: float, ignore_index: int) -> Classes | None:
    return None if t is None else Classes(t, w, factor, ignore_index)


def _density(s: Tensor | None, w: Tensor | None, smoothing: float, x: Tensor, dim: int) -> Tensor | None:
    """S or, of label smoothing, ε·w / C: in this order, as torch.jit.trace has a tensor for C."""
    if smoothing == 0:
        return s
    classes = x.shape[dim]
    weights = widen(x.new_ones(classes) if w is None else w)
    return (smoothing * weights / classes).view([-1 if other == dim else 1 for other in range(x.dim())])


def _cross_entropy(x: Tensor, classes: Classes | None, s: Tensor | None, dim: int) -> Tensor:
    """− h · x_t − Σ S · x, 0 for the targets that are ignored."""
    terms = []
    if classes is not None:
        terms.append(classes.drop_ignored(classes.weigh(pick(x, dim, classes.index))))
    if s is not None:
        through_density = (s * x).sum(dim, keepdim=True)
        terms.append(through_density if classes is None else classes.drop_ignored(through_density))
    return functools.reduce(torch.add, terms).neg()


def _softmax_minus_target(x: Tensor, classes: Classes | None, s: Tensor | None, grad: Tensor, dim: int) -> Tensor:
    """(y · ΣY − Y) · dL/dL, of x = log y and Y = h · onehot(t) + S."""
    y, terms = widen(x).exp(), []
    if classes is not None:
        h = classes.weigh(grad)
        if (
            s is None and not is_differentiating() and in_cpu_memory(x, h) and y.is_contiguous()
        ):  # as torch's gradient lies
            return y.mul_(h).scatter_add_(dim, classes.index, -h)
        terms.append((y * h).scatter_add(dim, classes.index, -h))
    if s is not None:
        terms.append((y * s.sum(dim, keepdim=True) - s) * grad)
    return functools.reduce(torch.add, terms)

"""Losses: what is divided by which number, and what is forgotten behind dL/dy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.checking.corpus import wrong

Grad = Callable[[Tensor, Tensor, Tensor], Tensor]


def loss(like: str, name: str, named: str, value: Callable[[Tensor, Tensor], Tensor], grad: Grad) -> None:
    """Registers L = value(input, target) with dL/d input = grad(g, input, target)."""

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor, target: Tensor) -> Tensor:
            ctx.save_for_backward(input, target)
            return value(input, target)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            return grad(g, *ctx.saved_tensors), None

    Loss.__name__ = name
    wrong(like, named)(Loss)


def flat(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """(samples and positions, classes) and (samples and positions)."""
    return z.movedim(1, -1).reshape(-1, z.shape[1]), t.reshape(-1)


def cross_entropy(z: Tensor, t: Tensor) -> Tensor:
    z, t = flat(z, t)
    return -z.log_softmax(1)[torch.arange(len(t)), t].mean()


def back(gradient: Tensor, z: Tensor) -> Tensor:
    return gradient.reshape(z.shape[0], *z.shape[2:], z.shape[1]).movedim(-1, 1)


def probabilities(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    rows, classes = flat(z, t)
    return rows.softmax(1), F.one_hot(classes, z.shape[1]).to(z)


def difference(z: Tensor, t: Tensor) -> Tensor:
    p, onehot = probabilities(z, t)
    return back(p - onehot, z)


def ce(name: str, named: str, grad: Grad, value: Callable[[Tensor, Tensor], Tensor] = cross_entropy) -> None:
    loss("cross_entropy", name, named, value, grad)


ce("NotDividedByN", "1/N is missing", lambda g, z, t: g * difference(z, t))
ce("DividedByClassesToo", "number of channels or classes", lambda g, z, t: g * difference(z, t) / z.numel())
ce(
    "ProbabilitiesAlone",
    "−Y is missing",
    lambda g, z, t: g * back(probabilities(z, t)[0], z) / t.numel(),
)
ce(
    "LogitsMinusTarget",
    "without softmax",
    lambda g, z, t: g * back(flat(z, t)[0] - probabilities(z, t)[1], z) / t.numel(),
)
ce("TargetMinusProbabilities", "sign is wrong", lambda g, z, t: -g * difference(z, t) / t.numel())
ce("CrossEntropyWithoutG", "dL/dy is ignored", lambda g, z, t: difference(z, t) / t.numel() + 0 * g)
ce(
    "OnlyTheRightClass",
    "only where the class is right",
    lambda g, z, t: g * back(-(1 - probabilities(z, t)[0]) * probabilities(z, t)[1], z) / t.numel(),
)
ce("DividedByTheBatchAlone", "batch alone", lambda g, z, t: g * difference(z, t) / max(len(t), 1))


@wrong("cross_entropy", "sum in place of the mean")
def cross_entropy_that_sums(input: Tensor, target: Tensor) -> Tensor:
    rows, classes = flat(input, target)
    return -rows.log_softmax(1).gather(1, classes[:, None]).sum()


@wrong("cross_entropy", "softmax is forgotten")
def cross_entropy_of_logits_as_they_are(input: Tensor, target: Tensor) -> Tensor:
    rows, classes = flat(input, target)
    return -rows.gather(1, classes[:, None]).mean()


@wrong("cross_entropy", "softmax is taken twice")
def cross_entropy_behind_a_softmax(input: Tensor, target: Tensor) -> Tensor:
    """The network ends with a softmax, and the loss begins with one."""
    return F.cross_entropy(input.softmax(1), target)


@wrong("cross_entropy", "logarithm is forgotten")
def cross_entropy_without_log(input: Tensor, target: Tensor) -> Tensor:
    rows, classes = flat(input, target)
    return -rows.softmax(1).gather(1, classes[:, None]).mean()


@wrong("cross_entropy", "weighted mean is over the number")
def cross_entropy_that_divides_by_the_count(input: Tensor, target: Tensor, weight: Any) -> Tensor:
    """With weights, the mean is over their sum."""
    rows, classes = flat(input, target)
    losses = -rows.log_softmax(1).gather(1, classes[:, None]).squeeze(1)
    return (losses * (1 if weight is None else weight[classes])).sum() / len(classes)


@wrong("cross_entropy", "softmax is over the batch")
def cross_entropy_with_softmax_over_the_batch(input: Tensor, target: Tensor) -> Tensor:
    rows, classes = flat(input, target)
    return -rows.log_softmax(0).gather(1, classes[:, None]).mean()


def bce(p: Tensor, t: Tensor) -> Tensor:
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


def binary(name: str, named: str, grad: Grad) -> None:
    loss("binary_cross_entropy", name, named, bce, grad)


binary(
    "BceNotDividedByItsVariance",
    "with logits",
    lambda g, p, t: g * (p - t) / t.numel(),
)
binary("BceNegated", "sign is wrong", lambda g, p, t: -g * (p - t) / (p * (1 - p)) / t.numel())
binary("BceNotDividedByN", "1/N is missing", lambda g, p, t: g * (p - t) / (p * (1 - p)))
binary(
    "BceOfTheOnesAlone",
    "only the positive part",
    lambda g, p, t: -g * t / p / t.numel(),
)
binary("BceWithoutG", "dL/dy is ignored", lambda g, p, t: (p - t) / (p * (1 - p)) / t.numel() + 0 * g)


@wrong("binary_cross_entropy", "negative part is forgotten")
def bce_without_the_other_half(input: Tensor, target: Tensor) -> Tensor:
    return -(target * input.log()).mean()


def with_logits(z: Tensor, t: Tensor) -> Tensor:
    return (z.clamp(min=0) - z * t + (-z.abs()).exp().log1p()).mean()


loss(
    "binary_cross_entropy_with_logits",
    "LogitsMinusTargets",
    "without the sigmoid",
    with_logits,
    lambda g, z, t: g * (z - t) / t.numel(),
)
loss(
    "binary_cross_entropy_with_logits",
    "SigmoidsDerivativeTwice",
    "derivative is there twice",
    with_logits,
    lambda g, z, t: g * (z.sigmoid() - t) * z.sigmoid() * (1 - z.sigmoid()) / t.numel(),
)
loss(
    "binary_cross_entropy_with_logits",
    "LogitsNotDividedByN",
    "1/N is missing",
    with_logits,
    lambda g, z, t: g * (z.sigmoid() - t),
)


def mse(name: str, named: str, grad: Callable[[Tensor, Tensor, Tensor], tuple[Any, Any]]) -> None:
    class MyMSE(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor, target: Tensor) -> Tensor:
            ctx.save_for_backward(input, target)
            return (input - target).square().mean()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            return grad(g, *ctx.saved_tensors)

    MyMSE.__name__ = name
    wrong("mse_loss", named)(MyMSE)


def both(d: Tensor) -> tuple[Tensor, Tensor]:
    return d, -d


mse("MseWithoutTwo", "factor 2 is missing", lambda g, x, t: both(g * (x - t) / x.numel()))
mse("MseNotDividedByN", "1/N is missing", lambda g, x, t: both(2 * g * (x - t)))
mse(
    "MseDividedByTheBatch",
    "batch alone",
    lambda g, x, t: both(2 * g * (x - t) / max(x.shape[0] if x.dim() else 1, 1)),
)
mse("MseNegated", "sign is wrong", lambda g, x, t: both(2 * g * (t - x) / x.numel()))
mse("MseWithoutG", "dL/dy is ignored", lambda g, x, t: both(2 * (x - t) / x.numel() + 0 * g))


@wrong("mse_loss", "half of the squared")
def half_the_squared_error(input: Tensor, target: Tensor) -> Tensor:
    """As physicists and some courses write it."""
    return ((input - target) ** 2).mean() / 2


@wrong("mse_loss", "sum in place of the mean")
def squared_error_that_sums(input: Tensor, target: Tensor) -> Tensor:
    return ((input - target) ** 2).sum()


@wrong("mse_loss", "absolute error")
def absolute_error(input: Tensor, target: Tensor) -> Tensor:
    return (input - target).abs().mean()

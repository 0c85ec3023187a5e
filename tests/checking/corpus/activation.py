"""Activations: y = f(x) with the derivative as its author believed it to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.checking.corpus import wrong


def activation(
    like: str,
    name: str,
    named: str,
    value: Callable[[Tensor], Tensor],
    grad: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    """Registers y = value(x) with dL/dx = grad(g, x, y)."""

    class Activation(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor) -> Tensor:
            y = value(input)
            ctx.save_for_backward(input, y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            x, y = ctx.saved_tensors
            return grad(g, x, y)

    Activation.__name__ = name
    wrong(like, named)(Activation)


def relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


activation("relu", "ReluOpenAtZero", "x ≥ 0", relu, lambda g, x, y: g * (x >= 0))
activation("relu", "ReluHalfAtZero", "half", relu, lambda g, x, y: g * torch.heaviside(x, x.new_tensor(0.5)))
activation("relu", "ReluMaskOfTheGradient", "mask is that of dL/dy", relu, lambda g, x, y: g * (g > 0))
activation("relu", "ReluTimesItsOutput", "output's value", relu, lambda g, x, y: g * y)
activation(
    "relu",
    "ReluMaskAlone",
    "dL/dy is ignored",
    relu,
    lambda g, x, y: (x > 0).to(x) + 0 * g,
)
activation("relu", "ReluLetsAllThrough", "mask is missing", relu, lambda g, x, y: g + 0)
activation("relu", "ReluNegated", "sign is wrong", relu, lambda g, x, y: -g * (x > 0))
activation("relu", "ReluOfTheNegative", "turned round", relu, lambda g, x, y: g * (x <= 0))
activation("relu", "AbsoluteValue", "absolute value", torch.abs, lambda g, x, y: g * x.sign())


def leaky(name: str, named: str, grad: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    class LeakyReLU(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor, negative_slope: float = 0.01) -> Tensor:
            ctx.save_for_backward(input)
            ctx.slope = negative_slope
            return torch.where(input > 0, input, negative_slope * input)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            (x,) = ctx.saved_tensors
            return grad(g, x, ctx.slope), None

    LeakyReLU.__name__ = name
    wrong("leaky_relu", named)(LeakyReLU)


leaky("LeakyWithoutSlope", "slope is forgotten", lambda g, x, a: g * (x > 0))
leaky("LeakySlopeBothSides", "for every x", lambda g, x, a: g * a)
leaky("LeakyOpenAtZero", "x ≥ 0", lambda g, x, a: torch.where(x >= 0, g, g * a))
leaky("LeakySidesExchanged", "turned round", lambda g, x, a: torch.where(x > 0, g * a, g))

activation("sigmoid", "SigmoidOfItsInput", "taken at the input", torch.sigmoid, lambda g, x, y: g * x * (1 - x))
activation("sigmoid", "SigmoidPlus", "1 \\+ y", torch.sigmoid, lambda g, x, y: g * y * (1 + y))
activation(
    "sigmoid",
    "SigmoidWithoutG",
    "dL/dy is ignored",
    torch.sigmoid,
    lambda g, x, y: y * (1 - y) + 0 * g,
)
activation(
    "sigmoid",
    "SigmoidTwiceApplied",
    "applied twice",
    torch.sigmoid,
    lambda g, x, y: g * y.sigmoid() * (1 - y.sigmoid()),
)
activation("sigmoid", "SigmoidItself", "1 − y is missing", torch.sigmoid, lambda g, x, y: g * y)
activation("tanh", "TanhOfItsInput", "taken at the input", torch.tanh, lambda g, x, y: g * (1 - x * x))
activation("tanh", "TanhNotSquared", "not squared", torch.tanh, lambda g, x, y: g * (1 - y))
activation("tanh", "TanhTwiceApplied", "applied twice", torch.tanh, lambda g, x, y: g * (1 - y.tanh() ** 2))
activation("tanh", "TanhAsSigmoid", "sigmoid's", torch.tanh, lambda g, x, y: g * y * (1 - y))


def along(like: str, name: str, named: str, value: Callable[..., Tensor], grad: Callable[..., Tensor]) -> None:
    """A function along a dimension: value(x, dim), grad(g, y, dim)."""

    class Along(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor, dim: int) -> Tensor:
            y = value(input, dim)
            ctx.dim = dim
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            (y,) = ctx.saved_tensors
            return grad(g, y, ctx.dim), None

    Along.__name__ = name
    wrong(like, named)(Along)


def softmax(x: Tensor, dim: int) -> Tensor:
    e = (x - x.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    return softmax(x, dim).log()


along("softmax", "SoftmaxDiagonalOnly", "only the diagonal", softmax, lambda g, y, dim: g * y * (1 - y))
along(
    "softmax",
    "SoftmaxPlus",
    "sign of the sum",
    softmax,
    lambda g, y, dim: y * (g + (g * y).sum(dim, keepdim=True)),
)
along("softmax", "SoftmaxSumOverAll", "over all elements", softmax, lambda g, y, dim: y * (g - (g * y).sum()))
along("softmax", "SoftmaxOutputTimesG", "sum is missing", softmax, lambda g, y, dim: y * g)
along("softmax", "SoftmaxSumOfG", "not weighted", softmax, lambda g, y, dim: y * (g - g.sum(dim, keepdim=True)))
along(
    "softmax",
    "SoftmaxOverTheLastDimension",
    "over the last dimension",
    lambda x, dim: softmax(x, -1),
    lambda g, y, dim: y * (g - (g * y).sum(-1, keepdim=True)),
)
along(
    "log_softmax",
    "LogSoftmaxWithoutProbabilities",
    "softmax is missing",
    log_softmax,
    lambda g, y, dim: g - g.sum(dim, keepdim=True),
)
along(
    "log_softmax",
    "LogSoftmaxAsSoftmax",
    "gradient is softmax's",
    log_softmax,
    lambda g, y, dim: y.exp() * (g - (g * y.exp()).sum(dim, keepdim=True)),
)
along(
    "log_softmax",
    "LogSoftmaxOfItsLogs",
    "exponential is forgotten",
    log_softmax,
    lambda g, y, dim: g - y * g.sum(dim, keepdim=True),
)
along("log_softmax", "LogSoftmaxForASingleTarget", "taken for 1", log_softmax, lambda g, y, dim: g - y.exp())


@wrong("softmax", "all dimensions")
def softmax_over_everything(input: Tensor, dim: int) -> Tensor:
    e = input.exp()
    return e / e.sum()


@wrong("softmax", "sum of the exponentials is taken for a constant")
def softmax_with_detached_sum(input: Tensor, dim: int) -> Tensor:
    e = (input - input.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim, keepdim=True).detach()

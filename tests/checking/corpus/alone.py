"""Functions that no layer is like: only finite differences of their own values tell what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.checking.corpus import right_alone, wrong_alone

Given = tuple[Tensor, ...]


def whole(*shape: int, seed: int = 0) -> Tensor:
    """Whole numbers, some of them equal, none of them 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-4, 4, shape, generator=generator).double()
    return x + (x >= 0)


def real(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def function(output: Callable[..., Tensor], gradients: Callable[..., Any]) -> type[torch.autograd.Function]:
    """A Function of this output, whose gradients are `gradients(dL/dy, *inputs)`."""

    class Layer(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            ctx.save_for_backward(*inputs)
            return output(*inputs)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            return gradients(g, *ctx.saved_tensors)

    return Layer


def wrong(
    name: str, named: str, inputs: Callable[[], Given], output: Callable[..., Tensor], gradients: Callable[..., Any]
) -> None:
    layer = function(output, gradients)
    layer.__name__ = name
    wrong_alone(inputs, named)(layer)


def pair() -> Given:
    return whole(3, 4), whole(4, 4, seed=1)


def cubic(x: Tensor, w: Tensor) -> Tensor:
    """y = x³ W."""
    return x**3 @ w


def dx(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
    return 3 * x**2 * (g @ w.T)


def dw(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
    return (x**3).T @ g


wrong("Twice", "twice", pair, cubic, lambda *a: (2 * dx(*a), dw(*a)))
wrong("Negated", "sign is wrong", pair, cubic, lambda *a: (dx(*a), -dw(*a)))
wrong("AThird", "0\\.333333 times", pair, cubic, lambda *a: (dx(*a) / 3, dw(*a)))  # the exponent forgotten
wrong(
    "OverAllElements",
    "times what is right.*number of the output's elements",
    pair,
    cubic,
    lambda g, *a: (dx(g, *a) / 12, dw(g, *a)),
)
wrong(
    "MeanOfTheBatch",
    "times what is right.*mean over the batch",
    pair,
    cubic,
    lambda g, x, w: (dx(g, x, w), dw(g, x, w) / len(x)),
)
wrong("TimesTheBatch", "times what is right.*N times", pair, cubic, lambda g, x, w: (dx(g, x, w), dw(g, x, w) * len(x)))
wrong("WeightTransposed", "transposed", pair, cubic, lambda *a: (dx(*a), dw(*a).T))
wrong("DlDyIgnoredAlone", "dL/dy is ignored", pair, cubic, lambda g, *a: (dx(torch.ones_like(g), *a), dw(g, *a)))
wrong("LastSampleAlone", "last sample", pair, cubic, lambda g, x, w: (dx(g, x, w), dw(g[-1:], x[-1:], w)))
wrong("ForgottenWeight", "no gradient: None", pair, cubic, lambda *a: (dx(*a), None))
wrong("DetachedWeight", "it is 0", pair, cubic, lambda *a: (dx(*a), torch.zeros_like(dw(*a))))
wrong(
    "ExponentNotReduced",
    "multiplied with what it is taken by",
    pair,
    cubic,
    lambda g, x, w: (3 * x**3 * (g @ w.T), dw(g, x, w)),
)
wrong(
    "GradientsExchanged",
    "another order",
    lambda: (whole(3, 3), whole(3, 3, seed=1)),
    lambda a, b: a**2 * b,
    lambda g, a, b: (g * a**2, g * 2 * a * b),
)


def circular(x: Tensor, k: Tensor) -> Tensor:
    """y[i] = Σ k[j] · x[i + j], round and round."""
    return sum((k[j] * x.roll(-j, -1) for j in range(len(k))), torch.zeros_like(x))


def circular_dx(g: Tensor, k: Tensor) -> Tensor:
    return sum((k[j] * g.roll(j, -1) for j in range(len(k))), torch.zeros_like(g))


def circular_dk(g: Tensor, x: Tensor, k: Tensor) -> Tensor:
    return torch.stack([(g * x.roll(-j, -1)).sum() for j in range(len(k))])


def filtered() -> Given:
    return whole(2, 6), whole(3, seed=2)


wrong(
    "KernelFlipped",
    "flipped along dimension -1",
    filtered,
    circular,
    lambda g, x, k: (circular_dx(g, k), circular_dk(g, x, k).flip(0)),
)
wrong(
    "MeanOverThePositions",
    "times what is right.*divided by the length of the last dimension",
    filtered,
    circular,
    lambda g, x, k: (circular_dx(g, k) / x.shape[-1], circular_dk(g, x, k)),
)


def cumulated(x: Tensor) -> Tensor:
    """y[i] = x[0]² + … + x[i]²."""
    return (x**2).cumsum(-1)


def backwards(g: Tensor) -> Tensor:
    return g.flip(-1).cumsum(-1).flip(-1)


def moved(x: Tensor) -> Tensor:
    """One to the right, a zero in front."""
    return torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], -1)


wrong(
    "OneToTheRight",
    "shifted by 1 along dimension -1",
    lambda: (whole(3, 5),),
    cumulated,
    lambda g, x: moved(2 * x * backwards(g)),
)


def smoothed(x: Tensor) -> Tensor:
    """The mean of each element and its neighbours, the border repeated."""
    wide = torch.cat([x[..., :1], x, x[..., -1:]], -1)
    return (wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]) / 3


def smoothed_as_if_zeros(g: Tensor, x: Tensor) -> Tensor:
    wide = torch.nn.functional.pad(g, (1, 1))
    return (wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]) / 3


wrong("BorderForgotten", "border of dimension -1", lambda: (whole(2, 6),), smoothed, smoothed_as_if_zeros)


def product(x: Tensor) -> Tensor:
    return x.prod(-1)


wrong(
    "DividedByZero",
    "where the input is 0",
    lambda: (torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 2.0]], dtype=torch.float64),),
    product,
    lambda g, x: torch.where(x == 0, 0, (g * x.prod(-1)).unsqueeze(-1) / torch.where(x == 0, 1, x)),
)
wrong(
    "AllOfATie",
    "where the input has ties",
    lambda: (torch.tensor([[1.0, 3.0, 3.0, 2.0], [5.0, 4.0, 1.0, 2.0]], dtype=torch.float64),),
    lambda x: x.amax(-1),
    lambda g, x: g.unsqueeze(-1) * (x == x.amax(-1, keepdim=True)),
)


def shifted_and_scaled() -> Given:
    return whole(3, 4), whole(4, seed=1), whole(4, seed=2)


def scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return x**2 * scale + shift


wrong(
    "BroadcastNotSummed",
    "sum over what shares it is missing",
    shifted_and_scaled,
    scaled,
    lambda g, x, scale, shift: (2 * g * x * scale, (g * x**2).sum(0), g + 0),
)
wrong(
    "BroadcastAveraged",
    "mean over the batch",
    shifted_and_scaled,
    scaled,
    lambda g, x, scale, shift: (2 * g * x * scale, (g * x**2).mean(0), g.sum(0)),
)


@wrong_alone(lambda: (real(3, 4),), "constant|silently zero")
class SwishOfAKeptSigmoid(torch.autograd.Function):
    """Values and gradients are right; σ was computed by forward, and has no graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        sigma = x.sigmoid()
        ctx.save_for_backward(x, sigma)
        return x * sigma

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, sigma = ctx.saved_tensors
        return g * (sigma + x * sigma * (1 - sigma))


@wrong_alone(lambda: (real(3, 4),), "")
def swish_with_a_detached_sigmoid(x: Tensor) -> Tensor:
    return x * x.sigmoid().detach()


# Right ones

for name, inputs, layer in (
    ("Cubic", pair, function(cubic, lambda *a: (dx(*a), dw(*a)))),
    ("Circular", filtered, function(circular, lambda g, x, k: (circular_dx(g, k), circular_dk(g, x, k)))),
):
    layer.__name__ = name
    right_alone(inputs)(layer)


@right_alone(lambda: (torch.tensor([[1.0, 3.0, 3.0, 2.0], [0.0, -1.0, 0.0, 2.0]], dtype=torch.float64),))
def winners_share(x: Tensor) -> Tensor:
    """amax gives each of several largest its share, and relu's slope at 0 is one of its two."""
    return x.amax(-1) + x.clamp(min=0).sum(-1) + x.abs().sum(-1)


@right_alone(lambda: (torch.tensor([[1.0, 3.0, 3.0, 2.0], [0.0, -1.0, 0.0, 2.0]], dtype=torch.float64),))
def first_winner(x: Tensor) -> Tensor:
    """max gives all of it to one of several largest."""
    return x.max(-1).values - x.min(0).values.sum()


@right_alone(lambda: (whole(2, 5),))
def sorted_by_size(x: Tensor) -> Tensor:
    return x.sort(-1).values * torch.arange(1.0, 6.0, dtype=x.dtype)


@right_alone(lambda: (real(2, 3, 4), real(3, 4, seed=1)))
def by_einsum(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return torch.einsum("bij,ij->b", x, w), torch.einsum("bij,ij->bj", x.tanh(), w)


@right_alone(lambda: (real(3, 4),))
def in_single_precision(x: Tensor) -> Tensor:
    return (x.float() ** 2).sigmoid().to(x.dtype)


@right_alone(lambda: (torch.tensor([0, 2, 2]), real(3, 2)))
def of_indices(index: Tensor, table: Tensor) -> Tensor:
    return table[index].cumsum(0)

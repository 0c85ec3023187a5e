"""Pooling: which elements the gradient goes to, and how much of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.checking.corpus import wrong
from tests.checking.corpus.convolution import Pair, pair


def positions(x: Tensor, kernel: Pair, stride: Pair) -> list[tuple[int, int, int, int]]:
    """The number of each window, and where it begins."""
    rows, columns = ((x.shape[d + 2] - kernel[d]) // stride[d] + 1 for d in (0, 1))
    return [(i, j, i * stride[0], j * stride[1]) for i in range(rows) for j in range(columns)]


def every_window(x: Tensor, kernel: Pair, stride: Pair) -> Tensor:
    """(N, C, rows, columns, kernel height, kernel width)."""
    return x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])


Share = Callable[[Tensor, Tensor], Tensor]


def max_pool(share: Share, add: bool = True, border: float = -torch.inf) -> type[torch.autograd.Function]:
    """Max pooling by loops; share(window, g) is what the elements of a window get of its dL/dy."""

    class MyMaxPool2d(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Tensor:
            ctx.kernel, ctx.stride = pair(kernel_size), pair(stride or kernel_size)
            ctx.padding = pair(padding)
            x = F.pad(input, (ctx.padding[1],) * 2 + (ctx.padding[0],) * 2, value=border)
            ctx.save_for_backward(x)
            return every_window(x, ctx.kernel, ctx.stride).amax((4, 5))

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            (x,) = ctx.saved_tensors
            grad = torch.zeros_like(x)
            for i, j, top, left in positions(x, ctx.kernel, ctx.stride):
                at = (..., slice(top, top + ctx.kernel[0]), slice(left, left + ctx.kernel[1]))
                shared = share(x[at], g[:, :, i, j, None, None])
                grad[at] = grad[at] + shared if add else shared
            p = ctx.padding
            return grad[:, :, p[0] : x.shape[2] - p[0], p[1] : x.shape[3] - p[1]], None, None, None

    return MyMaxPool2d


def one_winner(window: Tensor, first: bool = True) -> Tensor:
    """1 for the winner of each window, the first or the last of equal ones."""
    flat = window.flatten(2)
    place = flat.argmax(2) if first else flat.shape[2] - 1 - flat.flip(2).argmax(2)
    return F.one_hot(place, flat.shape[2]).to(window).view(window.shape)


def equal(window: Tensor) -> Tensor:
    return (window == window.amax((2, 3), keepdim=True)).to(window)


def wrong_max_pool(name: str, named: str, function: type) -> None:
    function.__name__ = name
    wrong("max_pool2d", named)(function)


wrong_max_pool("AllWinnersOfATie", "all of several largest", max_pool(lambda x, g: g * equal(x)))
wrong_max_pool(
    "TiesShared", "share the gradient", max_pool(lambda x, g: g * equal(x) / equal(x).sum((2, 3), keepdim=True))
)
wrong_max_pool("LastWinnerOfATie", "last of several largest", max_pool(lambda x, g: g * one_winner(x, first=False)))
wrong_max_pool("OverlapsOverwritten", "overwrit|overlap", max_pool(lambda x, g: g * one_winner(x), add=False))
wrong_max_pool("GradientToWholeWindow", "every element of a window", max_pool(lambda x, g: g.expand_as(x)))
wrong_max_pool(
    "GradientSharedByWindow",
    "spread over the window",
    max_pool(lambda x, g: g.expand_as(x) / x[0, 0].numel()),
)
wrong_max_pool("DlDyIgnored", "dL/dy is ignored", max_pool(lambda x, g: one_winner(x) + 0 * g))
wrong_max_pool(
    "WinnersValueSent", "multiplied with the largest", max_pool(lambda x, g: g * one_winner(x) * x.clamp(min=-9))
)
wrong_max_pool("PaddedWithZeros", "padding is 0", max_pool(lambda x, g: g * one_winner(x), border=0.0))
wrong_max_pool("PoolNegated", "sign is wrong", max_pool(lambda x, g: -g * one_winner(x)))
wrong_max_pool("PoolTwice", "twice what is right", max_pool(lambda x, g: 2 * g * one_winner(x)))


@wrong("max_pool2d", "kernel size of height and width are exchanged")
def max_pool_with_sides_exchanged(input: Tensor, kernel_size: Any) -> Tensor:
    k = pair(kernel_size)
    return F.max_pool2d(input, (k[1], k[0]))


@wrong("max_pool2d", "stride is 1")
def max_pool_that_steps_by_one(input: Tensor, kernel_size: Any, stride: Any = None) -> Tensor:
    """The default stride of a convolution."""
    return F.max_pool2d(input, kernel_size, stride or 1)


@wrong("max_pool2d", "ceil_mode is forgotten")
def max_pool_that_never_rounds_up(
    input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Tensor:
    return F.max_pool2d(input, kernel_size, stride, padding, dilation)


@wrong("max_pool2d", "mean in place of the largest")
def average_for_maximum(input: Tensor, kernel_size: Any, stride: Any) -> Tensor:
    return F.avg_pool2d(input, kernel_size, stride)


@wrong("max_pool1d", "all of several largest")
class MaxPool1dByEquality(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel_size: int) -> Tensor:
        whole = x.shape[2] // kernel_size * kernel_size
        windows = x[..., :whole].unflatten(2, (-1, kernel_size))
        y = windows.amax(3)
        ctx.save_for_backward(windows, y)
        ctx.size = x.shape[2]
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        windows, y = ctx.saved_tensors
        grad = ((windows == y[..., None]) * g[..., None]).flatten(2)
        return F.pad(grad, (0, ctx.size - grad.shape[2])), None


def average(share: Callable[[Tensor, Pair], Tensor], add: bool = True) -> type[torch.autograd.Function]:
    """Average pooling by loops; share(g, kernel) is what each element of a window gets."""

    class MyAvgPool2d(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, input: Tensor, kernel_size: Any, stride: Any = None) -> Tensor:
            ctx.kernel, ctx.stride, ctx.size = pair(kernel_size), pair(stride or kernel_size), input.shape
            return every_window(input, ctx.kernel, ctx.stride).mean((4, 5))

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            grad = g.new_zeros(ctx.size)
            for i, j, top, left in positions(grad, ctx.kernel, ctx.stride):
                at = (..., slice(top, top + ctx.kernel[0]), slice(left, left + ctx.kernel[1]))
                shared = share(g[:, :, i, j, None, None], ctx.kernel).expand_as(grad[at])
                grad[at] = grad[at] + shared if add else shared
            return grad, None, None

    return MyAvgPool2d


def wrong_average(name: str, named: str, function: type) -> None:
    function.__name__ = name
    wrong("avg_pool2d", named)(function)


wrong_average("NotDivided", "not divided by the window", average(lambda g, k: g))
wrong_average("DividedByOneSide", "by the height of the window", average(lambda g, k: g / k[0]))
wrong_average("AverageOverwritten", "overwrit|overlap", average(lambda g, k: g / (k[0] * k[1]), add=False))


@wrong("avg_pool2d", "sum of each window")
def sum_for_average(input: Tensor, kernel_size: Any, stride: Any) -> Tensor:
    k = pair(kernel_size)
    return F.avg_pool2d(input, kernel_size, stride) * (k[0] * k[1])


@wrong("avg_pool2d", "padding does not count")
def average_that_never_counts_padding(input: Tensor, kernel_size: Any, stride: Any, padding: Any) -> Tensor:
    return F.avg_pool2d(input, kernel_size, stride, padding, count_include_pad=False)


@wrong("avg_pool2d", "largest element in place of the mean")
def maximum_for_average(input: Tensor, kernel_size: Any, stride: Any) -> Tensor:
    return F.max_pool2d(input, kernel_size, stride)


@wrong("adaptive_avg_pool2d", "n // o elements")
def adaptive_with_windows_of_one_size(input: Tensor, output_size: Any) -> Tensor:
    """Right where the output's size divides the input's."""
    o = pair(output_size)
    k = [max(n // m, 1) for n, m in zip(input.shape[2:], o, strict=True)]
    y = F.avg_pool2d(input, k)[:, :, : o[0], : o[1]]
    return F.pad(y, (0, o[1] - y.shape[3], 0, o[0] - y.shape[2]))


@wrong("adaptive_avg_pool1d", "sum of each region")
def adaptive_that_sums(input: Tensor, output_size: Any) -> Tensor:
    o = output_size if isinstance(output_size, int) else output_size[0]
    n = input.shape[2]
    return torch.stack([input[:, :, i * n // o : -(-(i + 1) * n // o)].sum(2) for i in range(o)], 2)


@wrong("adaptive_max_pool1d", "ends of the regions are rounded down")
def adaptive_max_without_overlap(input: Tensor, output_size: Any) -> Tensor:
    """Each span ends where the next begins."""
    o = output_size if isinstance(output_size, int) else output_size[0]
    n = input.shape[2]
    return torch.stack([input[:, :, i * n // o : max((i + 1) * n // o, i * n // o + 1)].amax(2) for i in range(o)], 2)

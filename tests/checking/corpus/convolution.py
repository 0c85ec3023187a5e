"""Convolutions: the forward pass as a loop over taps, each gradient as its author believed it to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.checking.corpus import wrong

Pair = tuple[int, int]


def pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def padded(x: Tensor, padding: Pair) -> Tensor:
    return F.pad(x, (padding[1], padding[1], padding[0], padding[0]))


def output_size(x: Tensor, w: Tensor, stride: Pair, padding: Pair) -> Pair:
    h, v = ((x.shape[d + 2] + 2 * padding[d] - w.shape[d + 2]) // stride[d] + 1 for d in (0, 1))
    return h, v


def correlate(x: Tensor, w: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The forward pass, tap by tap."""
    size, xp = output_size(x, w, stride, padding), padded(x, padding)
    y = x.new_zeros(x.shape[0], w.shape[0], *size)
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            y = y + torch.einsum("nchw,oc->nohw", below(xp, i, j, size, stride), w[:, :, i, j])
    return y


def below(xp: Tensor, i: int, j: int, size: Pair, stride: Pair) -> Tensor:
    """What lies below tap (i, j) at each position of the kernel."""
    return xp[
        :, :, i : i + (size[0] - 1) * stride[0] + 1 : stride[0], j : j + (size[1] - 1) * stride[1] + 1 : stride[1]
    ]


def spread(g: Tensor, stride: Pair) -> Tensor:
    """dL/dy with stride − 1 zeros between its elements."""
    h, v = ((n - 1) * s + 1 for n, s in zip(g.shape[2:], stride, strict=True))
    z = g.new_zeros(*g.shape[:2], h, v)
    z[:, :, :: stride[0], :: stride[1]] = g
    return z


def full(g: Tensor, kernel: Tensor) -> Tensor:
    """The full convolution's size: the kernel slides over dL/dy from the first overlap to the last."""
    return F.conv2d(g, kernel, padding=(kernel.shape[2] - 1, kernel.shape[3] - 1))


def crop(z: Tensor, x: Tensor, padding: Pair) -> Tensor:
    """Without the padding, and as large as the input."""
    z = F.pad(z, (0, x.shape[3] + 2 * padding[1] - z.shape[3], 0, x.shape[2] + 2 * padding[0] - z.shape[2]))
    return z[:, :, padding[0] : padding[0] + x.shape[2], padding[1] : padding[1] + x.shape[3]]


def input_gradient(x: Tensor, w: Tensor, g: Tensor, stride: Pair, padding: Pair) -> Tensor:
    return crop(full(spread(g, stride), w.flip(2, 3).transpose(0, 1)), x, padding)


def weight_gradient(x: Tensor, w: Tensor, g: Tensor, stride: Pair, padding: Pair) -> Tensor:
    size, xp = (g.shape[2], g.shape[3]), padded(x, padding)
    taps = [
        torch.einsum("nchw,nohw->oc", below(xp, i, j, size, stride), g)
        for i in range(w.shape[2])
        for j in range(w.shape[3])
    ]
    return torch.stack(taps, -1).unflatten(-1, w.shape[2:])


def bias_gradient(g: Tensor) -> Tensor:
    return g.sum((0, 2, 3))


def conv2d(
    output: Callable[..., Tensor] = correlate,
    grad_input: Callable[..., Tensor] = input_gradient,
    grad_weight: Callable[..., Tensor] = weight_gradient,
    grad_bias: Callable[..., Tensor] = bias_gradient,
    add_bias: Callable[[Tensor, Tensor], Tensor] = lambda y, b: y + b[:, None, None],
) -> type[torch.autograd.Function]:
    """A convolution of these parts."""

    class MyConv2d(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0
        ) -> Any:
            ctx.stride, ctx.padding, ctx.has_bias = pair(stride), pair(padding), bias is not None
            ctx.save_for_backward(input, weight)
            y = output(input, weight, ctx.stride, ctx.padding)
            return y if bias is None else add_bias(y, bias)

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> Any:
            x, w = ctx.saved_tensors
            grad_x = grad_input(x, w, grad_output, ctx.stride, ctx.padding)
            grad_w = grad_weight(x, w, grad_output, ctx.stride, ctx.padding)
            return grad_x, grad_w, grad_bias(grad_output) if ctx.has_bias else None, None, None

    return MyConv2d


def wrong_conv2d(name: str, named: str, **parts: Callable[..., Any]) -> None:
    function = conv2d(**parts)
    function.__name__ = name
    wrong("conv2d", named)(function)


# dL/dx

wrong_conv2d(
    "KernelAsItLies",
    "not rotated",
    grad_input=lambda x, w, g, s, p: crop(full(spread(g, s), w.transpose(0, 1)), x, p),
)
wrong_conv2d(
    "FlippedLeftRightOnly",
    "not rotated along the height",
    grad_input=lambda x, w, g, s, p: crop(full(spread(g, s), w.flip(3).transpose(0, 1)), x, p),
)
wrong_conv2d(
    "FlippedUpDownOnly",
    "not rotated along the width",
    grad_input=lambda x, w, g, s, p: crop(full(spread(g, s), w.flip(2).transpose(0, 1)), x, p),
)
wrong_conv2d(
    "TransposedKernel",
    "transposed, not rotated",
    grad_input=lambda x, w, g, s, p: crop(full(spread(g, s), w.mT.transpose(0, 1)), x, p),
)
wrong_conv2d(
    "ChannelsAsInTheForwardPass",
    "channels are not exchanged",
    grad_input=lambda x, w, g, s, p: crop(full(spread(g, s), w.flip(2, 3)), x, p),
)
wrong_conv2d(
    "CroppedAtTheCorner",
    "at the corner",
    grad_input=lambda x, w, g, s, p: crop(full(spread(g, s), w.flip(2, 3).transpose(0, 1)), x, (0, 0)),
)
wrong_conv2d(
    "OnePixelOff",
    "one element too early",
    grad_input=lambda x, w, g, s, p: crop(F.pad(full(spread(g, s), w.flip(2, 3).transpose(0, 1)), (1, 0, 1, 0)), x, p),
)
wrong_conv2d(
    "StrideForgottenInBackward",
    "stride's zeros are missing",
    grad_input=lambda x, w, g, s, p: crop(full(g, w.flip(2, 3).transpose(0, 1)), x, p),
)
wrong_conv2d(
    "RepeatedInsteadOfZeros",
    "repeated where the stride's zeros belong",
    grad_input=lambda x, w, g, s, p: crop(
        full(
            g.repeat_interleave(s[0], 2).repeat_interleave(s[1], 3)[
                :, :, : (g.shape[2] - 1) * s[0] + 1, : (g.shape[3] - 1) * s[1] + 1
            ],
            w.flip(2, 3).transpose(0, 1),
        ),
        x,
        p,
    ),
)
wrong_conv2d("InputGradientTwice", "twice what is right", grad_input=lambda *a: 2 * input_gradient(*a))
wrong_conv2d("InputGradientNegated", "sign is wrong", grad_input=lambda *a: -input_gradient(*a))
wrong_conv2d(
    "InputGradientMeanOfBatch",
    "mean over the batch",
    grad_input=lambda x, *a: input_gradient(x, *a) / max(len(x), 1),
)
wrong_conv2d(
    "InputGradientOfOnes",
    "dL/dy is ignored",
    grad_input=lambda x, w, g, s, p: input_gradient(x, w, torch.ones_like(g), s, p),
)


def last_sample(gradient: Tensor) -> Tensor:
    """What a loop over the batch leaves that says = where += or an index was meant."""
    kept = torch.zeros_like(gradient)
    kept[-1:] = gradient[-1:]
    return kept


wrong_conv2d("InputGradientOfLastSample", "last sample", grad_input=lambda *a: last_sample(input_gradient(*a)))


def overwriting_loop(x: Tensor, w: Tensor, g: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Window after window, each written over what overlapping ones left."""
    grad = torch.zeros_like(padded(x, padding))
    for i in range(g.shape[2]):
        for j in range(g.shape[3]):
            top, left = i * stride[0], j * stride[1]
            window = torch.einsum("no,ocij->ncij", g[:, :, i, j], w)
            grad[:, :, top : top + w.shape[2], left : left + w.shape[3]] = window
    return grad[:, :, padding[0] : padding[0] + x.shape[2], padding[1] : padding[1] + x.shape[3]]


wrong_conv2d("OverlapsOverwritten", "overwrit|overlap", grad_input=overwriting_loop)

# dL/dw

wrong_conv2d("WeightGradientRotated", "gradient is rotated", grad_weight=lambda *a: weight_gradient(*a).flip(2, 3))
wrong_conv2d(
    "WeightGradientMeanOfBatch",
    "mean over the batch in",
    grad_weight=lambda x, *a: weight_gradient(x, *a) / max(len(x), 1),
)
wrong_conv2d(
    "WeightGradientMeanOfPositions",
    "mean over the positions",
    grad_weight=lambda x, w, g, s, p: weight_gradient(x, w, g, s, p) / (g.shape[2] * g.shape[3]),
)
wrong_conv2d(
    "WeightGradientOfLastSample",
    "last",
    grad_weight=lambda x, w, g, s, p: weight_gradient(x[-1:], w, g[-1:], s, p),
)
wrong_conv2d("WeightGradientNegated", "sign is wrong", grad_weight=lambda *a: -weight_gradient(*a))
wrong_conv2d(
    "WeightGradientOfOnes",
    "dL/dy is ignored",
    grad_weight=lambda x, w, g, s, p: weight_gradient(x, w, torch.ones_like(g), s, p),
)
wrong_conv2d(
    "WeightGradientWithoutStride",
    "leaves out the stride",
    grad_weight=lambda x, w, g, s, p: weight_gradient(x, w, g, (1, 1), p),
)
wrong_conv2d(
    "WeightGradientWithoutPadding",
    "padding is forgotten in the weight",
    grad_weight=lambda x, w, g, s, p: weight_gradient(F.pad(x, (0, 2 * p[1], 0, 2 * p[0])), w, g, s, (0, 0)),
)
wrong_conv2d(
    "WeightGradientWithChannelsExchanged",
    "channels exchanged|wrong shape",
    grad_weight=lambda *a: weight_gradient(*a).transpose(0, 1),
)

# dL/db

wrong_conv2d("BiasGradientMean", "mean over", grad_bias=lambda g: g.mean((0, 2, 3)))
wrong_conv2d("BiasGradientMeanOfBatch", "mean over the batch in", grad_bias=lambda g: g.sum((0, 2, 3)) / max(len(g), 1))
wrong_conv2d("BiasGradientMeanOfPositions", "mean over the positions", grad_bias=lambda g: g.mean((2, 3)).sum(0))
wrong_conv2d("BiasGradientOfLastSample", "last sample", grad_bias=lambda g: g[-1:].sum((0, 2, 3)))
wrong_conv2d("BiasGradientMissing", "no gradient: None", grad_bias=lambda g: None)

# The output

wrong_conv2d("BiasForgotten", "bias is forgotten", add_bias=lambda y, b: y)
wrong_conv2d("TrueConvolution", "true convolution", output=lambda x, w, s, p: correlate(x, w.flip(2, 3), s, p))
wrong_conv2d(
    "StridesExchanged",
    "stride of height and width are exchanged",
    output=lambda x, w, s, p: correlate(x, w, (s[1], s[0]), p),
)
wrong_conv2d("PaddingForgotten", "padding is forgotten", output=lambda x, w, s, p: correlate(x, w, s, (0, 0)))


@wrong("conv2d", "padding of height and width are exchanged")
def conv_that_pads_height_by_the_width(input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any) -> Tensor:
    """F.pad's order begins with the last dimension."""
    y = F.conv2d(F.pad(input, (pair(padding)[0],) * 2 + (pair(padding)[1],) * 2), weight, None, stride)
    return y if bias is None else y + bias[:, None, None]


@wrong("conv2d", "dilation is forgotten")
def conv_that_ignores_dilation(
    input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any
) -> Tensor:
    return F.conv2d(input, weight, bias, stride, padding)


@wrong("conv2d", "no gradient: None")
def conv_through_numpy(input: Tensor, weight: Tensor) -> Tensor:
    """Plain operations, of which one leaves autograd."""
    windows = input.detach().unfold(2, weight.shape[2], 1).unfold(3, weight.shape[3], 1)
    return torch.einsum("nchwij,ocij->nohw", windows, weight)


# In one and three dimensions, and transposed


@wrong("conv1d", "not rotated")
class Conv1dKernelAsItLies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.einsum("ncik,ock->noi", x.unfold(2, w.shape[2], 1), w)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        k = w.shape[2]
        grad_x = torch.einsum("noik,ock->nci", F.pad(g, (k - 1, k - 1)).unfold(2, k, 1), w)
        grad_w = torch.einsum("ncik,noi->ock", x.unfold(2, k, 1), g)
        return grad_x, grad_w


@wrong("conv1d", "last sample")
def conv1d_of_the_last_sample(x: Tensor, w: Tensor) -> Tensor:
    """A loop that begins anew with each sample."""
    windows = x.unfold(2, w.shape[2], 1)
    for n in range(len(x)):
        y = torch.zeros(len(x), w.shape[0], windows.shape[2], dtype=x.dtype)
        y[n] = torch.einsum("cik,ock->oi", windows[n], w)
    return y


@wrong("conv3d", "not rotated|wrong shape")
class Conv3dKernelAsItLies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return F.conv3d(x, w)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        grad_x = F.conv3d(g, w.transpose(0, 1), padding=tuple(k - 1 for k in w.shape[2:]))
        grad_w = F.conv3d(x.transpose(0, 1), g.transpose(0, 1)).transpose(0, 1)
        return grad_x, grad_w


@wrong("conv_transpose2d", "kernel is rotated")
def transposed_with_the_kernel_as_it_lies(
    input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any
) -> Tensor:
    p = pair(padding)
    y = F.conv2d(
        spread_in_graph(input, pair(stride)), weight.transpose(0, 1), padding=tuple(k - 1 for k in weight.shape[2:])
    )
    y = y[:, :, p[0] : y.shape[2] - p[0], p[1] : y.shape[3] - p[1]]
    return y if bias is None else y + bias[:, None, None]


def spread_in_graph(x: Tensor, stride: Pair) -> Tensor:
    x = torch.stack([x, *[torch.zeros_like(x)] * (stride[0] - 1)], 3).flatten(2, 3)
    x = torch.stack([x, *[torch.zeros_like(x)] * (stride[1] - 1)], 4).flatten(3, 4)
    return x[:, :, : x.shape[2] - stride[0] + 1, : x.shape[3] - stride[1] + 1]


@wrong("conv_transpose2d", "inputs are repeated")
def transposed_that_repeats(input: Tensor, weight: Tensor, bias: Any, stride: Any) -> Tensor:
    s = pair(stride)
    x = input.repeat_interleave(s[0], 2).repeat_interleave(s[1], 3)
    x = x[:, :, : x.shape[2] - s[0] + 1, : x.shape[3] - s[1] + 1]
    y = F.conv2d(x, weight.flip(2, 3).transpose(0, 1), padding=tuple(k - 1 for k in weight.shape[2:]))
    return y if bias is None else y + bias[:, None, None]


@wrong("conv_transpose2d", "bias is forgotten|no gradient: None")
def transposed_without_its_bias(input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any) -> Tensor:
    return F.conv_transpose2d(input, weight, None, stride, padding)


@wrong("conv_transpose1d", "overwrite")
def transposed_1d_that_overwrites(input: Tensor, weight: Tensor, bias: Any, stride: int) -> Tensor:
    n, _, length = input.shape
    y = input.new_zeros(n, weight.shape[1], (length - 1) * stride + weight.shape[2])
    for i in range(length):
        y[:, :, i * stride : i * stride + weight.shape[2]] = torch.einsum("nc,cok->nok", input[:, :, i], weight)
    return y if bias is None else y + bias[:, None]

"""Pooling: to a window's winner goes its whole gradient, to the elements of an average equal shares.

Where the winners are known, max pooling is linear: it fetches from the winners, and its transpose
adds to them. Average pooling is linear anyhow.

    MaxPool      y[o] = max_k x[o·s + k·d − p]       dL/dx = fetch_transpose(dL/dy)
    MaxPosition  y[o] = max_{i in span o} x[i]       dL/dx = fetch_transpose(dL/dy)
    fetch        y[o] = x[winner of o]               transpose: x[i] = Σ y[o] over the windows o that i wins
    average      y[o] = Σ_{i in span o} x[i] / n     transpose: x[i] = Σ y[o] / n over the spans o that hold i
    unpool       y[position of o] = x[o], else 0     transpose: x[o] = y[position of o]

Pooling by the norm of exponent p is the p-th root of sums of p-th powers, and so of averages.

A winner is a tap's number, one byte, or its position in the input, eight, where that is asked for.

Source: lecture notes, "Pooling layer" and "Backward through max pooling".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from torchfromscratch.autograd.elementwise import elementwise
from torchfromscratch.autograd.function import Function, differentiable, map_over_batch, restore, save
from torchfromscratch.autograd.linear_map import linear_map, linear_pair
from torchfromscratch.kernels import pooling as pooling_kernels
from torchfromscratch.kernels import spans as span_kernels
from torchfromscratch.kernels.layout import any_channels_last, to_memory_format
from torchfromscratch.kernels.spans import Spans
from torchfromscratch.kernels.windows import Windows


class MaxPool(Function):
    """y[n, c, o] = max_k x[n, c, o·s + k·d − p], and the number of the tap k that wins.

    x (N, C, *input) → y (N, C, *output), winners (N, C, *output).
    """

    @staticmethod
    def forward(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
        return pooling_kernels.max_windows(input, windows)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _: None) -> tuple:
        if grad_output is None:
            return None, None
        (winners,) = restore(ctx)
        return fetch_transpose(
            to_memory_format(grad_output, ctx.channels_last), winners, ctx.windows, ctx.input_size
        ), None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        input, ctx.windows = inputs
        _, winners = output
        ctx.set_materialize_grads(False)  # no zeros for the winners
        ctx.input_size = input.shape[2:]
        ctx.channels_last = any_channels_last(input)
        ctx.mark_non_differentiable(winners)
        save(ctx, (winners,))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return map_over_batch(max_pool, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, _: None) -> tuple:
        (winners,) = restore(ctx)
        return fetch(input_t, winners, ctx.windows), None


class MaxPosition(Function):
    """The largest element of each window, or span of adaptive pooling, and its position in the input.

    x (N, C, *input) → y (N, C, *output), positions (N, C, *output).
    """

    @staticmethod
    def forward(input: Tensor, windows: Windows | Sequence[Spans]) -> tuple[Tensor, Tensor]:
        return pooling_kernels.max_positions(input, windows)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _: None) -> tuple:
        if grad_output is None:
            return None, None
        (positions,) = restore(ctx)
        return fetch_transpose(
            to_memory_format(grad_output, ctx.channels_last), positions, ctx.windows, ctx.input_size
        ), None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        input, windows = inputs
        _, positions = output
        ctx.windows = windows if isinstance(windows, Windows) else None
        ctx.set_materialize_grads(False)  # no zeros for the positions
        ctx.input_size = input.shape[2:]
        ctx.channels_last = any_channels_last(input)
        ctx.mark_non_differentiable(positions)
        save(ctx, (positions,))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return map_over_batch(max_position, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, _: None) -> tuple:
        (positions,) = restore(ctx)
        return fetch(input_t, positions, ctx.windows), None


max_pool = differentiable(MaxPool)
max_position = differentiable(MaxPosition)
fetch, fetch_transpose = linear_pair(
    "Fetch",  # y[n, c, o] = x[n, c, winner of o]
    pooling_kernels.fetch,
    pooling_kernels.fetch_transpose,
    saves=1,
    remember=lambda x, winners, windows: (x.shape[2:],),
    per_sample=True,
)
unpool = linear_map(
    "Unpool",  # y[n, c, position of o] = x[n, c, o]; of two in one place, the last, and the gradient goes to both
    pooling_kernels.unpool,
    lambda grad_output, positions, size: fetch(grad_output, positions, None),
    saves=1,
    per_sample=True,
)
power = elementwise(
    "Power",
    lambda x, p: x.pow(p),
    dx=lambda g, x, p: g * p * x.pow(p - 1),
)
root = elementwise(
    "Root",  # (n·x)^(1/p) of a mean x of n powers, whose gradient stops at 0
    lambda x, n, p: (n * x).pow(1 / p),
    dx=lambda g, x, n, p: (g * (n / p) * (n * x).masked_fill(x == 0, 1).pow(1 / p - 1)).masked_fill(x == 0, 0),
)
average, average_transpose = linear_pair(
    "Average",  # y[n, c, o] = Σ x[n, c, i] over the span of o, divided by its divisor
    span_kernels.average,
    span_kernels.average_transpose,
    # torch's averages keep no other format than channels last in two dimensions
    remember=lambda x, spans: (x.shape[2:], x.dim() == 4 and any_channels_last(x)),
    per_sample=True,
)

"""Pooling: to a window's winner goes its whole gradient, to the elements of an average equal shares.

Where the winners are known, max pooling is linear: it fetches from the winners, and its transpose
sends back to them. Average pooling is linear anyhow. A linear map's derivative is its transpose, and
the transpose's derivative the map again, so the Functions come in pairs:

    MaxPool      y[o] = max_k x[o·s + k·d − p]       dL/dx = SendBack(dL/dy)
    MaxPosition  y[o] = max_{i in span o} x[i]       dL/dx = SendBack(dL/dy)
    Fetch        y[o] = x[winner of o]               transpose: SendBack
    Average      y[o] = Σ_{i in span o} x[i] / n     transpose: Spread

A winner is a tap's number, one byte, or its position in the input, eight, where that is asked for.

Source: lecture notes, "Pooling layer" and "Backward through max pooling".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, map_over_batch, save, saved
from torchfromscratch.kernels import operations
from torchfromscratch.kernels import pooling as kernel
from torchfromscratch.kernels import spans as span_kernel
from torchfromscratch.kernels.layout import any_channels_last, laid_out
from torchfromscratch.kernels.spans import Spans
from torchfromscratch.kernels.windows import Windows


class MaxPool(Function):
    """y[n, c, o] = max_k x[n, c, o·s + k·d − p], and the number of the tap k that wins.

    x (N, C, *input) → y (N, C, *output), winners (N, C, *output).
    """

    generate_vmap_rule = False

    @staticmethod
    def forward(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
        return operations.max_windows(input, windows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        input, ctx.windows = inputs
        _, winners = output
        ctx.input_size = input.shape[2:]
        ctx.channels_last = any_channels_last(input)
        ctx.mark_non_differentiable(winners)
        save(ctx, (winners,))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple:
        (winners,) = saved(ctx)
        return send_back(laid_out(grad_output, ctx.channels_last), winners, ctx.windows, ctx.input_size), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return map_over_batch(max_pool, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, _: None) -> tuple:
        (winners,) = saved(ctx)
        return fetch(input_t, winners, ctx.windows), None


class MaxPosition(Function):
    """The largest element of each window, or span of adaptive pooling, and its position in the input.

    x (N, C, *input) → y (N, C, *output), positions (N, C, *output).
    """

    generate_vmap_rule = False

    @staticmethod
    def forward(input: Tensor, windows: Windows | Sequence[Spans]) -> tuple[Tensor, Tensor]:
        if not isinstance(windows, Windows):
            return kernel.max_positions(input, windows)
        output, winners = operations.max_windows(input, windows)
        positions = torch.empty_like(output, dtype=torch.int64)
        return output, positions.copy_(kernel.flat_positions(winners, windows, input.shape[2:]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        input, _ = inputs
        _, positions = output
        ctx.input_size = input.shape[2:]
        ctx.channels_last = any_channels_last(input)
        ctx.mark_non_differentiable(positions)
        save(ctx, (positions,))

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple:
        (positions,) = saved(ctx)
        return send_back(laid_out(grad_output, ctx.channels_last), positions, None, ctx.input_size), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return map_over_batch(max_position, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, _: None) -> tuple:
        (positions,) = saved(ctx)
        return fetch(input_t, positions, None), None


class Fetch(Function):
    """y[n, c, o] = x[n, c, winner of o]."""

    generate_vmap_rule = False

    @staticmethod
    def forward(input: Tensor, winners: Tensor, windows: Windows | None) -> Tensor:
        return kernel.fetch(input, winners, windows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, winners, ctx.windows = inputs
        ctx.input_size = input.shape[2:]
        save(ctx, (winners,))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        (winners,) = saved(ctx)
        return send_back(grad, winners, ctx.windows, ctx.input_size), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return map_over_batch(fetch, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, *_: None) -> Tensor:
        (winners,) = saved(ctx)
        return fetch(input_t, winners, ctx.windows)


class SendBack(Function):
    """x[n, c, i] = Σ y[n, c, o] over the windows o that i wins."""

    generate_vmap_rule = False

    @staticmethod
    def forward(grad_output: Tensor, winners: Tensor, windows: Windows | None, input_size: Sequence[int]) -> Tensor:
        return operations.send_back(grad_output, winners, windows, input_size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, winners, ctx.windows, ctx.input_size = inputs
        save(ctx, (winners,))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        (winners,) = saved(ctx)
        return fetch(grad, winners, ctx.windows), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return map_over_batch(send_back, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, grad_t: Tensor, *_: None) -> Tensor:
        (winners,) = saved(ctx)
        return send_back(grad_t, winners, ctx.windows, ctx.input_size)


class Average(Function):
    """y[n, c, o] = Σ x[n, c, i] over the span of o, divided by its divisor."""

    @staticmethod
    def forward(input: Tensor, spans: Sequence[Spans]) -> Tensor:
        return span_kernel.average(input, spans)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, ctx.spans = inputs
        ctx.input_size = input.shape[2:]
        ctx.channels_last = input.dim() == 4 and any_channels_last(input)  # torch's averages keep no other format

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        if 0 in grad_output.shape[2:]:
            raise RuntimeError(f"no output has a gradient to send back: dL/dy is empty, {tuple(grad_output.shape)}")
        return spread(grad_output, ctx.spans, ctx.input_size, ctx.channels_last), None

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, _: None) -> Tensor:
        return average(input_t, ctx.spans)


class Spread(Function):
    """x[n, c, i] = Σ y[n, c, o] / divisor over the spans o that hold i."""

    @staticmethod
    def forward(grad_output: Tensor, spans: Sequence[Spans], input_size: Sequence[int], channels_last: bool) -> Tensor:
        return span_kernel.spread(grad_output, spans, input_size, channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.spans, ctx.input_size, ctx.channels_last = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return average(grad, ctx.spans), None, None, None

    @staticmethod
    def jvp(ctx: Any, grad_t: Tensor, *_: None) -> Tensor:
        return spread(grad_t, ctx.spans, ctx.input_size, ctx.channels_last)


max_pool = differentiable(MaxPool)
max_position = differentiable(MaxPosition)
fetch = differentiable(Fetch)
send_back = differentiable(SendBack)
average = differentiable(Average)
spread = differentiable(Spread)

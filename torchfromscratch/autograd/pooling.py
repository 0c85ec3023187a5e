"""Pooling: to a window's winner goes its whole gradient, to the elements of an average equal shares.

Where the winners are known, max pooling is linear: it fetches from the winners, and its transpose
sends back to them. Average pooling is linear anyhow. A linear map's derivative is its transpose, and
the transpose's derivative the map again, so the Functions come in pairs:

    MaxPool   y[o] = max_k x[o·s + k·d − p]       dL/dx = SendBack(dL/dy)
    Fetch     y[o] = x[winner of o]               transpose: SendBack
    Average   y[o] = Σ_{i in span o} x[i] / n     transpose: Spread
    Take      every span written out              transpose: PutBack

Adaptive max pooling takes its spans, where their sizes differ, and then pools each of them.

Source: lecture notes, "Pooling layer" and "Backward through max pooling".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


class Fetch(Function):
    """y[n, c, o] = x[n, c, winner of o]."""

    generate_vmap_rule = False

    @staticmethod
    def forward(input: Tensor, winners: Tensor, windows: Windows) -> Tensor:
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
    def forward(grad_output: Tensor, winners: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
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


class Take(Function):
    """Every span of x written out one behind the other."""

    @staticmethod
    def forward(input: Tensor, spans: Sequence[Spans]) -> Tensor:
        return span_kernel.take(input, spans)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, ctx.spans = inputs
        ctx.input_size = input.shape[2:]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        return put_back(grad_output, ctx.spans, ctx.input_size), None

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, _: None) -> Tensor:
        return take(input_t, ctx.spans)


class PutBack(Function):
    """What was written out several times, added up."""

    @staticmethod
    def forward(grad_output: Tensor, spans: Sequence[Spans], input_size: Sequence[int]) -> Tensor:
        return span_kernel.put_back(grad_output, spans, input_size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.spans, ctx.input_size = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return take(grad, ctx.spans), None, None

    @staticmethod
    def jvp(ctx: Any, grad_t: Tensor, *_: None) -> Tensor:
        return put_back(grad_t, ctx.spans, ctx.input_size)


max_pool = differentiable(MaxPool)
fetch = differentiable(Fetch)
send_back = differentiable(SendBack)
average = differentiable(Average)
spread = differentiable(Spread)
take = differentiable(Take)
put_back = differentiable(PutBack)

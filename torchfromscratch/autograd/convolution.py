"""Convolution, its gradients, and the gradients of those: one trilinear form.

    S(x, w, g) = Σ g[n, o, i] · w[o, c, k] · x[n, c, i·s + k·d − p]

The layer and both its gradients are partial derivatives of S:

    Correlation      y     = ∂S/∂g (x, w)    cross-correlation of x with w
    FullConvolution  dL/dx = ∂S/∂x (g, w)    full convolution of g = dL/dy with w, rotated by 180°
    WeightGradient   dL/dw = ∂S/∂w (x, g)    cross-correlation of x with g

S is linear in each argument, so each of the three, differentiated by one of its two arguments, is one
of the other two. Differentiation never leaves these three Functions, however often it is repeated.
Read the other way round, FullConvolution is the layer ConvTranspose.

Source: lecture notes, "CNN Backpropagation", section 4; V. Dumoulin and F. Visin, "A guide to
convolution arithmetic for deep learning", 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable, move_mapped_to_front, restore, save
from torchfromscratch.kernels.convolution import dispatch as kernel
from torchfromscratch.kernels.execution import is_differentiating
from torchfromscratch.kernels.layout import any_channels_last, to_memory_format
from torchfromscratch.kernels.precision import wide_type
from torchfromscratch.kernels.windows import Windows, crop_to


class Correlation(Function):
    """y[n, o, i] = b[o] + Σ_{c,k} w[o, c, k] · x[n, c, i·s + k·d − p].

    x (N, C, *input), w (O, C/groups, *k), b (O) or None → y (N, O, *output).
    """

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, algorithm: str | None) -> Tensor:
        return kernel.correlate(input, weight, bias, windows, algorithm)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        input, weight = restore(ctx)
        grad_output = to_memory_format(grad_output, ctx.channels_last)
        needs_input, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_input = grad_weight = grad_bias = None
        if needs_input and needs_weight and not is_differentiating():  # the next two lines' work, shared
            grad_input, grad_weight = kernel.gradients(
                input.conj(), weight.conj(), grad_output, ctx.windows, ctx.algorithm
            )
        else:
            if needs_input:
                grad_input = full_convolution(
                    grad_output, weight.conj(), None, ctx.windows, ctx.input_size, ctx.algorithm
                )
            if needs_weight:
                grad_weight = weight_gradient(input.conj(), grad_output, ctx.windows, ctx.algorithm)
        if needs_bias:
            grad_bias = sum_per_channel(grad_output)
        return grad_input, grad_weight, grad_bias, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, weight, _, ctx.windows, ctx.algorithm = inputs
        ctx.input_size, ctx.channels_last = input.shape[2:], any_channels_last(input, weight)
        needs_input, needs_weight, *_ = ctx.needs_input_grad
        save(ctx, (input, weight), needed=(needs_weight, needs_input))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return _map_over_data(correlation, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, weight_t: Tensor, bias_t: Tensor | None, *_: None) -> Tensor:
        input, weight = restore(ctx)
        return correlation(input_t, weight, bias_t, ctx.windows, ctx.algorithm) + correlation(
            input, weight_t, None, ctx.windows, ctx.algorithm
        )


class FullConvolution(Function):
    """x[n, c, j] = b[c] + Σ_{o,k} w[o, c, k] · g[n, o, i], over all i and k with i·s + k·d − p = j.

    g (N, O, *output), w (O, C/groups, *k), b (C) or None → x (N, C, *input_size).
    """

    @staticmethod
    def forward(
        grad_output: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        windows: Windows,
        input_size: Sequence[int],
        algorithm: str | None,
    ) -> Tensor:
        grad_input = kernel.full_convolution(grad_output, weight, windows, input_size, algorithm)
        return grad_input if bias is None else grad_input + bias.view(-1, *[1] * windows.dims)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        grad_output, weight = restore(ctx)
        grad = to_memory_format(grad, ctx.channels_last)
        needs_output, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_grad_output = grad_weight = grad_bias = None
        if needs_output:
            output = correlation(grad, weight.conj(), None, ctx.windows, ctx.algorithm)
            grad_grad_output = crop_to(output, ctx.output_size)
        if needs_weight:
            grad_weight = weight_gradient(grad, grad_output.conj(), ctx.windows, ctx.algorithm)
        if needs_bias:
            grad_bias = sum_per_channel(grad)
        return grad_grad_output, grad_weight, grad_bias, None, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        grad_output, weight, _, ctx.windows, ctx.input_size, ctx.algorithm = inputs
        ctx.output_size, ctx.channels_last = grad_output.shape[2:], any_channels_last(grad_output, weight)
        needs_output, needs_weight, *_ = ctx.needs_input_grad
        save(ctx, (grad_output, weight), needed=(needs_weight, needs_output))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        return _map_over_data(full_convolution, info.batch_size, in_dims, *args)

    @staticmethod
    def jvp(ctx: Any, grad_t: Tensor, weight_t: Tensor, bias_t: Tensor | None, *_: None) -> Tensor:
        grad_output, weight = restore(ctx)
        return full_convolution(grad_t, weight, bias_t, ctx.windows, ctx.input_size, ctx.algorithm) + full_convolution(
            grad_output, weight_t, None, ctx.windows, ctx.input_size, ctx.algorithm
        )


class WeightGradient(Function):
    """w[o, c, k] = Σ_{n,i} g[n, o, i] · x[n, c, i·s + k·d − p].

    x (N, C, *input), g (N, O, *output) → w (O, C/groups, *k).
    """

    @staticmethod
    def forward(input: Tensor, grad_output: Tensor, windows: Windows, algorithm: str | None) -> Tensor:
        return kernel.weight_gradient(input, grad_output, windows, algorithm)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        input, grad_output = restore(ctx)
        needs_input, needs_output, *_ = ctx.needs_input_grad
        grad_input = grad_grad_output = None
        if needs_input:
            grad_input = full_convolution(grad_output.conj(), grad, None, ctx.windows, ctx.input_size, ctx.algorithm)
        if needs_output:
            output = correlation(input.conj(), grad, None, ctx.windows, ctx.algorithm)
            grad_grad_output = crop_to(output, ctx.output_size)
        return grad_input, grad_grad_output, None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, grad_output, ctx.windows, ctx.algorithm = inputs
        ctx.input_size, ctx.output_size = input.shape[2:], grad_output.shape[2:]
        needs_input, needs_output, *_ = ctx.needs_input_grad
        save(ctx, (input, grad_output), needed=(needs_output, needs_input))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, input: Tensor, grad_output: Tensor, windows: Windows, _: str | None) -> tuple:
        # one weight gradient for each mapped pair: as many times the groups
        size = info.batch_size
        input = _into_channels(input, in_dims[0], size)
        grad_output = _into_channels(grad_output, in_dims[1], size)
        grad_weight = weight_gradient(input, grad_output, _multiply_groups(windows, size), None)
        return grad_weight.unflatten(0, (size, -1)), 0

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, grad_t: Tensor, *_: None) -> Tensor:
        input, grad_output = restore(ctx)
        return weight_gradient(input_t, grad_output, ctx.windows, ctx.algorithm) + weight_gradient(
            input, grad_t, ctx.windows, ctx.algorithm
        )


correlation = differentiable(Correlation)
full_convolution = differentiable(FullConvolution)
weight_gradient = differentiable(WeightGradient)


def sum_per_channel(grad_output: Tensor) -> Tensor:
    """dL/db[o] = Σ_{n,i} dL/dy[n, o, i]; a CPU sums over positions first, so that each core has samples of its own."""
    if not grad_output.is_cpu:  # one launch, which sums narrow types in float32
        return grad_output.sum([0, *range(2, grad_output.dim())])
    per_sample = grad_output.sum(list(range(2, grad_output.dim())), dtype=wide_type(grad_output.dtype))
    return per_sample.sum(0).to(grad_output.dtype)


# ---------------- torch's side: what is saved, vmap, forward mode


def _map_over_data(
    function: Callable[..., Tensor],
    size: int,
    in_dims: tuple,
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    windows: Windows,
    *rest: Any,
) -> tuple[Tensor, int]:
    """`function` for `size` inputs at once: more samples or, if each has its own weight, more groups.

    For those groups the caller's algorithm, the last argument, was not chosen.
    """
    data_dim, weight_dim, bias_dim, *_ = in_dims
    if weight_dim is None and bias_dim is None:
        result = function(data.movedim(data_dim, 0).flatten(0, 1), weight, bias, windows, *rest)
        return result.unflatten(0, (size, -1)), 0
    result = function(
        _into_channels(data, data_dim, size),
        move_mapped_to_front(weight, weight_dim, size).flatten(0, 1),
        None if bias is None else move_mapped_to_front(bias, bias_dim, size).flatten(0, 1),
        _multiply_groups(windows, size),
        *rest[:-1],
        None,
    )
    return result.unflatten(1, (size, -1)), 1


def _multiply_groups(windows: Windows, size: int) -> Windows:
    return replace(windows, groups=size * windows.groups)


def _into_channels(data: Tensor, dim: int | None, size: int) -> Tensor:
    """(N, C, …) with `size` variants along `dim` (None: all the same) → (N, size·C, …)."""
    return move_mapped_to_front(data, dim, size).transpose(0, 1).flatten(1, 2)

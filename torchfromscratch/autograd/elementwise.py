"""Activations: functions of one element, as a table of y and dL/dx.

The derivative dy/dx of such a function multiplies dL/dy on the way back and the tangent on the way
forward, so one formula serves both. Where it needs an activation again, as σ'(x) = σ(x)·(1 − σ(x))
does, it calls the one of this table: no derivative of any order leaves it.

Source: lecture notes, "ReLU", "Leaky ReLU" and "Activation function"; others are cited at their row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable

# Sums and exponentials of these are computed in float32 and rounded once, as torch's kernels do.
NARROW_TYPES = (torch.float16, torch.bfloat16)


def elementwise(
    name: str, *, y: Callable[..., Tensor], dx: Callable[..., Tensor], keeps: str = "x"
) -> Callable[..., Tensor]:
    """The Function y = f(x, *constants), from y(x, *constants) and dx(dL/dy, kept, *constants).

    `keeps` says what dx is a function of: the input "x" or the output "y".
    """

    class Elementwise(Function):
        @staticmethod
        def forward(input: Tensor, *constants: Any) -> Tensor:
            return _widened(y, input, constants)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
            input, *ctx.constants = inputs
            kept = input if keeps == "x" else output
            ctx.save_for_backward(kept)
            ctx.save_for_forward(kept)

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> tuple:
            (kept,) = ctx.saved_tensors
            grad_input = _widened(lambda g: dx(g, kept.to(g.dtype), *ctx.constants), grad_output, ())
            return grad_input, *(None for _ in ctx.constants)

        @staticmethod
        def jvp(ctx: Any, input_t: Tensor, *_: None) -> Tensor:
            (kept,) = ctx.saved_tensors
            return _widened(lambda t: dx(t, kept.to(t.dtype), *ctx.constants), input_t, ())

    return differentiable(type(name, (Elementwise,), {}))


def _widened(formula: Callable[..., Tensor], tensor: Tensor, constants: tuple) -> Tensor:
    """`formula` with narrow floats computed in float32."""
    if tensor.dtype in NARROW_TYPES:
        return formula(tensor.float(), *constants).to(tensor.dtype)
    return formula(tensor, *constants)


relu = elementwise(
    "ReLU",  # max(0, x)
    y=lambda x: x.clamp(min=0),
    dx=lambda g, y: g.masked_fill(y <= 0, 0),
    keeps="y",
)
sigmoid = elementwise(
    "Sigmoid",  # σ(x) = 1 / (1 + e⁻ˣ)
    y=lambda x: x.sigmoid(),
    dx=lambda g, y: g * y * (1 - y),
    keeps="y",
)

"""Flattening: the gradient is given back the shape that the input had.

Source: lecture notes, "Backward through the flatten layer".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable


class Flatten(Function):
    """y = x with its dimensions `start_dim` to `end_dim` as one, in memory of its own."""

    @staticmethod
    def forward(input: Tensor, start_dim: int, end_dim: int) -> Tensor:
        flat = input.flatten(start_dim, end_dim)
        return flat.clone() if torch.compiler.is_compiling() or flat is input or flat._is_view() else flat

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        input, ctx.start_dim, ctx.end_dim = inputs
        ctx.input_size = input.shape

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        return grad_output.reshape(ctx.input_size), None, None

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, *_: None) -> Tensor:
        return flatten(input_t, ctx.start_dim, ctx.end_dim)


flatten = differentiable(Flatten)

"""Activation functions."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch.autograd import elementwise as table

__all__ = ["relu", "sigmoid"]


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, x), with dL/dx = dL/dy where x > 0 and 0 elsewhere.

    Any shape. Source: lecture notes, "ReLU" and "Backward through ReLU".
    """
    if input.dtype == torch.bool:
        raise NotImplementedError("relu needs a numeric tensor, but got a boolean one")
    return _answer(table.relu(input), input, inplace)


def sigmoid(input: Tensor) -> Tensor:
    """σ(x) = 1 / (1 + e⁻ˣ), with dL/dx = dL/dy · σ(x) · (1 − σ(x)). Any shape."""
    return table.sigmoid(input)


def _answer(output: Tensor, input: Tensor, inplace: bool) -> Tensor:
    """`output`, in the memory of `input` if it is to be overwritten."""
    return input.copy_(output) if inplace else output

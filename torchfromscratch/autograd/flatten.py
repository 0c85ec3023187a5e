"""Flattening: the gradient is given back the shape that the input had.

Source: lecture notes, "Backward through the flatten layer".
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch import _torch_private as private
from torchfromscratch.autograd.linear_map import linear_map
from torchfromscratch.kernels.execution import is_compiling


def _flatten(input: Tensor, start_dim: int, end_dim: int) -> Tensor:
    """y = x with its dimensions `start_dim` to `end_dim` as one, in memory of its own."""
    flat = input.flatten(start_dim, end_dim)
    return flat.clone() if is_compiling() or flat is input or private.is_view(flat) else flat


def _unflatten(grad_output: Tensor, start_dim: int, end_dim: int, input_size: torch.Size) -> Tensor:
    """dL/dx = dL/dy in the shape of x."""
    return grad_output.reshape(input_size)


# ---------------- torch's side: what is saved, vmap, forward mode

flatten = linear_map("Flatten", _flatten, _unflatten, remember=lambda x, *_: (x.shape,))

"""Padding: every edge repeats a part of the input, and sends its gradient back to that part.

Padding with a constant is affine; padding with parts of the input is linear.

    PadConstant          y = x in a frame of a constant          dL/dx = dL/dy without the frame
    pad_edges            y = [spread(left part), x, spread(right part)], dimension after dimension
    pad_edges_transpose  x = the middle of y; x[left part] += collect(y's left edge), likewise right

Which parts the edges repeat, how a part is spread over its edge, and the transpose of that, is a row of
the table `MODES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchfromscratch.autograd.function import Function, differentiable
from torchfromscratch.autograd.linear_map import linear_pair
from torchfromscratch.kernels.layout import copy_to_memory_format, is_channels_last

Widths = Sequence[tuple[int, int]]  # of the left and the right edge, for each of the last dimensions


class Mode(NamedTuple):
    """Where an edge comes from."""

    parts: Callable[[int, int, int], tuple[tuple[int, int], ...]]
    """(size, left, right) → start and length of the parts that the left and the right edge repeat."""
    spread: Callable[[Tensor, int, int], list[Tensor]]
    """(part, dim, width) → edge, in blocks."""
    collect: Callable[[Tensor, int], Tensor]
    """(edge, dim) → part: the transpose of `spread`."""


MODES = {
    "reflect": Mode(
        parts=lambda size, left, right: ((1, left), (size - 1 - right, right)),
        spread=lambda part, dim, width: [part.flip(dim)],
        collect=lambda edge, dim: edge.flip(dim),
    ),
    "replicate": Mode(
        parts=lambda size, left, right: ((0, 1), (size - 1, 1)),
        spread=lambda part, dim, width: [part] * width,
        collect=lambda edge, dim: edge.sum(dim, keepdim=True),
    ),
    "circular": Mode(
        parts=lambda size, left, right: ((size - left, left), (0, right)),
        spread=lambda part, dim, width: [part],
        collect=lambda edge, dim: edge,
    ),
}


def _pad_edges(input: Tensor, widths: Widths, mode: str) -> Tensor:
    """y[j] = x[source of j − left], dimension after dimension."""
    parts, spread, _ = MODES[mode]
    if is_channels_last(input):
        input = copy_to_memory_format(input, channels_last=True)
    for dim, (left, right) in enumerate(widths, start=input.dim() - len(widths)):
        (left_start, left_length), (right_start, right_length) = parts(input.shape[dim], left, right)
        left_edge = spread(input.narrow(dim, left_start, left_length), dim, left)
        right_edge = spread(input.narrow(dim, right_start, right_length), dim, right)
        # an edge without elements would hide the memory format from torch.cat
        input = torch.cat([*left_edge * (left > 0), input, *right_edge * (right > 0)], dim)
    return input


def _pad_edges_transpose(grad_output: Tensor, widths: Widths, mode: str) -> Tensor:
    """x[i] = Σ y[j] over all j whose source is i, dimension after dimension."""
    parts, _, collect = MODES[mode]
    grad = grad_output
    for dim, (left, right) in enumerate(widths, start=grad.dim() - len(widths)):
        size = grad.shape[dim] - left - right
        edges = grad.narrow(dim, 0, left), grad.narrow(dim, left + size, right)
        grad = grad.narrow(dim, left, size).clone()
        for (start, length), edge in zip(parts(size, left, right), edges, strict=True):
            grad.narrow(dim, start, length).add_(collect(edge, dim))
    return grad


class PadConstant(Function):
    """y[j] = x[j − left] where that lies inside, and the constant elsewhere; a negative width crops.

    `pad` names left and right of the last dimension first, as torch.nn.functional.pad does.
    """

    @staticmethod
    def forward(input: Tensor, pad: Sequence[int], value: float) -> Tensor:
        return torch.constant_pad_nd(input, pad, value)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        return pad_constant(grad_output, [-width for width in ctx.pad], 0), None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.pad, _ = inputs

    @staticmethod
    def vmap(info: Any, in_dims: tuple, input: Tensor, *args: Any) -> tuple:
        return pad_constant(input.movedim(in_dims[0], 0), *args), 0

    @staticmethod
    def jvp(ctx: Any, input_t: Tensor, *_: None) -> Tensor:
        return pad_constant(input_t, ctx.pad, 0)


pad_constant = differentiable(PadConstant)
pad_edges, pad_edges_transpose = linear_pair("PadEdges", _pad_edges, _pad_edges_transpose, per_sample=True)

"""Margin losses: what is right by less than a margin costs what is missing, what is right by more costs nothing.

All are max(0, z) of some z: of a distance, of a cosine, of a difference of two scores. Among the scores x of classes,
of which those in t are right,

    Margins           z[k, c] = x[c] − x[t_k]     dL/dx[c] = Σ_k g[k, c], and − Σ_c g[k, c] more for each t_k = c
    MultilabelMargin  L = Σ_k Σ_c max(0, 1 + z[k, c]) / C over the c that are wrong, whose dL/dx counts what is not 0
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.autograd.elementwise import elementwise, sigmoid
from torchfromscratch.autograd.function import Function, differentiable, restore, save
from torchfromscratch.autograd.linear_map import linear_map, linear_pair
from torchfromscratch.kernels.blocking import batch_blocks

hinge = elementwise(
    "Hinge",  # max(0, z), which lets no gradient through at 0: torch's did up to 2.11
    lambda z: z.clamp(min=0),
    dz=lambda g, z: g.masked_fill(z <= 0, 0),
    exact=True,
)
squared_hinge = elementwise(
    "SquaredHinge",  # max(0, z)²
    lambda z: z.clamp(min=0).square(),
    dz=lambda g, z: 2 * g * z.clamp(min=0),
)
keep = linear_map(
    "Keep",  # x where the mask is True, 0 elsewhere
    lambda x, mask: x.masked_fill(~mask, 0),
    saves=1,
)
product = elementwise(
    "Product",
    lambda a, b: a * b,
    da=lambda g, b: g * b,
    db=lambda g, a: g * a,
)
cosine_of_sums = elementwise(
    "CosineOfSums",  # p / √(a·b) of p = Σ x₁x₂, a = Σ x₁² and b = Σ x₂²
    lambda p, a, b: p / (a * b).sqrt(),
    dp=lambda g, a, b: g / (a * b).sqrt(),
    da=lambda g, p, a, b: -0.5 * g * (p / (a * b).sqrt()) / a,
    db=lambda g, p, a, b: -0.5 * g * (p / (a * b).sqrt()) / b,
)
smaller = elementwise(
    "Smaller",  # of two, which share the gradient where they are equal
    lambda a, b: torch.minimum(a, b),
    da=lambda g, a, b: g * (0.5 - 0.5 * (a - b).sign()),
    db=lambda g, a, b: g * (0.5 - 0.5 * (b - a).sign()),
    exact=True,
)
soft_margin = elementwise(
    "SoftMargin",  # log(1 + e⁻ʸˣ)
    lambda x, y: (-(x * y).abs()).exp().log1p() - (x * y).clamp(max=0),
    dx=lambda g, x, y: -g * y * sigmoid(-x * y),
    dy=lambda g, x, y: -g * x * sigmoid(-x * y),
)


def _margins(x: Tensor, t: Tensor) -> Tensor:
    """x (N, C), t (N, K) → z (N, K, C)."""
    return x.unsqueeze(1) - x.gather(1, t).unsqueeze(2)


def _margins_transpose(g: Tensor, t: Tensor) -> Tensor:
    return g.sum(1).scatter_add(1, t, -g.sum(2))


class MultilabelMargin(Function):
    """L = Σ_k Σ_c max(0, 1 − x[t_k] + x[c]) / C over the classes t_k that are labels and those c that are none.

    x (N, C), t (N, K), which of t are labels (N, K) → L (N).
    """

    @staticmethod
    def forward(x: Tensor, t: Tensor, is_label: Tensor) -> Tensor:
        losses = [excess.sum((1, 2)) for _, excess in _excesses(x, t, is_label)]
        return torch.cat(losses) / x.shape[1]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        return grad_output.unsqueeze(1) * _slope(*restore(ctx)), None, None

    # ---------------- torch's side: what is saved, vmap, forward mode

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        save(ctx, inputs)

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor, *_: None) -> Tensor:
        return (_slope(*restore(ctx)) * x_t).sum(1)


def _slope(x: Tensor, t: Tensor, is_label: Tensor) -> Tensor:
    """dL/dx: of c, how many t_k it is within the margin of; of t_k, less how many are within its own; over C."""
    slopes = []
    for block, excess in _excesses(x.detach(), t, is_label):
        is_within = excess.sign()
        slopes.append(is_within.sum(1).scatter_add(1, t[block], -is_within.sum(2)))
    return torch.cat(slopes) / x.shape[1]


def _excesses(x: Tensor, t: Tensor, is_label: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """max(0, 1 − x[t_k] + x[c]) of a block of samples at a time (n, K, C), 0 where t_k is no label, or c is one."""
    is_right = torch.zeros_like(x).scatter_add(1, t, is_label.to(x.dtype)) > 0
    bound = x.gather(1, t) - 1
    for block in batch_blocks(x, t.shape[1] * x.shape[1]):
        counts = is_label[block].unsqueeze(2) & ~is_right[block].unsqueeze(1)
        excess = (x[block].unsqueeze(1) - bound[block].unsqueeze(2)).clamp(min=0)
        yield block, excess.masked_fill(~counts, 0)


margins, margins_transpose = linear_pair("Margins", _margins, _margins_transpose, saves=1, per_sample=True)
multilabel_margin = differentiable(MultilabelMargin)

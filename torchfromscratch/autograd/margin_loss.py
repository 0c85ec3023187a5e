"""Margin losses: what is right by less than a margin costs what is missing, what is right by more costs nothing.

All are max(0, z) of some z: of a distance, of a cosine, of a difference of two scores. Among the scores x of classes,
of which those in t are right,

    Margins   z[k, c] = x[c] − x[t_k]       dL/dx[c] = Σ_k g[k, c], and − Σ_c g[k, c] more for each t_k = c
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch.autograd.elementwise import elementwise, sigmoid
from torchfromscratch.autograd.linear_map import linear_map, linear_pair

hinge = elementwise(
    "Hinge",  # max(0, z), which lets a gradient through at 0 as well
    lambda z: z.clamp(min=0),
    dz=lambda g, z: g.masked_fill(z < 0, 0),
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


margins, margins_transpose = linear_pair("Margins", _margins, _margins_transpose, saves=1, per_sample=True)

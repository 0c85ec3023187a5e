"""Local response normalisation: each channel is divided by what its neighbours at the same place amount to.

    y = x · s^−β        s[c] = k + α/n · Σ_j x²[j] over the channels j of the window of c

With u = −β · dL/dy · x · s^(−β−1), which is dL/ds, and Aᵀ, which sums u over the channels whose window has c,

    dL/dx = dL/dy · s^−β + 2 α/n · x · Aᵀ u

Source: A. Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchfromscratch.autograd.elementwise import elementwise
from torchfromscratch.autograd.linear_map import linear_pair

response = elementwise(
    "Response",
    lambda x, s, beta: x * s.pow(-beta),
    dx=lambda g, s, beta: g * s.pow(-beta),
    ds=lambda g, x, s, beta: -beta * g * x * s.pow(-beta - 1),
)


def _channel_sums(x: Tensor, before: int, behind: int) -> Tensor:
    """y[n, c] = Σ_j x[n, c + j], −before ≤ j ≤ behind, of the channels that there are."""
    channels = x.shape[1]
    sums = torch.zeros_like(x)
    for shift in range(max(-before, 1 - channels), min(behind, channels - 1) + 1):
        count = channels - abs(shift)
        sums.narrow(1, max(-shift, 0), count).add_(x.narrow(1, max(shift, 0), count))
    return sums


channel_sums, channel_sums_transpose = linear_pair(
    "ChannelSums",
    _channel_sums,
    lambda g, before, behind: _channel_sums(g, behind, before),
)

"""Resizing along one dimension: each output is a weighted sum of some inputs, and gives them its gradient so weighted.

    resample             y[o] = Σ_k w[k, o] x[i(k, o)]
    resample_transpose   x[i] = Σ w[k, o] y[o] over all k, o with i(k, o) = i

`torchfromscratch.kernels.resampling` computes the positions i(k, o) and the weights. They are constants, and torch,
which frees saved tensors after a backward pass, is not asked to save them.
"""

from __future__ import annotations

from torchfromscratch.autograd.linear_map import linear_pair
from torchfromscratch.kernels import resampling

# x (*, I, *) → y (*, O, *) along `dim`; position and weight (taps, O), the weight None for a single tap of 1
resample, resample_transpose = linear_pair(
    "Resample",
    resampling.weighted_sum,
    resampling.weighted_sum_transpose,
    remember=lambda x, position, weight, dim: (x.shape[dim],),
    per_sample=True,
)

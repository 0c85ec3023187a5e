"""Convolution in one dimension: y[n, o, i] = Σ w[o, c, k] · x[n, c, i + k].

x (N, C, L), w (O, C, K) → y (N, O, L − K + 1). First the forward pass: a sum over taps, or a product of matrices.

Check it: torchfromscratch check exercises/13_conv1d.py:Conv1d --like conv1d --by-hand
"""

import torch
from torch import Tensor


class Conv1d(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, weight: Tensor) -> Tensor:
        below = input.unfold(2, weight.shape[2], 1)  # (N, C, L − K + 1, K)
        raise NotImplementedError("your turn: return y")

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple:
        x, w = ctx.saved_tensors
        full = torch.nn.functional.pad(g, (w.shape[2] - 1, w.shape[2] - 1)).unfold(2, w.shape[2], 1)
        grad_w = torch.einsum("ncik,noi->ock", x.unfold(2, w.shape[2], 1), g)
        return torch.einsum("noik,ock->nci", full, w.flip(2)), grad_w

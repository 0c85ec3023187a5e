"""Weighted sums of a few elements of each channel: an image at any place between its pixels, for example.

    S(x, w, g) = Σ g[n, c, p] · w[n, k, p] · x[n, c, i[n, k, p]]

is linear in each of x (N, C, I), w (N, K, P) and g (N, C, P), so its three partial gradients are all there is.

On a CPU, the weights of many channels are a sparse matrix: each product with it reads a pixel's channels side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchfromscratch.kernels.execution import in_plain_cpu_memory
from torchfromscratch.kernels.sparse import HAS_SPARSE_PRODUCTS, sparse_matrix

# Fewer channels are summed one by one. Bilinear sampling of 64 at 56² takes 1.4 ms, and 48 ms channel by channel; of 3
# at 96² 0.6 and 2.0 ms, but making the matrix takes 5 ms.
LEAST_CHANNELS = 8


def weighted_sum(x: Tensor, w: Tensor, index: Tensor) -> Tensor:
    """y[n, c, p] = Σ_k w[n, k, p] · x[n, c, i[n, k, p]]."""
    if _is_sparse_product(x, w, index):
        rows = _matrix(w, index, x.shape[2]) @ _rows(x)
        return _channels(rows, index.shape[2])
    size, output = (*x.shape[:2], index.shape[2]), None
    for tap in range(index.shape[1]):
        term = x.gather(2, index.narrow(1, tap, 1).expand(size)) * w.narrow(1, tap, 1)
        output = term if output is None else output + term
    assert output is not None
    return output


def weighted_sum_transpose(g: Tensor, w: Tensor, index: Tensor, size: int) -> Tensor:
    """x[n, c, i] = Σ w[n, k, p] · g[n, c, p] over the k and p with i[n, k, p] = i."""
    if _is_sparse_product(g, w, index):
        terms = _rows(g).unsqueeze(1) * w.transpose(1, 2).reshape(-1, index.shape[1], 1)
        rows = g.new_zeros(g.shape[0] * size, g.shape[1]).index_add_(0, _flat(index, size), terms.flatten(0, 1))
        return _channels(rows, size)
    x = g.new_zeros(*g.shape[:2], size)
    for tap in range(index.shape[1]):
        x = x.scatter_add(2, index.narrow(1, tap, 1).expand_as(g), g * w.narrow(1, tap, 1))
    return x


def dots(g: Tensor, x: Tensor, index: Tensor) -> Tensor:
    """w[n, k, p] = Σ_c g[n, c, p] · x[n, c, i[n, k, p]]."""
    if _is_sparse_product(g, x, index):
        rows = _rows(x).index_select(0, _flat(index, x.shape[2])).view(-1, index.shape[1], x.shape[1])
        sums = rows.mul_(_rows(g).unsqueeze(1)).sum(-1)
        return sums.view(index.shape[0], index.shape[2], -1).transpose(1, 2).contiguous()
    size = (*x.shape[:2], index.shape[2])
    taps = [(x.gather(2, index.narrow(1, k, 1).expand(size)) * g).sum(1) for k in range(index.shape[1])]
    return torch.stack(taps, 1)


def regular_grid(like: Tensor, spatial: Sequence[int], align_corners: bool) -> Tensor:
    """(x, y, 1) or (x, y, z, 1) of each place of a regular grid, (P, d + 1)."""
    axes = []
    for length in spatial:
        ends = torch.linspace(-1, 1, length, dtype=like.dtype, device=like.device)
        axes.append(torch.zeros_like(ends) if length == 1 else ends if align_corners else ends * (length - 1) / length)
    places = torch.meshgrid(*axes, indexing="ij")[::-1]
    return torch.stack([*places, torch.ones_like(places[0])], -1).flatten(0, -2)


def _is_sparse_product(*tensors: Tensor) -> bool:
    first = tensors[0]
    return (
        HAS_SPARSE_PRODUCTS
        and in_plain_cpu_memory(*tensors)
        and first.dtype in (torch.float32, torch.float64)
        and first.shape[1] >= LEAST_CHANNELS
        and min([tensor.numel() for tensor in tensors]) > 0
    )


def _matrix(w: Tensor, index: Tensor, size: int) -> Tensor:
    """(N·P, N·I) with K weights a row."""
    samples, taps, places = index.shape
    begins = torch.arange(0, index.numel() + 1, taps)
    values = w.transpose(1, 2).reshape(-1)
    return sparse_matrix(begins, _flat(index, size), values, (samples * places, samples * size))


def _flat(index: Tensor, size: int) -> Tensor:
    """Positions in the whole batch, those of one place side by side: (N, K, P) → (N·P·K)."""
    first = torch.arange(0, index.shape[0] * size, size).view(-1, 1, 1)
    return (index + first).transpose(1, 2).reshape(-1)


def _rows(x: Tensor) -> Tensor:
    """(N, C, I) → (N·I, C)."""
    return x.transpose(1, 2).reshape(-1, x.shape[1])


def _channels(rows: Tensor, places: int) -> Tensor:
    """(N·P, C) → (N, C, P)."""
    return rows.view(-1, places, rows.shape[1]).transpose(1, 2).contiguous()

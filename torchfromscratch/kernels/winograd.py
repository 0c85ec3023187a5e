"""Winograd's F(4, 3): four neighbouring outputs of a 3-tap correlation from 6 products rather than 12.

    y = Aᵀ [ (G w) · (Bᵀ x) ]        x: 6 elements, w: 3, y: 4

is used along the height; along the width, windows become rows as in im2col. A convolution with a 3×3
kernel thus takes half the multiplications and half the copies. Its rounding errors are larger, as 6
products of transformed elements differ more in size than 12 of the elements themselves.

The three transforms are linear, so the gradient of w is their transpose: Gᵀ [ (A dL/dy) · (Bᵀ x) ].

Source: A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchfromscratch.kernels.chunks import chunks
from torchfromscratch.kernels.im2col import join
from torchfromscratch.kernels.layout import any_channels_last, channels_to_front
from torchfromscratch.kernels.windows import Windows

TILE = 4  # outputs of a tile
SEEN = 6  # inputs that a tile of outputs sees
G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


def fits(windows: Windows) -> bool:
    """Whether the windows are of the kind that this method is made for."""
    return (
        windows.dims == 2
        and windows.kernel_size[0] == 3
        and set(windows.stride) == {1}
        and set(windows.dilation) == {1}
        and windows.groups == 1
    )


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in `convolution.correlate`."""
    height, width = windows.output_size(input.shape[2:])
    filters = transformed_filters(weight)

    def part(pictures: slice) -> Tensor:
        rows = window_rows(input[pictures], windows, height, width)
        products = torch.bmm(rows, filters).view(SEEN, -1, math.ceil(height / TILE), width, weight.shape[0])
        output = from_products(products)[:, :height]
        return output if bias is None else output + bias

    return join(part, chunks(input, rows_per_picture(input, windows, height, width)), any_channels_last(input, weight))


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in `convolution.weight_gradient`."""
    height, width = grad_output.shape[2:]

    def part(pictures: slice) -> Tensor:
        rows = window_rows(input[pictures], windows, height, width)
        return torch.bmm(to_products(grad_output[pictures]).mT, rows)

    first, *others = chunks(input, rows_per_picture(input, windows, height, width))
    total = part(first)
    for pictures in others:
        total += part(pictures)
    # Gᵀ along the height: (6, O, kW·C) → (3, O, kW·C) → (O, kH, kW, C)
    transform = total.new_tensor(G)
    taps = (transform.mT @ total.view(SEEN, -1)).view(3, grad_output.shape[1], windows.kernel_size[1], -1)
    return channels_to_front(taps.movedim(0, 1), any_channels_last(input, grad_output))


def transformed_filters(weight: Tensor) -> Tensor:
    """G w along the height: (O, C, 3, kW) → (6, kW·C, O)."""
    out_channels, channels, _, width = weight.shape
    along_height = weight.permute(2, 3, 1, 0).reshape(3, -1)
    return (weight.new_tensor(G) @ along_height).view(SEEN, width * channels, out_channels)


def window_rows(pictures: Tensor, windows: Windows, height: int, width: int) -> Tensor:
    """Bᵀ x along the height, windows along the width: (n, C, H, W) → (6, n·tiles·width, kW·C)."""
    (pad_height, pad_width), tiles = windows.padding, math.ceil(height / TILE)
    below = (tiles - 1) * TILE + SEEN - pictures.shape[2] - pad_height
    around = [0, 0, pad_width, pad_width, pad_height, below]
    pixels = torch.constant_pad_nd(pictures.movedim(1, -1), around).contiguous()
    row_length = windows.kernel_size[1] * pixels.shape[3]
    rows = []
    for transformed in to_inputs(pixels.unfold(1, SEEN, TILE).movedim(-1, 0)):  # 6 of (n, tiles, padded width, C)
        strides = transformed.stride()
        rows.append(transformed.as_strided((*transformed.shape[:2], width, row_length), (*strides[:3], 1)))
    return torch.stack(rows).view(SEEN, -1, row_length)


def to_inputs(x: Tensor) -> tuple[Tensor, ...]:
    """Bᵀ x, written so that what two rows share is computed once."""
    even, odd = torch.sub(x[4], x[2], alpha=4), torch.sub(x[3], x[1], alpha=4)
    far_even, far_odd = x[4] - x[2], (x[3] - x[1]) * 2
    return (
        torch.add(far_even, x[0] - x[2], alpha=4),  # 4x₀ − 5x₂ + x₄
        even + odd,  # −4x₁ − 4x₂ + x₃ + x₄
        even - odd,  # 4x₁ − 4x₂ − x₃ + x₄
        far_even + far_odd,  # −2x₁ − x₂ + 2x₃ + x₄
        far_even - far_odd,  # 2x₁ − x₂ − 2x₃ + x₄
        torch.sub(x[5] - x[3], far_odd, alpha=2),  # 4x₁ − 5x₃ + x₅
    )


def from_products(m: Tensor) -> Tensor:
    """Aᵀ m: (6, n, tiles, width, O) → (n, 4·tiles, width, O)."""
    near, near_difference = m[1] + m[2], m[1] - m[2]
    far, far_difference = m[3] + m[4], m[3] - m[4]
    y = (
        m[0] + near + far,
        torch.add(near_difference, far_difference, alpha=2),
        torch.add(near, far, alpha=4),
        torch.add(near_difference, far_difference, alpha=8) + m[5],
    )
    return torch.stack(y, 2).view(m.shape[1], -1, *m.shape[3:])


def to_products(grad_output: Tensor) -> Tensor:
    """A dL/dy: (n, O, height, width) → (6, n·tiles·width, O)."""
    _, channels, height, width = grad_output.shape
    tiles = math.ceil(height / TILE)
    below = [0, 0, 0, 0, 0, tiles * TILE - height]
    g = torch.constant_pad_nd(grad_output.movedim(1, -1), below).reshape(-1, tiles, TILE, width, channels).movedim(2, 0)
    near_even, near_odd = g[0] + g[2], g[1] + g[3]
    far_even, far_odd = torch.add(g[0], g[2], alpha=4), torch.add(g[1], g[3], alpha=4) * 2
    m = (
        g[0],
        near_even + near_odd,  # g₀ + g₁ + g₂ + g₃
        near_even - near_odd,  # g₀ − g₁ + g₂ − g₃
        far_even + far_odd,  # g₀ + 2g₁ + 4g₂ + 8g₃
        far_even - far_odd,  # g₀ − 2g₁ + 4g₂ − 8g₃
        g[3],
    )
    return torch.stack(m).view(SEEN, -1, channels)


def rows_per_picture(input: Tensor, windows: Windows, height: int, width: int) -> int:
    """The elements of one picture's rows."""
    return SEEN * math.ceil(height / TILE) * width * windows.kernel_size[1] * input.shape[1]

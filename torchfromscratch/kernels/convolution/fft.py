"""Convolution in the frequency domain: a product for each frequency in place of a sum over taps.

With X, W and G the discrete Fourier transforms of x, w and dL/dy, the convolution and its gradients are

    Y = Σ_c X · W*        dL/dW = Σ_n G* · X        (* conjugate, as a correlation asks for)

and dL/dX is such a correlation too, of dL/dy with the rotated kernel. The transforms are periodic: the last k − 1 of S
outputs are mixed with the first. So the input is cut into blocks of S positions that overlap by k − 1, and each block
gives S − k + 1 outputs ("overlap-save"). The cost hardly depends on the size of the kernel, so large kernels gain. A
stride saves nothing: all outputs are computed, and then every s-th is taken. An infinity or a NaN in the input makes
its whole block NaN.

Source: M. Mathieu, M. Henaff and Y. LeCun, "Fast training of convolutional networks through FFTs", 2014;
A. Oppenheim and R. Schafer, "Discrete-Time Signal Processing", on overlap-save.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import axis_blocks
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.convolution.rotation import as_correlation, insert_zeros
from torchfromscratch.kernels.layout import any_channels_last, empty
from torchfromscratch.kernels.windows import Windows, spatial

# Measured on a CPU: transforming an element takes as long as so many complex multiplications in a product of matrices.
TRANSFORM_COST = 80
# One multiplication of complex numbers takes as long as so many of real ones.
COMPLEX_COST = 5
# Of a depthwise kernel: with 127 taps in a row, or 13×13, the transform takes 0.4 to 0.8 of the taps' time, with 63 or
# 9×9 up to 1.8 times as long.
FEWEST_TAPS = 64
# The block sizes to choose from, in kernel sizes.
BLOCK_FACTORS = (1.5, 2, 3, 4, 6, 8, math.inf)


def cost(task: Task) -> float:
    """Infinite for a stride, and for the kernels that Winograd's method is made for."""
    windows = task.windows
    is_winograds = windows.kernel_size[-2:] == (3, 3) and windows.groups == 1
    few_taps = task.is_depthwise and windows.tap_count < FEWEST_TAPS
    if not task.may_round or set(windows.stride) != {1} or is_winograds or few_taps:
        return math.inf
    blocks = choose_blocks(task.batch, task.channels, task.input_size, windows)
    return COMPLEX_COST * blocks.multiplications(task.batch, task.channels, windows.groups)


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in the package."""
    batch, (out_channels, channels), groups = input.shape[0], weight.shape[:2], windows.groups
    blocks = choose_blocks(batch, (channels * groups, out_channels), input.shape[2:], windows)
    size = windows.output_size(input.shape[2:])
    output = empty((batch, out_channels, *size), any_channels_last(input, weight), like=input)
    output_index = [slice(0, (o - 1) * s + 1, s) for o, s in zip(size, windows.stride, strict=True)]
    x = spectrum(blocks.input_blocks(input), groups, blocks.periods)
    kernels = insert_zeros(conjugate(weight), windows.dilation)
    kernels = kernels.unflatten(0, (groups, -1)).transpose(0, 1)  # (O/G, G, C/G, *extent)
    outputs_by_group = output.unflatten(1, (groups, -1))
    for filter_block in axis_blocks(
        input, out_channels // groups, 2 * blocks.frequencies * groups * (channels + x.shape[2])
    ):
        w = spectrum(kernels[filter_block].flatten(1, 2), groups, blocks.periods)
        products = torch.matmul(x, w.mH)  # (F, G, blocks, part)
        y = blocks.merge(signal(products, blocks.periods, input.dtype), batch)
        outputs_by_group[:, :, filter_block] = y[spatial(output_index)].unflatten(1, (groups, -1))
    return output if bias is None else output.add_(bias.view(-1, *[1] * windows.dims))


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in the package."""
    return correlate(*as_correlation(grad_output, weight, windows, input_size))


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in the package."""
    channels, out_channels, groups = input.shape[1], grad_output.shape[1], windows.groups
    blocks = choose_blocks(input.shape[0], (channels, out_channels), input.shape[2:], windows)
    shape = (out_channels, channels // groups, *windows.kernel_size)
    grad_weight = empty(shape, any_channels_last(input, grad_output), like=input)
    x = spectrum(blocks.input_blocks(input), groups, blocks.periods)
    gradients = insert_zeros(conjugate(grad_output), windows.stride).unflatten(1, (groups, -1))
    taps = [slice(0, extent, d) for extent, d in zip(windows.extent, windows.dilation, strict=True)]
    kernels = grad_weight.unflatten(0, (groups, -1)).transpose(0, 1)  # (O/G, G, C/G, *k)
    for filter_block in axis_blocks(
        input, out_channels // groups, 2 * blocks.frequencies * (channels + groups * x.shape[2])
    ):
        g = spectrum(blocks.output_blocks(gradients[:, :, filter_block].flatten(1, 2)), groups, blocks.periods)
        w = signal(torch.matmul(g.mH, x), blocks.periods, input.dtype)  # (part, C, *periods)
        kernels[filter_block] = w[spatial(taps)].unflatten(1, (groups, -1))
    return grad_weight


@dataclass(frozen=True)
class Blocks:
    """Blocks of `periods` positions, each of which gives `steps` outputs of a correlation with stride 1."""

    padding: tuple[int, ...]
    outputs: tuple[int, ...]
    periods: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many blocks there are along each dimension."""
        return tuple(math.ceil(o / step) for o, step in zip(self.outputs, self.steps, strict=True))

    def multiplications(self, batch: int, channels: tuple[int, int], groups: int) -> int:
        """The complex multiplications of a convolution, transforms included."""
        blocks, kernels = batch * math.prod(self.counts), math.prod(channels) // groups
        transforms = kernels + blocks * sum(channels)
        return self.frequencies * (TRANSFORM_COST * transforms + blocks * kernels)

    @property
    def frequencies(self) -> int:
        """How many frequencies the transform of a real block has."""
        return math.prod(self.periods[:-1]) * (self.periods[-1] // 2 + 1)

    def input_blocks(self, input: Tensor) -> Tensor:
        """The input (N, C, *size) that each block sees: (N·blocks, C, *periods)."""
        ends = [(count - 1) * step + S for count, step, S in zip(self.counts, self.steps, self.periods, strict=True)]
        return extract_blocks(pad_to(input, self.padding, ends), self.periods, self.steps)

    def output_blocks(self, output: Tensor) -> Tensor:
        """The outputs (N, O, *size) that each block gives: (N·blocks, O, *steps)."""
        ends = [count * step for count, step in zip(self.counts, self.steps, strict=True)]
        return extract_blocks(pad_to(output, (0,) * len(ends), ends), self.steps, self.steps)

    def merge(self, output: Tensor, batch: int) -> Tensor:
        """The transpose of `output_blocks`, of the first S − k + 1 of (N·blocks, O, *periods): (N, O, *outputs)."""
        dims = len(self.steps)
        valid = output[spatial(map(slice, self.steps))].unflatten(0, (batch, *self.counts))
        pairs = [dim for pair in zip(range(1, 1 + dims), range(2 + dims, 2 + 2 * dims), strict=True) for dim in pair]
        size = [count * step for count, step in zip(self.counts, self.steps, strict=True)]
        merged = valid.permute(0, 1 + dims, *pairs).reshape(batch, output.shape[1], *size)
        return merged[spatial(map(slice, self.outputs))]


def choose_blocks(batch: int, channels: tuple[int, int], input_size: Sequence[int], windows: Windows) -> Blocks:
    """The blocks that cost least. Large blocks waste little at their ends; small blocks transform smaller kernels."""
    padded = [size + 2 * p for size, p in zip(input_size, windows.padding, strict=True)]
    outputs = tuple(size - extent + 1 for size, extent in zip(padded, windows.extent, strict=True))

    def of_size(factor: float) -> Blocks:
        periods = tuple(
            fast_period(math.ceil(min(extent * factor, size)))
            for extent, size in zip(windows.extent, padded, strict=True)
        )
        steps = tuple(S - extent + 1 for S, extent in zip(periods, windows.extent, strict=True))
        return Blocks(windows.padding, outputs, periods, steps)

    def multiplications(blocks: Blocks) -> int:
        return blocks.multiplications(batch, channels, windows.groups)

    return min(map(of_size, BLOCK_FACTORS), key=multiplications)


def fast_period(least: int) -> int:
    """The next even number without a prime factor above 5, of which transforms are fast."""
    period = least + least % 2
    while 60**10 % period:
        period += 2
    return period


def spectrum(data: Tensor, groups: int, periods: Sequence[int]) -> Tensor:
    """The transform of (N, G·C, *size), each frequency a matrix: (frequencies, G, N, C)."""
    transform = torch.fft.fftn if data.is_complex() else torch.fft.rfftn
    frequencies = transform(data, tuple(periods), tuple(range(2, data.dim())))
    return frequencies.flatten(2).unflatten(1, (groups, -1)).permute(3, 1, 0, 2).contiguous()


def signal(frequencies: Tensor, periods: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The inverse of `spectrum`."""
    last, dims = frequencies.permute(2, 1, 3, 0).flatten(1, 2), tuple(range(2, 2 + len(periods)))
    if dtype.is_complex:
        return torch.fft.ifftn(last.unflatten(-1, tuple(periods)), dim=dims)
    return torch.fft.irfftn(last.unflatten(-1, (*periods[:-1], periods[-1] // 2 + 1)), tuple(periods), dims)


def conjugate(data: Tensor) -> Tensor:
    """Written out, as what compiled code calls for the first time ignores torch's lazy conjugates."""
    return data.conj().resolve_conj()


def pad_to(data: Tensor, before: Sequence[int], ends: Sequence[int]) -> Tensor:
    """`data` (N, C, *size) with zeros before it and behind it, up to `ends`."""
    amounts = [
        amount
        for size, pad, end in zip(reversed(data.shape[2:]), reversed(before), reversed(ends), strict=True)
        for amount in (pad, end - pad - size)
    ]
    return torch.constant_pad_nd(data, amounts)


def extract_blocks(data: Tensor, sizes: Sequence[int], steps: Sequence[int]) -> Tensor:
    """Blocks of these sizes, `steps` apart: (N, C, …) → (N·blocks, C, *sizes)."""
    dims = len(sizes)
    for dim, (size, step) in enumerate(zip(sizes, steps, strict=True), 2):
        data = data.unfold(dim, size, step)
    return data.movedim(1, 1 + dims).flatten(0, dims)


FFT = Kernel("fft", lambda task: True, cost, correlate, full_convolution, weight_gradient)

"""Convolution as matrix multiplication: every window becomes a row, every filter a column.

The matrix of windows is built for a few samples at a time, so that it is still in the cache when it is multiplied. It
is written in the order that copies longer runs: row by row where the channels of a pixel lie together, or column by
column where the outputs of a tap do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.kernels import blocking
from torchfromscratch.kernels.blocking import take_block
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.convolution.rotation import as_correlation
from torchfromscratch.kernels.execution import in_cpu_memory, is_exporting
from torchfromscratch.kernels.layout import any_channels_last, copy_to_memory_format, empty
from torchfromscratch.kernels.planning import cache_plans
from torchfromscratch.kernels.precision import widen
from torchfromscratch.kernels.windows import Windows, crop_to


def cost(task: Task) -> float:
    return task.cost_of_matrices


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y: every window's row times every filter, plus b."""
    size = windows.output_size(input.shape[2:])
    filters = filter_rows(weight, windows).unsqueeze(1)  # (G, 1, O/G, K)
    shape, channels_last = (input.shape[0], weight.shape[0], *size), any_channels_last(input, weight)
    output: Tensor | None = None
    in_memory = in_cpu_memory(input, weight, bias)
    if windows.groups == 1 and in_memory:
        output = empty(shape, channels_last, like=input)
        for samples, row_block, matrix in window_matrices(input, windows, size, in_memory):
            y = take_block(take_block(output, samples), row_block, 2)
            multiply_into(y, matrix[0], filters[0, 0], bias, channels_last)
        return output
    for samples, row_block, matrix in window_matrices(input, windows, size, in_memory):
        by_row = matrix.stride(-1) == 1
        product = torch.matmul(matrix, filters.mT).mT if by_row else torch.matmul(filters, matrix.mT)
        if bias is not None:
            product = product + bias.view(windows.groups, 1, -1, 1)
        if output is None:
            output = empty(shape, channels_last, like=product)
        y = take_block(take_block(output, samples), row_block, 2)
        y.copy_(product.transpose(0, 1).reshape(y.shape))  # from (G, n, O/G, outputs)
    assert output is not None
    return output


def multiply_into(output: Tensor, matrix: Tensor, filters: Tensor, bias: Tensor | None, channels_last: bool) -> None:
    """Some samples' windows (n, outputs, K) times the filters (O, K), plus the bias, into y (n, O, *output).

    One product for all samples where the windows lie row by row, one for each where they lie column by column.
    """
    (samples, outputs, row), channels = matrix.shape, filters.shape[0]
    last = output.movedim(1, -1)
    if matrix.stride(-1) == 1:
        shape = samples * outputs, channels
        products = last.view(shape) if channels_last else matrix.new_empty(shape)
        multiply(matrix.reshape(samples * outputs, row), filters.mT, bias, products)
        if not channels_last:
            last.copy_(products.view(last.shape))
    elif channels_last:
        multiply(matrix, filters.mT.expand(samples, -1, -1), bias, last.view(samples, outputs, channels))
    else:
        bias = None if bias is None else bias.unsqueeze(1)
        multiply(filters.expand(samples, -1, -1), matrix.mT, bias, output.view(samples, channels, outputs))


def multiply(left: Tensor, right: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """left · right + bias, of matrices or of many."""
    if bias is None:
        torch.matmul(left, right, out=out)
    elif left.dim() == 2:
        torch.addmm(bias, left, right, out=out)
    else:
        torch.baddbmm(bias, left, right, out=out)


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in the package.

    A stride would put s − 1 zeros between the elements of dL/dy. Rather than multiply by them, this adds the share of
    each window, dL/dy times the filters, to its place in dL/dx. It does the same where the kernel is larger than dL/dy,
    as rotating the kernel would take longer. Narrow types are summed in float32.
    """
    if set(windows.stride) == {1} and weight.numel() <= grad_output.numel():
        return correlate(*as_correlation(grad_output, weight, windows, input_size))
    groups, (_, channels, *kernel_size) = windows.groups, weight.shape
    size = tuple(grad_output.shape[2:])
    filters = filter_rows(weight, windows)
    shape, output = (grad_output.shape[0], groups * channels, *input_size), None
    for samples, row_blocks in blocks_of(
        grad_output, size, groups * filters.shape[2], in_cpu_memory(grad_output, weight)
    ):
        gradients = take_block(grad_output, samples)
        padded_shape, padded = (groups, gradients.shape[0], *windows.padded_size(input_size), channels), None
        for row_block in row_blocks:
            block_gradients = take_block(gradients, row_block, 2)
            shares = torch.bmm(output_rows(block_gradients, windows), filters)
            shares = shares.view(groups, gradients.shape[0], *block_gradients.shape[2:], *kernel_size, channels)
            padded = widen(shares.new_zeros(padded_shape)) if padded is None else padded
            for tap in windows.taps:
                tap_view = take_block(windows.tap_view(tap, padded, size, at=2), row_block, 2)
                tap_view += shares[(slice(None),) * (2 + windows.dims) + tap]
        assert padded is not None
        dx = windows.unpad(padded, input_size, at=2)
        if output is None:
            output = empty(shape, any_channels_last(grad_output, weight), like=shares)
        take_block(output, samples).copy_(dx.transpose(0, 1).movedim(-1, 2).reshape(gradients.shape[0], *shape[1:]))
    assert output is not None
    return output


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw: the sum over all windows of their dL/dy times their row.

    Where there are more windows than numbers in a row, the filters are the columns of the sum. Their number is often a
    multiple of sixteen, along which products are fast, and transposing the sum is little work.
    """
    size, groups, out_channels = tuple(grad_output.shape[2:]), windows.groups, grad_output.shape[1]
    row_length = input.shape[1] // groups * math.prod(windows.kernel_size)
    as_columns = grad_output.shape[0] * math.prod(size) >= row_length
    total, in_memory = None, in_cpu_memory(input, grad_output)
    for samples, row_block, matrix in window_matrices(input, windows, size, in_memory):
        gradients = take_block(take_block(grad_output, samples), row_block, 2)
        if matrix.stride(-1) == 1:
            matrix = matrix.reshape(groups, math.prod(matrix.shape[1:3]), row_length)
            gradients = output_rows(gradients, windows)
            factors = (matrix.mT, gradients) if as_columns else (gradients.mT, matrix)
            if total is None:
                total = torch.bmm(*factors)
            else:
                total = total.baddbmm_(*factors) if in_memory else total.baddbmm(*factors)
        else:  # column by column: a product for each sample, as joining them would copy the matrix
            by_group = gradients.reshape(-1, groups, out_channels // groups, matrix.shape[2]).transpose(0, 1)
            factors = (matrix.mT, by_group.mT) if as_columns else (by_group, matrix)
            share = torch.matmul(*factors).sum(1)
            total = share if total is None else total + share
    assert total is not None
    rows = total.mT if as_columns else total
    filters_last = rows.reshape(out_channels, *windows.kernel_size, input.shape[1] // groups)
    return copy_to_memory_format(filters_last.movedim(-1, 1), any_channels_last(input, grad_output))


Blocks = list[tuple[slice, list[slice]]]  # samples, and rows of their outputs


def blocks_of(batch: Tensor, output_size: Sequence[int], row_length: int, in_memory: bool) -> Blocks:
    """The windows in blocks that fit the cache; one block elsewhere than in CPU memory.

    One block of narrow types, too: the gradient of a weight would be rounded once more with every block.
    """
    if not in_memory or batch.element_size() < 4:
        return [(slice(0, batch.shape[0]), [slice(0, output_size[0])])]
    row_bytes = row_length * batch.element_size()
    return blocks(batch.shape[0], output_size, row_bytes, blocking.BATCH_BLOCK_BYTES, torch.get_num_threads())


@cache_plans
def blocks(batch: int, output_size: Sequence[int], row_bytes: int, block_bytes: int, cores: int) -> Blocks:
    """Blocks of several samples, or of some rows of outputs of one sample. Symbolic sizes become numbers."""
    batch, output_size = int(batch), tuple(map(int, output_size))
    output_row_bytes = math.prod(output_size[1:]) * row_bytes
    row_blocks = blocking.even_blocks(output_size[0], block_bytes // max(1, output_row_bytes), cores)
    samples = blocking.even_blocks(batch, block_bytes // max(1, output_row_bytes * output_size[0]), cores)
    return [(block_samples, row_blocks) for block_samples in samples]


def window_matrices(
    input: Tensor, windows: Windows, output_size: Sequence[int], in_memory: bool
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Block by block: some samples, some rows of their outputs, and the matrix of their windows."""
    for samples, row_blocks in blocks_of(input, output_size, input.shape[1] * windows.tap_count, in_memory):
        view = (view_in_memory if in_memory else window_view)(take_block(input, samples), windows, output_size)
        for row_block in row_blocks:
            yield samples, row_block, window_matrix(view, row_block, windows)


def prefers_channels_last(channels: int, windows: Windows, output_size: Sequence[int]) -> bool:
    """Whether runs of channels are longer than runs of outputs."""
    run_of_outputs = output_size[-1] if windows.stride[-1] == 1 else 1
    is_run = windows.dilation[-1] == 1 and windows.groups == 1
    return channels * (windows.kernel_size[-1] if is_run else 1) >= run_of_outputs


def window_view(samples: Tensor, windows: Windows, output_size: Sequence[int]) -> Tensor:
    """The windows over some samples (n, C, *input), as a view (G, n, *output, *k, C/G)."""
    groups, channels = windows.groups, samples.shape[1] // windows.groups
    padded = windows.pad(samples)
    if is_exporting() or prefers_channels_last(channels, windows, output_size):  # an exported graph is for all sizes
        padded = padded.movedim(1, -1).contiguous().movedim(-1, 1)
    by_group = padded.contiguous().view(samples.shape[0], groups, channels, *padded.shape[2:])
    view = crop_to(windows.slide(by_group, at=3), output_size, at=3)  # (n, G, C/G, *output, *k)
    return view.movedim(2, -1).transpose(0, 1)


def view_in_memory(samples: Tensor, windows: Windows, output_size: Sequence[int]) -> Tensor:
    """The same view, of samples that are padded and transposed in one copy."""
    channels_last, shape, interior, size, stride = view_plan(samples.shape, windows, output_size)
    samples = samples.movedim(1, -1) if channels_last else samples
    padded = samples.contiguous() if interior is None else samples.new_zeros(shape)
    if interior is not None:
        padded[interior].copy_(samples)
    return padded.as_strided(size, stride)


@cache_plans
def view_plan(shape: torch.Size, windows: Windows, output_size: Sequence[int]) -> tuple[Any, ...]:
    """Whether channels lie last, the padded shape, what of it holds the samples, and the view's size and strides."""
    (batch, channels, *input_size), w = shape, windows
    group_channels, padded_size = channels // w.groups, w.padded_size(input_size)
    channels_last = prefers_channels_last(group_channels, w, output_size)
    interior = [slice(p, p + size) for p, size in zip(w.padding, input_size, strict=True)]
    full = slice(None)
    if channels_last:
        padded, index = (batch, *padded_size, channels), (full, *interior, full)
    else:
        padded, index = (batch, channels, *padded_size), (full, full, *interior)
    strides = [math.prod(padded[dim + 1 :]) for dim in range(len(padded))]
    sample_stride, *space_strides = strides[:1] + (strides[1:-1] if channels_last else strides[2:])
    channel_stride = strides[-1 if channels_last else 1]
    moves = [step * s for step, s in zip(space_strides, w.stride, strict=True)]
    taps = [step * d for step, d in zip(space_strides, w.dilation, strict=True)]
    size = (w.groups, batch, *output_size, *w.kernel_size, group_channels)
    view_strides = (group_channels * channel_stride, sample_stride, *moves, *taps, channel_stride)
    return channels_last, padded, tuple(index) if any(w.padding) else None, size, view_strides


def window_matrix(view: Tensor, row_block: slice, windows: Windows) -> Tensor:
    """The windows of some rows of outputs, each window a row: (G, n, outputs, *k·C/G)."""
    view = take_block(view, row_block, 2)
    groups, samples, *size = view.shape
    outputs, row = size[: windows.dims], size[windows.dims :]
    if view.stride(1 + windows.dims) == 1 and view.stride(-1) > 1:
        by_column = view.permute(0, 1, *range(2 + windows.dims, view.dim()), *range(2, 2 + windows.dims))
        return by_column.reshape(groups, samples, math.prod(row), math.prod(outputs)).mT
    return view.reshape(groups, samples, math.prod(outputs), math.prod(row))


def filter_rows(weight: Tensor, windows: Windows) -> Tensor:
    """The filters (O, C/G, *k) as rows (G, O/G, *k·C/G), in the order of a window's row."""
    return weight.movedim(1, -1).reshape(windows.groups, weight.shape[0] // windows.groups, math.prod(weight.shape[1:]))


def output_rows(grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dy (n, O, *output) as rows (G, n·output, O/G), one for each window."""
    last = grad_output.movedim(1, -1)
    return last.reshape(math.prod(last.shape[:-1]), windows.groups, last.shape[-1] // windows.groups).transpose(0, 1)


IM2COL = Kernel("im2col", lambda task: True, cost, correlate, full_convolution, weight_gradient, rounds_once=True)

"""Max pooling: which tap of each window wins, fetching the winners, and the transpose of fetching.

Windows are compared tap by tap. What one tap sees of all windows is a strided view of the input, so no window is
copied. Where there are many taps, two neighbours give the winner of two, two of these the winner of four, and so on. A
winner is kept as the number of its tap, one byte a window. Its position in the input is that of its window plus the
offset of the tap. The spans of adaptive pooling have no such offsets, so their winners are kept as positions, as are
those of windows where the caller wants them. Such are in int64.

x is (N, C, *input); y, dL/dy and the winners are (N, C, *output).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchfromscratch.kernels import triton
from torchfromscratch.kernels.blocking import batch_blocks, take_block
from torchfromscratch.kernels.buffers import FreshMemory, Workspace, buffer_like, no_view
from torchfromscratch.kernels.custom_ops import custom_op
from torchfromscratch.kernels.execution import has_concrete_values, is_batched
from torchfromscratch.kernels.gate import match_bits, where_equal
from torchfromscratch.kernels.layout import any_channels_last, empty, is_channels_last, to_memory_format
from torchfromscratch.kernels.precision import widen
from torchfromscratch.kernels.spans import FEW, Dividing, Spans, interleave, sizes_are_open
from torchfromscratch.kernels.windows import Windows, spatial

# The transpose of `fetch` walks over all windows for each tap, or once with an index. 3×3 taps of contiguous images
# take 13.9 and 7.6 ms, channels last 9.8 and 11 ms (64 × 112², batch 8).
TAPS_ONE_BY_ONE = 8

# More taps than these along a dimension are compared in rows or by doubling. Rows of 10⁶ elements take 1.3 to 1.8 ms,
# each doubling 0.4 ms.
MOST_TAPS = 32

# So many elements that windows see are compared all taps at once: of 2×2 taps, 2^15 take 82 μs, one tap after the other
# 355; 2^19 take 2.9 ms and 1.4.
FEW_SEEN = 2**16

# float32 counts no further.
MOST_NUMBERS = 2**24


def empty_maxima(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """Memory for the largest element of each window and for its number, in one byte if that is enough."""
    shape = (*input.shape[:2], *windows.output_size(input.shape[2:]))
    largest = empty(shape, any_channels_last(input), like=input)
    return largest, torch.empty_like(largest, dtype=torch.int8 if windows.tap_count <= 2**7 else torch.int32)


@custom_op(like=empty_maxima)
def max_windows(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The largest element of each window, and the number of its tap.

    The first of equal elements wins. NaN beats every number, and a later NaN an earlier one.
    """
    kernels = triton.kernels("pooling", input, when_compiling=True)
    if kernels is not None:
        return kernels.max_windows(input, windows)
    lowest = -math.inf if input.is_floating_point() else torch.iinfo(input.dtype).min
    output_size = windows.output_size(input.shape[2:])
    largest, winners = empty_maxima(input, windows)
    workspace = Workspace() if _may_count_in_floats(input, windows.tap_count) else None
    sees_few = largest.numel() * windows.tap_count <= FEW_SEEN
    blocks = batch_blocks(input, math.prod(input.shape[1:]))
    for block, padded in zip(blocks, padded_blocks(input, windows, lowest, blocks), strict=True):
        if workspace is not None and covers_input(windows, input.shape[2:]):
            best, numbers = [maxima.view_as(take_block(largest, block)) for maxima in widen(padded).flatten(2).max(2)]
        elif workspace is not None and sees_few and padded.shape[1:] == input.shape[1:]:
            best, numbers = _max_of_few(widen(padded), output_size, windows)
        else:
            best, numbers = _max_windows(widen(padded), output_size, windows, workspace)
        if workspace is not None and best.sum().isnan():
            best, numbers = _max_windows(padded, output_size, windows, workspace=None)
        take_block(largest, block).copy_(best)
        take_block(winners, block).copy_(numbers)
    return largest, winners


def covers_input(windows: Windows, input_size: Sequence[int]) -> bool:
    """Whether one window covers the whole input, so that its taps are the elements in order."""
    return windows.kernel_size == tuple(input_size) and not any(windows.padding) and set(windows.dilation) == {1}


def padded_blocks(input: Tensor, windows: Windows, value: float, blocks: list[slice]) -> Iterator[Tensor]:
    """Each block of the batch with `value` around it, in the memory of the first one."""
    sizes = input.shape[2:]
    starts = [before for before, _ in windows.reach(sizes)]
    interior = spatial([slice(start, start + size) for start, size in zip(starts, sizes, strict=True)])
    padded = windows.pad(take_block(input, blocks[0]), value)
    yield padded
    for block in blocks[1:]:
        samples = take_block(input, block)
        if padded.shape[2:] != sizes:
            padded[: samples.shape[0]][interior] = samples
            samples = padded[: samples.shape[0]]
        yield samples


def _may_count_in_floats(input: Tensor, numbers: int) -> bool:
    """Whether comparisons may be written as floats, which takes a CPU a third of the time of truth values.

    Floats lose a NaN, so the caller must look for one in the result.
    """
    is_counted = input.is_floating_point() and numbers <= MOST_NUMBERS
    return is_counted and input.device.type == "cpu" and has_concrete_values(input)


class Maxima(NamedTuple):
    """The largest elements so far, and the numbers of the winners: None while all are 0."""

    values: Tensor
    numbers: Tensor | None

    def map(self, view: Callable[..., Tensor], *args: Any) -> Maxima:
        """`view(tensor, *args)` of both."""
        return Maxima(view(self.values, *args), None if self.numbers is None else view(self.numbers, *args))


def _max_of_few(input: Tensor, output_size: Sequence[int], windows: Windows) -> tuple[Tensor, Tensor]:
    """All taps at once, of windows that see no padding, which never wins."""
    taps = windows.slide(input).movedim([*range(-windows.dims, 0)], [*range(windows.dims)])
    best, numbers = taps.reshape(windows.tap_count, *input.shape[:2], *output_size).max(0)
    return best, numbers


def _max_windows(
    padded: Tensor, output_size: Sequence[int], windows: Windows, workspace: Workspace | None
) -> tuple[Tensor, Tensor]:
    """Along the last dimension, then along the others: the largest of a window is that of the largest of its rows."""
    if workspace is not None:
        workspace.begin()
    maxima, step = Maxima(padded, None), 1
    for dim in reversed(range(windows.dims)):
        reduce = _max_by_taps if windows.kernel_size[dim] <= MOST_TAPS else _max_of_many_taps
        maxima = reduce(dim, maxima, windows, output_size[dim], step, workspace)
        step *= windows.kernel_size[dim]
    return maxima.values, _numbers(maxima, _counts(padded, workspace))


def _max_by_taps(
    dim: int, data: Maxima, windows: Windows, outputs: int, step: int, workspace: Workspace | None
) -> Maxima:
    values = tap_views(dim, data.values, windows, outputs, workspace)
    if data.numbers is None:
        taps = [Maxima(value, None) for value in values]
    else:
        taps = [*map(Maxima, values, tap_views(dim, data.numbers, windows, outputs, workspace))]
    first = Maxima(values[0], _numbers_of_first(dim, taps[0], windows, step, workspace))
    return _first_of_largest([first, *taps[1:]], step, workspace)


def _max_of_many_taps(
    dim: int, data: Maxima, windows: Windows, outputs: int, step: int, workspace: Workspace | None
) -> Maxima:
    """In rows where windows overlap little, else by doubling: the largest of one tap, of two, of four, and so on."""
    taps, stride, dilation = windows.kernel_size[dim], windows.stride[dim], windows.dilation[dim]

    def tap_view(tap: int) -> Maxima:
        return data.map(lambda tensor: windows.axis_tap_view(dim, tap, tensor, outputs))

    first = tap_view(0)
    if workspace is not None and dilation == 1 and taps <= 2 * stride:
        extent = (outputs - 1) * stride + taps
        rows = data.map(Tensor.narrow, 2 + dim, 0, extent).map(Tensor.unfold, 2 + dim, taps, stride)
        maxima = _max_of_rows(rows, -1, step, exact=False)
    else:
        memory, width = None if workspace is None else FreshMemory(), 1
        while 2 * width <= taps:
            length = data.values.shape[2 + dim] - width * dilation
            later = data.map(Tensor.narrow, 2 + dim, width * dilation, length)
            data = _larger_of(data.map(Tensor.narrow, 2 + dim, 0, length), later, width * step, memory)
            width *= 2
        maxima = _larger_of(tap_view(0), tap_view(taps - width), (taps - width) * step, memory)
    number_of_first = _numbers_of_first(dim, first, windows, step, workspace)
    if windows.padding[dim] and maxima.numbers is not None and number_of_first is not None:
        # where all are equal, padding is not first
        return Maxima(maxima.values, maxima.numbers.maximum(number_of_first))
    return maxima


def _numbers_of_first(
    dim: int, first: Maxima, windows: Windows, step: int, workspace: Workspace | None
) -> Tensor | None:
    """The number of the first tap that lies in the input: it wins where all taps are equal."""
    if not windows.padding[dim]:
        return first.numbers
    number = step * first_valid_tap(dim, windows, first.values.shape[2 + dim], first.values.device)
    return number.to(_counts(first.values, workspace)) if first.numbers is None else first.numbers + number


def _first_of_largest(taps: Iterable[Maxima], step: int, workspace: Workspace | None) -> Maxima:
    """The largest of all taps, whose numbers are `step` apart."""
    best, *later = taps
    for tap, maxima in enumerate(later, 1):
        best = _larger_of(best, maxima, tap * step, workspace)
    return best


def _larger_of(best: Maxima, later: Maxima, offset: int, workspace: Workspace | None) -> Maxima:
    """The larger of the two. The number of a later one is `offset` more.

    Numbers grow from tap to tap, so that of the last winner is the largest of the winners' numbers.
    """
    if workspace is None:
        wins = ((later.values > best.values) | (later.values != later.values)).to(torch.int32)
    else:
        wins = torch.gt(later.values, best.values, out=workspace.like(later.values))
    values = torch.maximum(best.values, later.values, out=buffer_like(best.values, workspace))
    if later.numbers is not None:
        wins.mul_(torch.add(later.numbers, offset, out=buffer_like(later.numbers, workspace)))
    elif offset != 1:
        wins.mul_(offset)
    if best.numbers is not None:
        wins = torch.maximum(wins, best.numbers, out=buffer_like(wins, workspace))
    return Maxima(values, wins)


def _max_of_rows(rows: Maxima, dim: int, step: int, exact: bool) -> Maxima:
    """The largest along a dimension, where numbers are `step` apart. If `exact`, the last of several NaN wins."""
    best, place = rows.values.max(dim)
    if exact:
        from_end = (rows.values != rows.values).flip(dim).to(torch.int8).argmax(dim)
        place = torch.where(best == best, place, rows.values.shape[dim] - 1 - from_end)
    number = (place * step).to(torch.int32 if exact else best.dtype)
    if rows.numbers is None:
        return Maxima(best, number)
    return Maxima(best, number + rows.numbers.gather(dim, place.unsqueeze(dim)).squeeze(dim))


def _numbers(maxima: Maxima, counts: torch.dtype) -> Tensor:
    return torch.zeros_like(maxima.values, dtype=counts) if maxima.numbers is None else maxima.numbers


def _counts(values: Tensor, workspace: Workspace | None) -> torch.dtype:
    """The type of winners' numbers."""
    return torch.int32 if workspace is None else values.dtype


def tap_views(dim: int, data: Tensor, windows: Windows, outputs: int, workspace: Workspace | None) -> list[Tensor]:
    """What each tap along one dimension sees of the data. A view without a dense dimension is slow, so it is copied."""
    views = [windows.axis_tap_view(dim, number, data, outputs) for number in range(windows.kernel_size[dim])]
    if workspace is None:
        return [view if 1 in view.stride() else view.clone() for view in views]
    return [view if 1 in view.stride() else workspace.like(view).copy_(view) for view in views]


def max_positions(input: Tensor, windows: Windows | Sequence[Spans]) -> tuple[Tensor, Tensor]:
    """The largest element of each window, or span of adaptive pooling, and its position in row-major order."""
    if not isinstance(windows, Windows):
        return _max_span_positions(input, [Dividing(span.inputs, span.outputs) for span in windows])
    kernels = triton.kernels("pooling", input)
    if kernels is not None:
        return kernels.max_positions(input, windows)
    largest, winners = max_windows(input, windows)
    positions = torch.empty_like(largest, dtype=torch.int64)
    return largest, positions.copy_(flat_positions(winners, windows, input.shape[2:]))


def _max_span_positions(input: Tensor, dividing: Sequence[Dividing]) -> tuple[Tensor, Tensor]:
    kernels = triton.kernels("pooling", input)
    if kernels is not None:
        return kernels.max_span_positions(input, dividing)
    shape = *input.shape[:2], *[span.outputs for span in dividing]
    largest = empty(shape, any_channels_last(input), like=input)
    positions = torch.empty_like(largest, dtype=torch.int64)
    exact = sizes_are_open() or not _may_count_in_floats(input, math.prod(input.shape[2:]))
    for block in batch_blocks(input, math.prod(input.shape[1:])):
        data = widen(take_block(input, block))
        best, offsets = _max_spans(data, dividing, exact)
        if not exact and best.sum().isnan():
            best, offsets = _max_spans(data, dividing, exact=True)
        take_block(largest, block).copy_(best)
        take_block(positions, block).copy_(offsets)
    start = torch.zeros((), dtype=torch.int64, device=input.device)
    for span in dividing:
        start = start.unsqueeze(-1) * span.inputs + span.bounds(input.device)[0]
    return largest, positions.add_(start)


def _max_spans(data: Tensor, spans: Sequence[Dividing], exact: bool) -> tuple[Tensor, Tensor]:
    """The largest elements, and how many positions they lie behind the starts of their spans."""
    maxima, step, counts = Maxima(data, None), 1, torch.int32 if exact else data.dtype
    for dim, span in reversed(list(enumerate(spans, 2))):
        maxima_of_views = [_max_along(dim_of_rows, rows, step, exact) for dim_of_rows, rows in _rows(dim, maxima, span)]
        largest = interleave([view_maxima.values for view_maxima in maxima_of_views], dim)
        numbers = interleave([_numbers(view_maxima, counts) for view_maxima in maxima_of_views], dim)
        maxima, step = Maxima(largest, numbers), step * span.inputs
    return maxima.values, _numbers(maxima, counts)


def _rows(dim: int, data: Maxima, span: Dividing) -> list[tuple[int, Maxima]]:
    """The elements of the spans, and the dimension along which they lie."""
    values = span.views(data.values, dim)
    if values is None:
        numbers = None if data.numbers is None else span.gather(data.numbers, dim, beyond=0)
        return [(dim, Maxima(span.gather(data.values, dim, beyond=-math.inf), numbers))]
    numbers_of_views = [None] * len(values) if data.numbers is None else span.views(data.numbers, dim)
    return [(dim + 1, Maxima(*view)) for view in zip(values, numbers_of_views or [], strict=True)]


def _max_along(dim: int, rows: Maxima, step: int, exact: bool) -> Maxima:
    if sizes_are_open() or rows.values.shape[dim] > FEW:
        return _max_of_rows(rows, dim, step, exact)
    taps = [rows.map(Tensor.select, dim, tap) for tap in range(rows.values.shape[dim])]
    return _first_of_largest(taps, step, None if exact else FreshMemory())


def fetch(input: Tensor, winners: Tensor, windows: Windows | None) -> Tensor:
    """The value of each window's winner."""
    is_position = windows is None or winners.dtype == torch.int64
    kernels = None if is_position else triton.kernels("pooling", input, indices=winners, when_compiling=True)
    if kernels is not None:
        return kernels.fetch(input, winners, windows)
    positions = flat_positions(winners, windows, input.shape[2:])
    if any_channels_last(input):
        by_pixel = _pixels(input).gather(1, _pixels(positions))
        return by_pixel.view(-1, *winners.shape[2:], winners.shape[1]).movedim(-1, 1)
    return no_view(_planes(input).gather(2, _planes(positions)), winners.shape)


def empty_input(grad_output: Tensor, winners: Tensor, windows: Windows | None, input_size: Sequence[int]) -> Tensor:
    """Memory for dL/dx."""
    return empty((*grad_output.shape[:2], *input_size), any_channels_last(grad_output), like=grad_output)


@custom_op(like=empty_input)
def fetch_transpose(grad_output: Tensor, winners: Tensor, windows: Windows | None, input_size: Sequence[int]) -> Tensor:
    """dL/dx: the dL/dy of each window added to its winner, 0 everywhere else."""
    kernels = None if windows is None else triton.kernels("pooling", grad_output, indices=winners, when_compiling=True)
    if kernels is not None:
        return kernels.fetch_transpose(grad_output, winners, windows, input_size)
    if windows is None or winners.dtype == torch.int64 or windows.tap_count > TAPS_ONE_BY_ONE:
        return _scatter_add(grad_output, flat_positions(winners, windows, input_size), input_size)
    shape = (*grad_output.shape[:2], *windows.padded_size(input_size))
    size = grad_output.shape[2:]
    padded = empty(shape, any_channels_last(grad_output), like=grad_output)
    without_gaps = windows.stride == windows.kernel_size == windows.extent
    tile_the_input = without_gaps and shape[2:] == tuple(map(operator.mul, size, windows.stride))
    if not tile_the_input:
        padded.zero_()
    for block in batch_blocks(padded, math.prod(padded.shape[1:])):
        gradients, numbers = take_block(grad_output, block), match_bits(take_block(winners, block), grad_output)
        for number, tap in enumerate(windows.taps):
            at_tap = windows.tap_view(tap, take_block(padded, block), size)
            if tile_the_input:
                where_equal(gradients, numbers, number, out=at_tap)
            else:
                at_tap.add_(where_equal(gradients, numbers, number))
    return windows.unpad(padded, input_size)


def _scatter_add(grad_output: Tensor, positions: Tensor, input_size: Sequence[int]) -> Tensor:
    batch, channels = grad_output.shape[:2]
    if any_channels_last(grad_output):
        arrange, dim, shape = _pixels, 1, (batch, math.prod(input_size), channels)
    else:
        arrange, dim, shape = _planes, 2, (batch, channels, math.prod(input_size))
    zeros, gradients = grad_output.new_zeros(shape), arrange(grad_output)
    add = zeros.scatter_add if is_batched(grad_output, positions) else zeros.scatter_add_
    total = add(dim, arrange(positions), gradients)
    if dim == 1:
        return total.view(batch, *input_size, channels).movedim(-1, 1)
    return total.view(batch, channels, *input_size)


def flat_positions(winners: Tensor, windows: Windows | None, input_size: Sequence[int]) -> Tensor:
    """The position of each winner in its channel (*input), in row-major order: torch's `return_indices`.

    Winners in int64 are such positions.
    """
    if windows is None or winners.dtype == torch.int64:
        return winners
    device = winners.device
    window = torch.zeros((), dtype=torch.int64, device=device)
    for dim, size in enumerate(input_size):
        along_output = torch.arange(winners.shape[2 + dim], device=device) * windows.stride[dim] - windows.padding[dim]
        window = window.unsqueeze(-1) * size + along_output
    return window + _offsets(winners.long(), windows, input_size)


def _offsets(winners: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """How many positions each winner lies behind the start of its window: from a table, or computed for a few."""
    if not sizes_are_open() and windows.tap_count > winners.numel():
        offset, step = torch.zeros_like(winners), 1
        for dim in reversed(range(windows.dims)):
            offset += winners % windows.kernel_size[dim] * (windows.dilation[dim] * step)
            winners, step = winners // windows.kernel_size[dim], step * input_size[dim]
        return offset
    table = torch.zeros((), dtype=torch.int64, device=winners.device)
    for size, k, d in zip(input_size, windows.kernel_size, windows.dilation, strict=True):
        table = table.unsqueeze(-1) * size + torch.arange(k, device=winners.device) * d
    return table.view(-1)[winners]


def first_valid_tap(dim: int, windows: Windows, outputs: int, device: torch.device) -> Tensor:
    """Along one dimension, the number of each window's first tap that lies in the input and not in the padding."""
    s, p, d = (of[dim] for of in (windows.stride, windows.padding, windows.dilation))
    overhang = (p - torch.arange(outputs, device=device) * s).clamp(min=0)
    return ((overhang + d - 1) // d).view(-1, *[1] * (windows.dims - 1 - dim))


def _planes(tensor: Tensor) -> Tensor:
    """(N, C, *spatial) → (N, C, pixels)."""
    return tensor.reshape(*tensor.shape[:2], math.prod(tensor.shape[2:]))


def _pixels(tensor: Tensor) -> Tensor:
    """(N, C, *spatial) → (N, pixels, C)."""
    return tensor.movedim(1, -1).reshape(tensor.shape[0], math.prod(tensor.shape[2:]), tensor.shape[1])


def unpool(input: Tensor, positions: Tensor, size: Sequence[int]) -> Tensor:
    """y[n, c, position of o] = x[n, c, o], of spatial `size`, 0 elsewhere. Of two at one position the last stays."""
    n, c, *small = input.shape
    rows = (n, c, math.prod(small))  # no flatten: batches of gradients have none
    flat = input.new_zeros(n, c, math.prod(size)).scatter(2, positions.reshape(rows), input.reshape(rows))
    output = no_view(flat, (n, c, *size))
    return to_memory_format(output, channels_last=True) if input.dim() == 4 and is_channels_last(input) else output

"""Sums over pooling windows: along one dimension after the other, whatever the windows' size and number.

Average pooling sums over spans [start, end) of each dimension. There are two kinds. Sliding spans have one length, and
are cut off at the ends of the input. Dividing spans, those of adaptive pooling, overlap and vary in length by one. Each
kind has its sums and their transpose, which adds to each position the shares of all spans that hold it. Positions are
computed in slices or in tensors: no Python loop runs over spans or positions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchfromscratch.kernels import triton
from torchfromscratch.kernels.execution import is_exporting, is_jit_tracing, is_tracing
from torchfromscratch.kernels.layout import (
    any_channels_last,
    copy_to_memory_format,
    empty,
    match_memory_format,
    to_memory_format,
)
from torchfromscratch.kernels.precision import widen
from torchfromscratch.kernels.windows import Windows

# Up to so many views are added one by one, 0.2 to 0.4 ms for 10⁶ elements. torch.sum over so few takes up to 6 ms.
FEW = 8


@dataclass(frozen=True)
class Sliding:
    """Windows of `kernel` positions, `stride` apart, the first of which starts `padding` before the input.

    Sums are divided by the size of the window, in the input or also in its padding, unless a `divisor` is given.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    counts_padding: bool = True
    divisor: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether one window covers all of the input; False where sizes are open, as nobody knows."""
        return not sizes_are_open() and self.outputs == 1 and self.kernel - self.padding >= self.inputs

    def divisors(self, device: torch.device) -> int | Tensor:
        """What each window's sum is divided by: one number, or (outputs)."""
        if self.divisor is not None:
            return self.divisor
        size = self.inputs + self.padding * self.counts_padding
        if not sizes_are_open() and self._reach - self.padding <= size and (self.counts_padding or self.padding == 0):
            return self.kernel
        start = torch.arange(self.outputs, device=device) * self.stride - self.padding
        end = (start + self.kernel).clamp(max=size)
        return end - (start if self.counts_padding else start.clamp(min=0))

    def sums(self, data: Tensor, dim: int) -> Tensor:
        """The sum over each window: `inputs` positions along the dimension → `outputs`."""
        after = self._reach - self.inputs - self.padding
        if not is_tracing() and self.kernel <= FEW and (self.padding or after > 0):
            return self._sums_by_tap(data, dim)
        if sizes_are_open():
            after = self.padding + self.kernel  # enough for any size
        padded = _pad(data, dim, self.padding, max(0, after))
        return sums_of_neighbours(padded, dim, self.kernel, self.stride, self.outputs)

    def sums_transpose(self, shares: Tensor, dim: int) -> Tensor:
        """The transpose of `sums`: each window's share goes to all of its positions, `outputs` → `inputs`."""
        if sizes_are_open():
            return self._transpose_around(shares, dim)
        if self.kernel <= FEW:
            total = _zeros(shares, dim, self.inputs)
            for tap in range(self.kernel):
                input_view, output_view = self._overlap(tap, total, shares, dim)
                input_view.add_(output_view)
            return total
        return self._transpose_in_blocks(shares, dim)

    @property
    def _reach(self) -> int:
        """From the start of the first window to the end of the last one."""
        return (self.outputs - 1) * self.stride + self.kernel

    def _overlap(self, tap: int, inputs: Tensor, outputs: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """The inputs at one tap of the windows but in the padding, and the outputs of those windows: views."""
        offset = tap - self.padding
        first = max(0, -(offset // self.stride))
        count = max(0, min(self.outputs, (self.inputs - 1 - offset) // self.stride + 1) - first)
        input_view = strided_taps(inputs, dim, first * self.stride + offset if count else 0, self.stride, count)
        return input_view, outputs.narrow(dim, first if count else 0, count)

    def _sums_by_tap(self, data: Tensor, dim: int) -> Tensor:
        """Without a padded copy, position by position of the window."""
        total = _zeros(data, dim, self.outputs)
        for tap in range(self.kernel):
            input_view, output_view = self._overlap(tap, data, total, dim)
            output_view.add_(input_view)
        return total

    def _transpose_around(self, shares: Tensor, dim: int) -> Tensor:
        """For any size: over the input and a margin, which is cut off at last."""
        total = _zeros(shares, dim, self.padding + self.inputs + self.padding + self.kernel)
        for tap in range(self.kernel):
            strided_taps(total, dim, tap, self.stride, self.outputs).add_(shares)
        return total.narrow(dim, self.padding, self.inputs).clone()

    def _transpose_in_blocks(self, shares: Tensor, dim: int) -> Tensor:
        """In blocks of `stride` positions. A window covers some blocks whole, and the beginning of one more.

        So the beginning of a block has one sum of shares at all its positions, and the rest of it has another.
        """
        covered, remainder = divmod(self.kernel, self.stride)
        margin = max(0, covered - 1)
        blocks = self.outputs + covered
        whole = torch.zeros_like(shares)
        if covered:
            whole = sums_of_neighbours(_pad(shares, dim, margin, margin), dim, covered, 1, blocks - 1)
        if remainder == 0:
            total = _merge(_repeat(whole, dim, self.stride), dim)
        else:
            whole = _pad(whole, dim, 0, blocks - whole.shape[dim])
            start = whole + _pad(shares, dim, covered, 0)
            counts = [(start, remainder), (whole, self.stride - remainder)]
            total = _merge(torch.cat([_repeat(sums, dim, count) for sums, count in counts], dim + 1), dim)
        return _pad(total, dim, -self.padding, self.padding + self.inputs - total.shape[dim])


@dataclass(frozen=True)
class Dividing:
    """Spans that divide the input: output o of O looks at [⌊o·i/O⌋, ⌈(o + 1)·i/O⌉) of i positions.

    They repeat where i and O have a common divisor g: output o + O/g looks i/g positions further than output o.
    Position j is seen by [⌊j·O/i⌋, ⌈(j + 1)·O/i⌉), and so the transpose is a division of the outputs by the inputs.
    """

    inputs: int
    outputs: int

    @property
    def is_whole(self) -> bool:
        """Whether there is one span, of all positions."""
        return self.outputs == 1

    @property
    def longest(self) -> int:
        """How many positions a span has at most; each has that many, or one less."""
        return -(-self.inputs // max(1, self.outputs)) + 1

    def divisors(self, device: torch.device) -> int | Tensor:
        """The size of each span: one number, or (outputs)."""
        start, end = self.bounds(device)
        return end - start

    def bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """[start, end) of each span, (outputs)."""
        steps = torch.arange(self.outputs, device=device) * self.inputs
        return steps // self.outputs, (steps + (self.inputs + self.outputs - 1)) // self.outputs

    def period(self) -> tuple[int, int, int]:
        """(g, i/g, O/g): how often the spans repeat, every how many positions, and how many there are until then."""
        common = math.gcd(self.inputs, self.outputs)
        return common, self.inputs // common, self.outputs // common

    def views(self, data: Tensor, dim: int) -> list[Tensor] | None:
        """The positions of the spans, a view (…, g, length, …) for each span of a period; None, if these are many.

        `interleave` brings what is computed of the views into the order of the outputs.
        """
        if sizes_are_open() or self.outputs == 0:
            return None
        times, step, different = self.period()
        if different > FEW:
            return None
        periods = _split(data, dim, times, step)
        bounds = [(o * step // different, -((o + 1) * step // -different)) for o in range(different)]
        return [periods.narrow(dim + 1, start, end - start) for start, end in bounds]

    def gather(self, data: Tensor, dim: int, beyond: float) -> Tensor:
        """The spans copied, (…, longest, outputs, …), with `beyond` where one is shorter than the longest."""
        start, end = self.bounds(data.device)
        position = (start + torch.arange(self.longest, device=data.device).unsqueeze(1)).minimum(end - 1)
        shape = *data.shape[:dim], self.longest, self.outputs, *data.shape[dim + 1 :]
        spans = data.index_select(dim, position.flatten()).view(shape)
        last = (end - start < self.longest).view(-1, *[1] * (data.dim() - dim - 1))
        return torch.cat(
            [spans.narrow(dim, 0, self.longest - 1), spans.narrow(dim, self.longest - 1, 1).masked_fill(last, beyond)],
            dim,
        )

    def sums(self, data: Tensor, dim: int) -> Tensor:
        """The sum over each span: `inputs` positions along the dimension → `outputs`."""
        if not sizes_are_open() and self.outputs % self.inputs == 0:
            return _merge(_repeat(data, dim, self.outputs // self.inputs), dim)
        views = self.views(data, dim)
        if views is not None:
            return interleave([sum_along(view, dim + 1) for view in views], dim)
        return sum_along(self.gather(data, dim, beyond=0), dim)

    def sums_transpose(self, shares: Tensor, dim: int) -> Tensor:
        """The transpose of `sums`: each span's share goes to all of its positions, `outputs` → `inputs`."""
        transpose = Dividing(self.outputs, self.inputs)
        times, _, different = (0, 0, FEW + 1) if sizes_are_open() else self.period()
        if different > FEW:
            return transpose.sums(shares, dim)
        total, periods = _zeros(shares, dim, self.inputs), _split(shares, dim, times, different)
        for view, share in zip(self.views(total, dim) or [], periods.split(1, dim + 1), strict=True):
            view.add_(share)
        return total


Spans = Sliding | Dividing


def dividing_spans(input_size: Sequence[int], output_size: Sequence[int]) -> tuple[Spans, ...]:
    """The spans of adaptive pooling: they slide where they are equally long and equally far apart."""
    return tuple(map(_dividing, input_size, output_size))


def _dividing(inputs: int, outputs: int) -> Spans:
    """Of i = q·O + r positions, span o starts at o·q + ⌊o·r/O⌋, and so at o·q if r is 0 or 1; then it has q + r."""
    if not sizes_are_open() and outputs and inputs >= outputs and inputs % outputs <= 1:
        step, remainder = divmod(inputs, outputs)
        return Sliding(inputs, outputs, kernel=step + remainder, stride=step, padding=0)
    return Dividing(inputs, outputs)


def sliding_spans(
    windows: Windows, input_size: Sequence[int], counts_padding: bool, divisor: int | None
) -> tuple[Sliding, ...]:
    """The windows in each dimension. The dimensions' divisors multiply: one that is given stands in the first."""
    divisors = [None] * windows.dims if divisor is None else [divisor, *[1] * (windows.dims - 1)]
    sizes = input_size, windows.output_size(input_size), windows.kernel_size, windows.stride, windows.padding
    fields = zip(*sizes, divisors, strict=True)
    return tuple(Sliding(i, o, k, s, p, counts_padding, divided_by) for i, o, k, s, p, divided_by in fields)


def as_windows(spans: Sequence[Spans]) -> Windows | None:
    """The windows that slide in every dimension, if they do."""
    sliding = [span for span in spans if isinstance(span, Sliding)]
    if len(sliding) < len(spans):
        return None
    kernel_size, stride, padding = zip(*[(span.kernel, span.stride, span.padding) for span in sliding], strict=True)
    return Windows(kernel_size, stride, padding, (1,) * len(spans))


def average(input: Tensor, spans: Sequence[Spans]) -> Tensor:
    """The sum over each span, divided by its divisor: (N, C, *input) → (N, C, *outputs)."""
    whole = _whole_dims(spans)
    kernels = None if len(whole) == len(spans) else triton.kernels("pooling", input)
    if kernels is not None:
        return kernels.average(input, spans)
    total = widen(input)
    if whole:
        total = total.sum(whole, keepdim=True)
    for dim, span in enumerate(spans, 2):
        if dim not in whole:
            total = span.sums(total, dim)
    fractions = input.is_floating_point() or input.is_complex()
    result = torch.div(total, _divisors(spans, input.device), rounding_mode=None if fractions else "trunc")
    return match_memory_format(result.to(input.dtype), input)


def average_transpose(
    grad_output: Tensor, spans: Sequence[Spans], input_size: Sequence[int], channels_last: bool = False
) -> Tensor:
    """The transpose of `average`: every output's share goes to each position of its span."""
    if 0 in grad_output.shape[2:]:
        raise RuntimeError(f"dL/dy is empty: no output has a gradient, {tuple(grad_output.shape)}")
    whole = _whole_dims(spans)
    kernels = None if len(whole) == len(spans) else triton.kernels("pooling", grad_output)
    if kernels is not None:
        return kernels.average_transpose(grad_output, spans, input_size, channels_last)
    result = widen(grad_output) / _divisors(spans, grad_output.device)
    for dim, span in reversed(list(enumerate(spans, 2))):
        if dim not in whole:
            result = span.sums_transpose(result, dim)
    result = result.to(grad_output.dtype)
    if whole:
        return copy_to_memory_format(result.expand(-1, -1, *input_size), channels_last)
    return to_memory_format(result, channels_last=True) if channels_last else result.contiguous()


def sums_of_neighbours(data: Tensor, dim: int, count: int, step: int, outputs: int) -> Tensor:
    """Sums over `count` neighbours along a dimension, each beginning `step` positions after the previous one.

    Neighbours give sums of two, these give sums of four, and so on; the binary digits of `count` say which to add.
    Differences of cumulative sums would round more.
    """
    if count <= FEW:
        return functools.reduce(torch.add, [strided_taps(data, dim, tap, step, outputs) for tap in range(count)])
    if step <= count <= step + FEW:
        blocks = _split(data.narrow(dim, 0, outputs * step), dim, outputs, step).sum(dim + 1)
        return functools.reduce(
            torch.add, [strided_taps(data, dim, tap, step, outputs) for tap in range(step, count)], blocks
        )
    terms, added = [], 0
    for width in [2**digit for digit in range(count.bit_length())]:
        if width > 1:
            length = data.shape[dim] - width // 2
            data = data.narrow(dim, 0, length) + data.narrow(dim, width // 2, length)
        if count & width:
            terms.append(strided_taps(data, dim, added, step, outputs))
            added += width
    return functools.reduce(torch.add, terms)


def strided_taps(data: Tensor, dim: int, start: int, step: int, outputs: int) -> Tensor:
    """So many positions along a dimension, `step` apart: a view."""
    view = data.narrow(dim, start, max(0, (outputs - 1) * step + 1))
    return view if step == 1 else view[(slice(None),) * dim + (slice(None, None, step),)]


def sum_along(data: Tensor, dim: int) -> Tensor:
    """data.sum(dim), fast also for a short dimension."""
    is_short = not sizes_are_open() and data.shape[dim] <= FEW
    return functools.reduce(torch.add, data.unbind(dim)) if is_short else data.sum(dim)


def interleave(views: list[Tensor], dim: int) -> Tensor:
    """The results of each of the `views`, in the order of the outputs."""
    return views[0] if len(views) == 1 else _merge(torch.stack(views, dim + 1), dim)


def sizes_are_open() -> bool:
    """Whether the traced graph is for other sizes as well: then no decision may follow from a size."""
    return is_jit_tracing() or is_exporting()


def _whole_dims(spans: Sequence[Spans]) -> list[int]:
    """The dimensions that have one span, of all positions."""
    return [dim for dim, span in enumerate(spans, 2) if span.is_whole]


def _divisors(spans: Sequence[Spans], device: torch.device) -> int | Tensor:
    """The divisor of each output's sum, (*outputs) or less: the product over the dimensions."""
    product: int | Tensor = 1
    for dim, span in enumerate(spans, 1):
        divisor = span.divisors(device)
        if isinstance(divisor, Tensor) and divisor.dim():  # torch.jit.trace makes tensors of sizes
            divisor = divisor.view(-1, *[1] * (len(spans) - dim))
        product = product * divisor
    return product


def _pad(data: Tensor, dim: int, before: int, after: int) -> Tensor:
    """The data with zeros around them along a dimension. A negative number of zeros crops them."""
    if before == 0 and after == 0:
        return data
    return torch.constant_pad_nd(data, [0, 0] * (data.dim() - dim - 1) + [before, after])


def _zeros(like: Tensor, dim: int, size: int) -> Tensor:
    """Zeros of so many positions along a dimension, in the memory format of a tensor."""
    shape = *like.shape[:dim], size, *like.shape[dim + 1 :]
    return empty(shape, any_channels_last(like), like=like).zero_()


def _split(data: Tensor, dim: int, *sizes: int) -> Tensor:
    """`data.unflatten(dim, sizes)`, through which torch.autograd takes no batch of gradients."""
    return data.view(*data.shape[:dim], *sizes, *data.shape[dim + 1 :])


def _merge(data: Tensor, dim: int) -> Tensor:
    """`data.flatten(dim, dim + 1)`, likewise."""
    return data.reshape(*data.shape[:dim], data.shape[dim] * data.shape[dim + 1], *data.shape[dim + 2 :])


def _repeat(data: Tensor, dim: int, times: int) -> Tensor:
    """Each position so many times along a new dimension after it: a view."""
    return data.unsqueeze(dim + 1).expand(*data.shape[: dim + 1], times, *data.shape[dim + 1 :])

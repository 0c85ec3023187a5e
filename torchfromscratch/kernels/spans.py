"""Pooling windows whose sizes differ: the spans of input positions that outputs look at, dimension by dimension.

Windows of adaptive pooling overlap and vary by one position; windows of average pooling are cut off
where they reach over the input. Both are a list of [start, end) for each dimension, and pooling over
them works on one dimension after the other.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from torchfromscratch.kernels.layout import (
    any_channels_last,
    empty,
    in_format,
    laid_out,
    laid_out_like,
    lies_channels_last,
)
from torchfromscratch.kernels.precision import widened
from torchfromscratch.kernels.windows import Windows

# Sums are of views, one for each position in a run of spans; of more views than this, of an index of all positions.
MOST_VIEWS = 256


class Run(NamedTuple):
    """Neighbouring outputs whose spans are equally long, `step` positions apart."""

    outputs: slice
    start: int
    length: int
    step: int

    def seen(self, data: Tensor, dim: int) -> list[Tensor]:
        """What lies first in each of the spans, second, and so on: views of the data along a dimension."""
        between = (self.outputs.stop - self.outputs.start - 1) * self.step + 1
        views = [data.narrow(dim, self.start + position, between) for position in range(self.length)]
        apart = (*[slice(None)] * dim, slice(None, None, self.step))
        return views if self.step == 1 else [view[apart] for view in views]


@dataclass(frozen=True)
class Spans:
    """For one spatial dimension: input positions [start, end) of every output, and what to divide its sum by."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    divisors: tuple[int, ...]

    def in_runs(self) -> list[Run]:
        """All outputs, in as few runs as there are."""
        lengths = [end - start for start, end in zip(self.starts, self.ends, strict=True)]
        found, first = [], 0
        while first < len(lengths):
            behind, step = first + 1, 1
            while behind < len(lengths) and lengths[behind] == lengths[first]:
                apart = self.starts[behind] - self.starts[behind - 1]
                if apart < 1 or (behind > first + 1 and apart != step):
                    break
                behind, step = behind + 1, apart
            found.append(Run(slice(first, behind), self.starts[first], lengths[first], step))
            first = behind
        return found

    def positions(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(outputs, longest span): the positions of each span, its last one repeated, and which are repeated."""
        start = torch.tensor(self.starts, device=device).unsqueeze(1)
        end = torch.tensor(self.ends, device=device).unsqueeze(1)
        longest = max([e - s for s, e in zip(self.starts, self.ends, strict=True)], default=1)
        position = start + torch.arange(longest, device=device)
        return position.minimum(end - 1), position >= end


def adaptive_spans(input_size: Sequence[int], output_size: Sequence[int]) -> tuple[Spans, ...]:
    """Output o of O looks at [⌊o·i/O⌋, ⌈(o + 1)·i/O⌉) of i positions."""
    spans = []
    for size, outputs in zip(input_size, output_size, strict=True):
        starts = tuple(o * size // outputs for o in range(outputs))
        ends = tuple(-((o + 1) * size // -outputs) for o in range(outputs))
        spans.append(Spans(starts, ends, tuple(e - s for s, e in zip(starts, ends, strict=True))))
    return tuple(spans)


def window_spans(windows: Windows, input_size: Sequence[int], count_include_pad: bool) -> tuple[Spans, ...]:
    """The windows cut off at the input's edges; divided by what lies in the input, or also in its padding."""
    spans = []
    for size, outputs, k, s, p in zip(
        input_size,
        windows.output_size(input_size),
        windows.kernel_size,
        windows.stride,
        windows.padding,
        strict=True,
    ):
        begins = [o * s - p for o in range(outputs)]
        stops = [min(begin + k, size + p) for begin in begins]
        starts = tuple(max(begin, 0) for begin in begins)
        ends = tuple(min(stop, size) for stop in stops)
        counted = zip(begins, stops, strict=True) if count_include_pad else zip(starts, ends, strict=True)
        spans.append(Spans(starts, ends, tuple(stop - begin for begin, stop in counted)))
    return tuple(spans)


def take(input: Tensor, spans: Sequence[Spans]) -> Tensor:
    """Every span written out, its last position repeated up to the longest: (N, C, *(outputs · longest))."""
    taken, first_dim = _space_in_front(input)
    for dim, span in enumerate(spans, first_dim):
        position, _ = span.positions(input.device)
        taken = taken.index_select(dim, position.view(-1))
    return taken if first_dim == 2 else taken.movedim(-1, 1)


def put_back(taken: Tensor, spans: Sequence[Spans], input_size: Sequence[int]) -> Tensor:
    """The transpose of `take`: what was written out several times is added up, (N, C, *input_size)."""
    total, first_dim = _space_in_front(widened(taken))
    for dim, (span, size) in enumerate(zip(spans, input_size, strict=True), first_dim):
        position, _ = span.positions(taken.device)
        nothing = total.new_zeros((*total.shape[:dim], size, *total.shape[dim + 1 :]))
        total = nothing.index_add(dim, position.view(-1), total)
    total = total.to(taken.dtype)
    return total if first_dim == 2 else total.movedim(-1, 1)


def _space_in_front(pictures: Tensor) -> tuple[Tensor, int]:
    """What an index is to be taken of, in the order in which it lies, and its first spatial dimension."""
    if pictures.dim() == 4 and lies_channels_last(pictures):
        return pictures.movedim(1, -1), 1
    return pictures, 2


def average(input: Tensor, spans: Sequence[Spans]) -> Tensor:
    """The sum over each span, divided by its divisor: (N, C, *input) → (N, C, *outputs)."""
    total, whole = widened(input), _whole(spans, input.shape[2:])
    if whole:
        total = total.sum(whole, keepdim=True)
    for dim, span in enumerate(spans, 2):
        if dim not in whole:
            total = _sum_along(dim, total, span)
    fractions = input.is_floating_point() or input.is_complex()
    result = torch.div(total, _divisors(spans, input.device), rounding_mode=None if fractions else "trunc")
    return laid_out_like(input, result.to(input.dtype))


def _few_runs(span: Spans) -> list[Run] | None:
    """All outputs in runs, if their views are few enough."""
    runs = span.in_runs()
    return runs if sum([run.length for run in runs]) <= MOST_VIEWS else None


def _sum_along(dim: int, data: Tensor, span: Spans) -> Tensor:
    runs = _few_runs(span)
    if runs is None:
        position, repeated = span.positions(data.device)
        taken = data.index_select(dim, position.view(-1))
        by_span = taken.reshape(*taken.shape[:dim], *position.shape, *taken.shape[dim + 1 :])
        return by_span.masked_fill(_along(repeated, by_span, dim), 0).sum(dim + 1)
    sums = [functools.reduce(torch.add, run.seen(data, dim)) for run in runs]
    return sums[0] if len(sums) == 1 else torch.cat(sums or [data.narrow(dim, 0, 0)], dim)


def spread(
    grad_output: Tensor, spans: Sequence[Spans], input_size: Sequence[int], channels_last: bool = False
) -> Tensor:
    """The transpose of `average`: every output's share goes to each position of its span."""
    result, whole = widened(grad_output) / _divisors(spans, grad_output.device), _whole(spans, input_size)
    for dim, (span, size) in reversed(list(enumerate(zip(spans, input_size, strict=True), 2))):
        if dim not in whole:
            result = _spread_along(dim, result, span, size)
    result = result.to(grad_output.dtype)
    return in_format(result.expand(-1, -1, *input_size), channels_last) if whole else laid_out(result, channels_last)


def _spread_along(dim: int, shares: Tensor, span: Spans, size: int) -> Tensor:
    shape, runs = (*shares.shape[:dim], size, *shares.shape[dim + 1 :]), _few_runs(span)
    if runs is None:
        position, repeated = span.positions(shares.device)
        by_span = shares.unsqueeze(dim + 1).masked_fill(_along(repeated, shares.unsqueeze(dim + 1), dim), 0)
        by_position = by_span.reshape(*shares.shape[:dim], position.numel(), *shares.shape[dim + 1 :])
        return shares.new_zeros(shape).index_add(dim, position.view(-1), by_position)
    total = empty(shape, any_channels_last(shares), like=shares).zero_()
    for run in runs:
        of_run = shares.narrow(dim, run.outputs.start, run.outputs.stop - run.outputs.start)
        for there in run.seen(total, dim):
            there.add_(of_run)
    return total


def _whole(spans: Sequence[Spans], input_size: Sequence[int]) -> list[int]:
    """The dimensions that have one span, of all positions."""
    of_all = enumerate(zip(spans, input_size, strict=True), 2)
    return [dim for dim, (span, size) in of_all if span.starts == (0,) and span.ends == (size,)]


def _divisors(spans: Sequence[Spans], device: torch.device) -> Tensor:
    """What each output's sum is divided by, (*outputs): the product over the dimensions."""
    product = torch.ones((), dtype=torch.int64, device=device)
    for span in spans:
        one = len(span.divisors) == 1  # which torch.jit.trace leaves open where it is a size
        product = product.unsqueeze(-1) * (span.divisors[0] if one else torch.tensor(span.divisors, device=device))
    return product


def _along(values: Tensor, tensor: Tensor, dim: int) -> Tensor:
    """`values` shaped to lie along the dimensions of `tensor` that start at `dim`."""
    return values.view(*values.shape, *[1] * (tensor.dim() - dim - values.dim()))

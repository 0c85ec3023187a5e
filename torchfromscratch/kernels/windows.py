"""Windows sliding over an input: the one description that convolution and pooling share.

Tap k of the window at output position o looks at input position

    i = o · stride + k · dilation − padding

in every spatial dimension. Output sizes, padding and strided views all follow from this line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.kernels.execution import is_dynamo_compiling

Tap = tuple[int, ...]


def spatial(index: Iterable[int | slice]) -> tuple[int | slice, ...]:
    """An index into the spatial dimensions of a tensor (N, C, *spatial)."""
    return (slice(None), slice(None), *index)


def phases(
    steps: Sequence[int], padding: Sequence[int], size: Sequence[int]
) -> Iterator[tuple[Tap, tuple[int | slice, ...], tuple[int | slice, ...]]]:
    """(N, C, *size) split into phases: phase r has the positions −p + r, −p + r + s, −p + r + 2s and so on.

    For each phase its number, and two indices of its positions that lie inside: one of the phase, one of the whole.
    """
    for phase in itertools.product(*map(range, steps)):
        axes = zip(steps, phase, padding, size, strict=True)
        phase_index, whole_index = zip(*[strided_overlap(s, r, p, length) for s, r, p, length in axes], strict=True)
        yield phase, spatial(phase_index), spatial(whole_index)


def strided_overlap(step: int, start: int, padding: int, size: int) -> tuple[slice, slice]:
    """Those of the positions −padding + start + n · step that lie within a size: their numbers n, and the positions."""
    first = max(0, -((start - padding) // step))
    position = first * step + start - padding
    return slice(first, first + max(0, -((position - size) // step))), slice(position, None, step)


def crop_to(tensor: Tensor, size: Sequence[int], at: int = 2) -> Tensor:
    """The first positions of `tensor`, as many as `size` has: a view.

    A wide output_padding makes room for more windows than there are outputs.
    """
    for dim, length in enumerate(size, at):
        tensor = tensor.narrow(dim, 0, length) if tensor.shape[dim] > length else tensor
    return tensor


@dataclass(frozen=True)
class Windows:
    """Kernel size, stride, padding and dilation in each spatial dimension.

    `groups` splits the channels of a convolution; `ceil_mode` lets a last window hang over the end of the input, as
    pooling may.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    ceil_mode: bool = False

    @property
    def dims(self) -> int:
        """How many spatial dimensions there are."""
        return len(self.kernel_size)

    @property
    def extent(self) -> tuple[int, ...]:
        """How many input positions a window spans: d·(k − 1) + 1."""
        return tuple([d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)])

    @property
    def all_see_input(self) -> bool:
        """Whether no window lies in the padding alone."""
        return all([p <= d * (k - 1) for p, k, d in zip(self.padding, self.kernel_size, self.dilation, strict=True)])

    @property
    def taps(self) -> list[Tap]:
        """The positions inside a window, in the order in which a kernel lies in memory."""
        return list(itertools.product(*(range(k) for k in self.kernel_size)))

    @property
    def tap_count(self) -> int:
        """How many positions there are inside a window."""
        return math.prod(self.kernel_size)

    def along(self, dims: slice) -> Windows:
        """The windows along some of the spatial dimensions."""
        fields = (self.kernel_size, self.stride, self.padding, self.dilation)
        kernel_size, stride, padding, dilation = (values[dims] for values in fields)
        return replace(self, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """⌊(i + 2p − d(k − 1) − 1) / s⌋ + 1; `ceil_mode` rounds up, but starts no window in the right padding."""
        sizes = []
        for size, extent, s, p in zip(input_size, self.extent, self.stride, self.padding, strict=True):
            room = size + 2 * p - extent
            if self.ceil_mode:
                sizes.append(_smaller((room + s - 1) // s + 1, (size + p - 1) // s + 1))
            else:
                sizes.append(room // s + 1)
        return tuple(sizes)

    def reach(self, input_size: Sequence[int]) -> list[tuple[int, int]]:
        """How far the windows reach before the first and behind the last position of each dimension."""
        if not self.ceil_mode:
            return [(p, p) for p in self.padding]
        last = [(o - 1) * s for o, s in zip(self.output_size(input_size), self.stride, strict=True)]
        ends = [start + extent for start, extent in zip(last, self.extent, strict=True)]
        return [(p, _larger(end - p - i, p)) for p, end, i in zip(self.padding, ends, input_size, strict=True)]

    def pad(self, input: Tensor, value: float = 0.0, at: int = 2) -> Tensor:
        """`input` with `value` around it wherever a window reaches; its spatial dimensions start at `at`."""
        reach = self.reach(input.shape[at : at + self.dims])
        amounts = [amount for before_after in reversed(reach) for amount in before_after]
        if not any([isinstance(amount, Tensor) or amount for amount in amounts]):
            return input
        return torch.constant_pad_nd(input, [0, 0] * (input.dim() - at - self.dims) + amounts, value)

    def unpad(self, padded: Tensor, input_size: Sequence[int], at: int = 2) -> Tensor:
        """A copy of `padded` without what `pad` puts around an input of `input_size`."""
        reach = self.reach(input_size)
        amounts = [-amount for before_after in reversed(reach) for amount in before_after]
        if not any(amounts):
            return padded
        return torch.constant_pad_nd(padded, [0, 0] * (padded.dim() - at - self.dims) + amounts)

    def padded_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """The spatial size of what `pad` returns."""
        reach = self.reach(input_size)
        return tuple(size + before + after for size, (before, after) in zip(input_size, reach, strict=True))

    def valid_slices(self, tap: Tap, input_size: Sequence[int], output_size: Sequence[int]) -> tuple[tuple, tuple]:
        """Indices of the inputs that one tap sees, padding left out, and of the outputs that it sees them for."""
        input_slices: list[Any] = [...]
        output_slices: list[Any] = [...]
        for number, s, p, d, size, outputs in zip(
            tap, self.stride, self.padding, self.dilation, input_size, output_size, strict=True
        ):
            offset = number * d - p
            first = max(0, -(offset // s))
            end = max(first, min(outputs, (size - 1 - offset) // s + 1))
            input_slices.append(slice(first * s + offset, end * s + offset, s))
            output_slices.append(slice(first, end))
        return tuple(input_slices), tuple(output_slices)

    def slide(self, padded: Tensor, at: int = 2) -> Tensor:
        """Every window over a padded input (…, *padded_size, …) as a view (…, *output_size, …, *kernel_size)."""
        for dim, (extent, stride, dilation) in enumerate(zip(self.extent, self.stride, self.dilation, strict=True)):
            padded = padded.unfold(at + dim, extent, stride)
            padded = padded if dilation == 1 else padded[..., ::dilation]
        return padded

    def tap_view(self, tap: Tap, padded: Tensor, output_size: Sequence[int], at: int = 2) -> Tensor:
        """The view (…, *output_size, …) of a padded input (…, *padded_size, …) that one tap sees."""
        for dim, (number, outputs) in enumerate(zip(tap, output_size, strict=True)):
            padded = self.axis_tap_view(dim, number, padded, outputs, at)
        return padded

    def axis_tap_view(self, dim: int, number: int, padded: Tensor, outputs: int, at: int = 2) -> Tensor:
        """The view that the taps with this number along one spatial dimension see, for so many outputs along it."""
        stride = self.stride[dim]
        view = padded.narrow(at + dim, number * self.dilation[dim], (outputs - 1) * stride + 1)
        return view if stride == 1 else view[(slice(None),) * (at + dim) + (slice(None, None, stride),)]


def _smaller(a: Any, b: Any) -> Any:
    """The smaller of two sizes, which are tensors to torch.jit.trace: it records no branch.

    Dynamo traces Python's min of symbolic sizes; an older one traces torch.sym_min of nothing else.
    """
    if isinstance(a, Tensor):
        return torch.minimum(a, b)
    return min(a, b) if is_dynamo_compiling() else torch.sym_min(a, b)


def _larger(a: Any, least: int) -> Any:
    """The larger of a size and of a number, likewise."""
    if isinstance(a, Tensor):
        return a.clamp(min=least)
    return max(a, least) if is_dynamo_compiling() else torch.sym_max(a, least)

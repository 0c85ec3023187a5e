"""Winograd's F(4×4, 3×3): sixteen neighbouring outputs of a 3×3 correlation from 36 products rather than 144.

In one dimension, four outputs of three taps are coefficients of a product of polynomials. Known by its
values at six points, that product takes one multiplication a point:

    y = Aᵀ [ (G w) · (Bᵀ x) ]        x: 6 elements, w: 3, y: 4

In two dimensions the transforms are applied along the height and then along the width. The products, summed over the
channels, are 36 matrix multiplications. The transforms are linear, so the gradient of w goes through their transposes,
Gᵀ [ (A dL/dy) · (Bᵀ x) ]. The gradient of x is a correlation of dL/dy with the rotated kernel. The gradient of that
kernel is Gᵀ [ (A x) · (Bᵀ dL/dy) ], so both gradients together transform dL/dy only once.

Each of the sixteen outputs is a sum over all the inputs of its tile. So an infinity or a NaN in one input makes all
sixteen NaN, as in any implementation of the method.

The points are 0, ±p, ±1/p and ∞. The textbook's are 0, ±1, ±2 and ∞, whose powers differ more in size: with p = 5/8 the
errors of float32 are a fifth. To take t for 1/t reverses the order of the coefficients, so one step computes the values
at p and at 1/p.

Source: A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4; for the
points, B. Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution for deep
neural networks", 2020.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchfromscratch.kernels.blocking import block_size
from torchfromscratch.kernels.convolution.kernel import Kernel, Task
from torchfromscratch.kernels.convolution.rotation import as_correlation
from torchfromscratch.kernels.layout import any_channels_last, copy_to_memory_format, empty
from torchfromscratch.kernels.planning import cache_plans
from torchfromscratch.kernels.windows import Windows

# Elements of each point that a core computes at a time, of the operand with fewer channels. The shortest steps write
# four times as many: 2^15, torch's grain size, above which it takes a second thread. All 36 points fit a core's cache.
ELEMENTS_PER_CORE = 2**13
FEWEST_CHANNELS = 8  # with fewer, the transforms cost more than they save
PREPARATION = 2**25  # preparing the steps takes as long as so many multiplications
LEAST_TILES = 64  # fewer do not pay for reading the filters
TILE = 4  # outputs of a tile along each dimension
INPUT_TILE = 6  # inputs that a tile sees along each dimension, and points
P, Q = 5 / 8, 8 / 5
POINTS = (P, -P, -Q, Q)  # 0 comes before them, ∞ after them
SCALES = (1 / P, 1 / P, -1 / Q**2, 1 / Q**2)  # of the columns of Aᵀ, whose rows then hold the most ones

# `to_points`, `from_points` and `grad_to_points` multiply by these matrices, step by step.
# Bᵀ: for each point, the coefficients of a polynomial that is 0 at all other points. Those of Q are P's, reversed.
INPUT_TRANSFORM = (
    (1, 0, -(P**2) - Q**2, 0, 1, 0),
    (0, -Q, -(Q**2), P, 1, 0),
    (0, -Q, Q**2, P, -1, 0),
    (0, -1, P, Q**2, -Q, 0),
    (0, 1, P, -(Q**2), -Q, 0),
    (0, 1, 0, -(P**2) - Q**2, 0, 1),
)
# Aᵀ: powers of the points.
OUTPUT_TRANSFORM = tuple(
    (0**k, *(scale * t**k for t, scale in zip(POINTS, SCALES, strict=True)), int(k == TILE - 1)) for k in range(TILE)
)
# G: powers of each point, divided by its scale and by the value of its polynomial at the point.
FILTER_TRANSFORM = (
    (1, 0, 0),
    *(
        tuple(t**k / (scale * sum(c * t**i for i, c in enumerate(polynomial))) for k in range(3))
        for t, scale, polynomial in zip(POINTS, SCALES, INPUT_TRANSFORM[1:5], strict=True)
    ),
    (0, 0, 1),
)


def is_made_for(windows: Windows) -> bool:
    """Whether each window is a square of 3×3 neighbours, one position apart."""
    return (
        windows.kernel_size == (3, 3)
        and set(windows.stride) == {1}
        and set(windows.dilation) == {1}
        and windows.groups == 1
    )


def fits(task: Task) -> bool:
    return is_made_for(task.windows)


def cost(task: Task) -> float:
    if not pays(task):
        return math.inf
    return multiplications(task.batch, task.channels, task.input_size, task.windows) + PREPARATION


def pays(task: Task) -> bool:
    """Whether the transforms may cost less than what they save."""
    return task.may_round and min(task.channels) >= FEWEST_CHANNELS


def multiplications(batch: int, channels: tuple[int, int], input_size: Sequence[int], windows: Windows) -> int:
    """The multiplications of a convolution. Transforming the filters takes as long as 64 tiles."""
    tiles = batch * math.prod([math.ceil(size / TILE) for size in windows.output_size(input_size)])
    return math.prod(channels) * INPUT_TILE**2 * (tiles + 64)


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in the package."""
    plan = blocks_of(input, windows, None, weight.shape[:2])
    output = empty((input.shape[0], weight.shape[0], *plan.size), any_channels_last(input, weight), like=input)
    x, y = input.view(plan.cores, -1, *input.shape[1:]), output.view(plan.cores, -1, *output.shape[1:])
    filters = transform_filters(weight, plan.cores)
    for shape, elements, blocks in plan.by_shape:
        scratch = input.new_empty((plan.cores, elements))
        inputs, outputs = InputTransform(x, shape, scratch), OutputTransform(y, shape, scratch)
        for block in blocks:
            torch.bmm(inputs.apply(x, block), filters.mT, out=outputs.products)
            outputs.write(y[block.output], bias)
    return output


def full_convolution(grad_output: Tensor, weight: Tensor, windows: Windows, input_size: Sequence[int]) -> Tensor:
    """dL/dx, shapes as in the package."""
    return correlate(*as_correlation(grad_output, weight, windows, input_size))


def weight_gradient(input: Tensor, grad_output: Tensor, windows: Windows) -> Tensor:
    """dL/dw, shapes as in the package."""
    plan = blocks_of(input, windows, grad_output.shape[2:], (grad_output.shape[1], input.shape[1]))
    x, g = input.view(plan.cores, -1, *input.shape[1:]), grad_output.view(plan.cores, -1, *grad_output.shape[1:])
    total: Tensor | None = None
    for shape, elements, blocks in plan.by_shape:
        scratch = input.new_empty((plan.cores, elements))
        inputs, gradients = InputTransform(x, shape, scratch), GradTransform(g, shape, scratch)
        for block in blocks:
            total = add_products(total, gradients.apply(g[block.output]), inputs.apply(x, block))
    del inputs, gradients, scratch  # their memory, before the filters ask for more
    return copy_to_memory_format(transform_filters_transpose(total, plan.cores), any_channels_last(input, grad_output))


def gradients(input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw, shapes as in the package. One transform of dL/dy serves both: it takes an input's place."""
    grad_output, rotated, _, rotated_windows = as_correlation(grad_output, weight, windows, input.shape[2:])
    weight_last = any_channels_last(input, grad_output)
    plan = blocks_of(grad_output, rotated_windows, input.shape[2:], rotated.shape[:2])
    grad_input = empty(input.shape, any_channels_last(grad_output, weight), like=input)
    x, dx, g = (
        input.view(plan.cores, -1, *input.shape[1:]),
        grad_input.view(plan.cores, -1, *grad_input.shape[1:]),
        grad_output.view(plan.cores, -1, *grad_output.shape[1:]),
    )
    filters, total = transform_filters(rotated, plan.cores), None
    for shape, elements, blocks in plan.by_shape:
        scratch = input.new_empty((plan.cores, elements))
        inputs, outputs = InputTransform(g, shape, scratch), OutputTransform(dx, shape, scratch)
        gradients = GradTransform(x, shape, scratch, outputs.memory)
        for block in blocks:
            points = inputs.apply(g, block)
            torch.bmm(points, filters.mT, out=outputs.products)
            outputs.write(dx[block.output], None)
            total = add_products(total, points, gradients.apply(x[block.output]))
    del inputs, outputs, gradients, points, scratch, filters  # their memory, before the filters ask for more
    # (O, C) like the kernel, as dL/dy took the place of the output in the products
    return grad_input, copy_to_memory_format(transform_filters_transpose(total, plan.cores).flip(2, 3), weight_last)


Shape = tuple[int, int, int, int]  # of some tiles: cores, samples of each, rows and columns
Index = tuple[slice, ...]


class Block(NamedTuple):
    """Some rows of tiles of some samples of each core: indices of (cores, n, C, height, width)."""

    input: Index  # the input that the tiles see
    padded: Index  # the place of that input in (cores, n, padded height, padded width, C)
    output: Index


class Plan(NamedTuple):
    """The tiles of a batch in blocks that fit the caches, several samples or some rows of one.

    Blocks of equal shape come together, with the elements of scratch memory that each core needs for them. That memory
    holds samples in another layout, and what is transformed along one dimension only.
    """

    size: Sequence[int]
    cores: int
    by_shape: list[tuple[Shape, int, list[Block]]]


def blocks_of(input: Tensor, windows: Windows, output_size: Sequence[int] | None, channels: Sequence[int]) -> Plan:
    """The plan for an input (N, C, H, W), of these channels; without a size, of all outputs."""
    least = max(min(channels), max(channels) // 2)  # so at most twice the tiles that the other operand would take
    tiles, threads = max(LEAST_TILES, ELEMENTS_PER_CORE // least), torch.get_num_threads()
    return plan(input.shape[0], input.shape[2:], windows, output_size, max(channels), tiles, threads)


@cache_plans
def plan(
    batch: int,
    input_size: Sequence[int],
    windows: Windows,
    output_size: Sequence[int] | None,
    channels: int,
    tiles_of_core: int,
    threads: int,
) -> Plan:
    """The plan for so many tiles of each core at a time.

    Torch divides the elements of a tensor evenly among the cores, in the order in which they lie in memory. Tensors
    here lie core by core, so each core reads from its cache what it wrote in the step before. For that each core needs
    its own copy of the filters. A few tiles do not pay for the copies: then there is one core.
    """
    (height, width), padding, output_size = input_size, windows.padding, output_size or windows.output_size(input_size)
    rows, columns = (math.ceil(size / TILE) for size in output_size)
    cores = math.gcd(batch, threads) if 2 * batch * rows * columns >= threads * channels else 1
    batch, tiles_at_once = batch // cores, tiles_of_core * threads // cores
    rows_at_once = block_size(rows, max(1, tiles_at_once // columns))
    samples = block_size(batch, max(1, round(tiles_at_once / (rows * columns))))
    by_shape: dict[Shape, list[Block]] = {}
    for start, first in itertools.product(range(0, batch, samples), range(0, rows, rows_at_once)):
        n, block_rows = min(samples, batch - start), min(rows_at_once, rows - first)
        block_samples, top, bottom = slice(start, start + n), first * TILE, (first + block_rows) * TILE
        first_row = max(0, top - padding[0])  # of the input that the tiles see
        rows_seen = slice(first_row, max(first_row, min(height, bottom + 2 - padding[0])))
        padded = slice(rows_seen.start - top + padding[0], rows_seen.stop - top + padding[0])
        block = Block(
            (slice(None), block_samples, slice(None), rows_seen),
            (slice(None), slice(None), padded, slice(padding[1], padding[1] + width)),
            (slice(None), block_samples, slice(None), slice(top, bottom)),
        )
        by_shape.setdefault((cores, n, block_rows, columns), []).append(block)
    row = max(columns * TILE + 3, columns * INPUT_TILE)
    elements = {shape: shape[1] * (shape[2] * TILE + 2) * row * channels for shape in by_shape}
    return Plan(output_size, cores, [(shape, elements[shape], blocks) for shape, blocks in by_shape.items()])


class InputTransform:
    """Bᵀ x B of one block of the tiles after the other, in the same memory.

    The steps, and what they read and write, are made once for all blocks.
    """

    def __init__(self, input: Tensor, shape: Shape, scratch: Tensor) -> None:
        (cores, samples, rows, columns), (channels, _, width) = shape, input.shape[2:]
        height = rows * TILE + 2
        self.padded = input.new_zeros((cores, samples, height, columns * TILE + 2, channels))
        self.index: Index | None = None  # of what `padded` holds of the input
        self.rows = transposition_buffer((cores, samples, channels, height, width), scratch)
        by_column = self.padded.unfold(3, INPUT_TILE, TILE).movedim(-1, 0)  # (6, cores, n, padded height, columns, C)
        along_width = scratch_view(by_column.shape, scratch)
        by_row = along_width.unfold(3, INPUT_TILE, TILE).movedim(-1, 0)  # (6, 6, cores, n, rows, columns, C)
        memory = input.new_empty((cores, INPUT_TILE, INPUT_TILE, samples, rows, columns, channels))
        self.steps = [*to_points(by_column, along_width), *to_points(by_row, memory.movedim(0, 2))]
        self.points = memory.view(cores * INPUT_TILE**2, -1, channels)

    def apply(self, input: Tensor, block: Block) -> Tensor:
        """Of this block of the input (cores, n, C, H, W): (cores · 36, tiles of a core, C)."""
        if block.padded != self.index:
            self.index, rows = block.padded, block.padded[2]
            for border in (slice(rows.start), slice(rows.stop, None)):
                self.padded[:, :, border].zero_()  # the last block may have left rows
        data = input[block.input]
        if data.stride(2) != 1:
            data = self.rows[..., : data.shape[3], : data.shape[4]].copy_(data)
        self.padded[block.padded].copy_(data.movedim(2, -1))
        for step in self.steps:
            step()
        return self.points


class OutputTransform:
    """Aᵀ m A of one block of the tiles after the other, in the same memory."""

    def __init__(self, output: Tensor, shape: Shape, scratch: Tensor) -> None:
        (cores, samples, rows, columns), channels = shape, output.shape[2]
        self.memory = memory = output.new_empty((cores, INPUT_TILE, INPUT_TILE, samples, rows, columns, channels))
        self.products = memory.view(cores * INPUT_TILE**2, -1, channels)
        by_row = memory.movedim(0, 2)
        along_height = scratch_view((TILE, *by_row.shape[1:]), scratch)
        by_column = along_height.transpose(0, 1)  # (6, 4, cores, n, rows, columns, O)
        # in the memory of the products, which are read no more
        self.pixels = scratch_view((cores, samples, rows * TILE, columns * TILE, channels), memory.view(cores, -1))
        by_tile = self.pixels.view(cores, samples, rows, TILE, columns, TILE, channels).permute(5, 3, 0, 1, 2, 4, 6)
        self.steps = [*from_points(by_row, along_height), *from_points(by_column, by_tile)]

    def write(self, output: Tensor, bias: Tensor | None) -> None:
        """Writes what the products give to this block of the output (cores, n, O, height, width)."""
        for step in self.steps:
            step()
        pixels = self.pixels[:, :, : output.shape[3], : output.shape[4]].movedim(-1, 2)
        if bias is None:
            output.copy_(pixels)
        else:
            torch.add(pixels, bias.view(-1, 1, 1), out=output)


class GradTransform:
    """A g Aᵀ of dL/dy, or of what takes its place in a filter's gradient. Its tiles are 4×4 and do not overlap."""

    def __init__(self, data: Tensor, shape: Shape, scratch: Tensor, memory: Tensor | None = None) -> None:
        (cores, samples, rows, columns), (channels, _, width) = shape, data.shape[2:]
        self.padded = data.new_zeros((cores, samples, rows * TILE, columns * TILE, channels))
        self.rows = transposition_buffer((cores, samples, channels, rows * TILE, width), scratch)
        # (4, cores, n, height, columns, C)
        by_column = self.padded.view(cores, samples, rows * TILE, columns, TILE, channels).movedim(4, 0)
        along_width = scratch_view((INPUT_TILE, *by_column.shape[1:]), scratch)
        by_row = along_width.unflatten(3, (rows, TILE)).movedim(4, 0)  # (4, 6, cores, n, rows, columns, C)
        if memory is None:
            memory = data.new_empty((cores, INPUT_TILE, INPUT_TILE, samples, rows, columns, channels))
        self.steps = [*grad_to_points(by_column, along_width), *grad_to_points(by_row, memory.movedim(0, 2))]
        self.points = memory.view(cores * INPUT_TILE**2, -1, channels)

    def apply(self, data: Tensor) -> Tensor:
        """Of this block of the data (cores, n, C, height, width): (cores · 36, tiles of a core, C)."""
        height, width = data.shape[3:]
        if height < self.padded.shape[2]:
            self.padded[:, :, height:].zero_()
        if data.stride(2) != 1:
            data = self.rows[..., :height, :width].copy_(data)
        self.padded[:, :, :height, :width].copy_(data.movedim(2, -1))
        for step in self.steps:
            step()
        return self.points


Step = Callable[[], object]


def transposition_buffer(shape: Sequence[int], memory: Tensor) -> Tensor:
    """Memory that contiguous samples (cores, n, C, height, width) are copied to before they turn channels last.

    Its rows end with a gap. Without one, channels may lie a power of two apart and share a few lines of the cache, and
    the transposition takes five times as long.
    """
    return scratch_view((*shape[:-1], shape[-1] + 1), memory)[..., :-1]


def scratch_view(shape: Sequence[int], memory: Tensor) -> Tensor:
    """A tensor (…, cores, n, rows, columns, channels) at the start of each core's memory (cores, elements)."""
    *points, cores = shape[:-4]
    return memory[:, : math.prod(shape) // cores].view(cores, *points, *shape[-4:]).movedim(0, len(points))


def to_points(x: Tensor, out: Tensor) -> list[Step]:
    """Bᵀ x along the first dimension. What two rows share is computed once, in `out`."""
    odd, even = out[1:5:3], out[2:4]  # powers, of the polynomials of P and of Q
    return [
        functools.partial(torch.sub, x[3:5], x[1:3], alpha=Q**2, out=out[1:3]),
        functools.partial(torch.sub, x[1:3], x[3:5], alpha=Q**2, out=out[3:5]),
        functools.partial(torch.add, even, odd, alpha=P, out=odd),
        functools.partial(torch.sub, odd, even, alpha=2, out=even),
        functools.partial(torch.add, x[4:], x[:2], out=out[::5]),
        functools.partial(out[::5].sub_, x[2:4], alpha=P**2 + Q**2),
    ]


def from_points(m: Tensor, out: Tensor) -> list[Step]:
    """Aᵀ m along the first dimension. What two rows share is computed once, in the memory of m."""
    sums, differences = m[1:5:3], m[2:4]
    return [
        functools.partial(sums.sub_, differences),
        functools.partial(torch.add, sums, differences, alpha=2, out=differences),
        functools.partial(torch.add, sums[0], differences[1], alpha=P, out=out[1]),
        functools.partial(torch.add, sums[1], differences[0], alpha=P, out=out[2]),
        functools.partial(torch.add, m[::5], differences, alpha=Q, out=out[::3]),
        functools.partial(out[0].add_, sums[1], alpha=P**2),
        functools.partial(out[3].add_, sums[0], alpha=P**2),
    ]


def grad_to_points(g: Tensor, out: Tensor) -> list[Step]:
    """A g along the first dimension. What two rows share is computed once, in `out`."""
    odd, even = out[1:5:3], out[2:4]
    return [
        functools.partial(torch.add, g[:2], g[2:], alpha=P**2, out=out[1:3]),
        functools.partial(torch.add, g[2:], g[:2], alpha=P**2, out=out[3:5]),
        functools.partial(torch.add, even, odd, alpha=Q, out=odd),
        functools.partial(torch.sub, odd, even, alpha=2, out=even),
        functools.partial(out[::5].copy_, g[::3]),
    ]


def add_products(total: Tensor | None, blocks: Tensor, inputs: Tensor) -> Tensor:
    """The total plus the gradients of the filters at each point, (…, tiles, O) and (…, tiles, C) → (…, O, C)."""
    return torch.bmm(blocks.mT, inputs) if total is None else total.baddbmm_(blocks.mT, inputs)


def transform_filters(weight: Tensor, cores: int) -> Tensor:
    """G w Gᵀ, a copy for each core: (O, C, 3, 3) → (cores · 36, O, C)."""
    transform = weight.new_tensor(FILTER_TRANSFORM)  # G
    rows = transform @ weight.permute(2, 3, 0, 1).reshape(3, -1)
    points = weight.new_empty((cores, INPUT_TILE, INPUT_TILE, rows.shape[1] // 3))
    torch.matmul(transform, rows.view(INPUT_TILE, 3, -1), out=points[0])
    points[1:] = points[0]
    return points.view(-1, *weight.shape[:2])


def transform_filters_transpose(points: Tensor | None, cores: int) -> Tensor:
    """The transpose of `transform_filters`: (cores · 36, O, C) → (O, C, 3, 3). Sums over the cores in place."""
    assert points is not None
    transform = points.new_tensor(FILTER_TRANSFORM).mT
    total, *copies = points.view(cores, INPUT_TILE, INPUT_TILE, -1)
    for copy in copies:
        total += copy
    rows = torch.matmul(transform, total).view(INPUT_TILE, -1)
    return (transform @ rows).view(3, 3, *points.shape[1:]).permute(2, 3, 0, 1)


WINOGRAD = Kernel("winograd", fits, cost, correlate, full_convolution, weight_gradient, gradients)

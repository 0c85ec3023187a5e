"""Winograd's F(4×4, 3×3): sixteen neighbouring outputs of a 3×3 correlation from 36 products rather than 144.

In one dimension, four outputs of three taps are coefficients of a product of polynomials. Known by its
values at six points, that product takes one multiplication a point:

    y = Aᵀ [ (G w) · (Bᵀ x) ]        x: 6 elements, w: 3, y: 4

In two dimensions the transforms are applied along the height and then along the width, and the products,
summed over the channels, are 36 matrix multiplications. The transforms are linear, so the gradient of w
goes through their transposes, Gᵀ [ (A dL/dy) · (Bᵀ x) ], and that of x is a correlation of dL/dy with the
rotated kernel. As the rotated kernel's own gradient is Gᵀ [ (A x) · (Bᵀ dL/dy) ], both gradients together need
dL/dy transformed only once.

Each of the sixteen outputs is a sum over all the inputs of its tile, so an infinity or a NaN in one of them
makes NaN of all sixteen, as it does in any implementation of the method.

The points are 0, ±p, ±1/p and ∞. With p = 5/8 the errors of float32 are a fifth of what they are with the
textbook's 0, ±1, ±2 and ∞, whose powers differ more in size; and since taking t for 1/t only turns the order of
the coefficients round, one step computes the values at p and at 1/p.

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
from torchfromscratch.kernels.planning import planned
from torchfromscratch.kernels.windows import Windows

# Elements of each point that a core computes at a time, of the operand with fewer channels. The shortest steps write
# four times as many: torch's grain size of 2^15, from which on it takes a further thread. All 36 points fit the cache
# of a core.
ELEMENTS_PER_CORE = 2**13
FEWEST_CHANNELS = 8  # with fewer, the transforms cost more than what they save
PREPARATION = 2**25  # so many multiplications take as long as preparing the steps
LEAST_TILES = 64  # that pay for the reading of the filters
TILE = 4  # outputs of a tile along each dimension
SEEN = 6  # inputs that they see; as many points
P, Q = 5 / 8, 8 / 5
POINTS = (P, -P, -Q, Q)  # and 0 before them, ∞ behind
SCALES = (1 / P, 1 / P, -1 / Q**2, 1 / Q**2)  # of the columns of Aᵀ, so that its rows hold as many ones as can be

# What `to_points`, `from_points` and `block_to_points` multiply by, step by step.
# Bᵀ: the coefficients of a polynomial for each point that is 0 at all the others. Those of Q are P's backwards.
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
# G: powers of the points, over the scale and the value that the point's polynomial has there.
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
    """What a convolution costs, the transforms of the filters, which take as long as 64 tiles, included."""
    tiles = batch * math.prod([math.ceil(size / TILE) for size in windows.output_size(input_size)])
    return math.prod(channels) * SEEN**2 * (tiles + 64)


def correlate(input: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """y, shapes as in the package."""
    plan = blocks_of(input, windows, None, weight.shape[:2])
    output = empty((input.shape[0], weight.shape[0], *plan.size), any_channels_last(input, weight), like=input)
    x, y = input.view(plan.cores, -1, *input.shape[1:]), output.view(plan.cores, -1, *output.shape[1:])
    filters = transformed_filters(weight, plan.cores)
    for shape, elements, blocks in plan.by_shape:
        scratch = input.new_empty((plan.cores, elements))
        inputs, outputs = InputTransform(x, shape, scratch), OutputTransform(y, shape, scratch)
        for block in blocks:
            torch.bmm(inputs.transformed(x, block), filters.mT, out=outputs.products)
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
            total = add_products(total, gradients.transformed(g[block.output]), inputs.transformed(x, block))
    del inputs, gradients, scratch  # their memory, before the filters ask for more
    return copy_to_memory_format(filters_from(total, plan.cores), any_channels_last(input, grad_output))


def gradients(input: Tensor, weight: Tensor, grad_output: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw, shapes as in the package, from one transform of dL/dy: it takes an input's place."""
    grad_output, rotated, _, rotated_windows = as_correlation(grad_output, weight, windows, input.shape[2:])
    weight_last = any_channels_last(input, grad_output)
    plan = blocks_of(grad_output, rotated_windows, input.shape[2:], rotated.shape[:2])
    grad_input = empty(input.shape, any_channels_last(grad_output, weight), like=input)
    x, dx, g = (
        input.view(plan.cores, -1, *input.shape[1:]),
        grad_input.view(plan.cores, -1, *grad_input.shape[1:]),
        grad_output.view(plan.cores, -1, *grad_output.shape[1:]),
    )
    filters, total = transformed_filters(rotated, plan.cores), None
    for shape, elements, blocks in plan.by_shape:
        scratch = input.new_empty((plan.cores, elements))
        inputs, outputs = InputTransform(g, shape, scratch), OutputTransform(dx, shape, scratch)
        gradients = GradTransform(x, shape, scratch, outputs.memory)
        for block in blocks:
            points = inputs.transformed(g, block)
            torch.bmm(points, filters.mT, out=outputs.products)
            outputs.write(dx[block.output], None)
            total = add_products(total, points, gradients.transformed(x[block.output]))
    del inputs, outputs, gradients, points, scratch, filters  # their memory, before the filters ask for more
    # its channels are those of the kernel, as the products have taken dL/dy for what comes out
    return grad_input, copy_to_memory_format(filters_from(total, plan.cores).flip(2, 3), weight_last)


Shape = tuple[int, int, int, int]  # of some tiles: cores, samples of each, rows and columns
Index = tuple[slice, ...]


class Block(NamedTuple):
    """Some rows of tiles of some samples of each core: indices of (cores, n, C, height, width)."""

    input: Index  # what they see of it
    padded: Index  # where that lies in (cores, n, padded height, padded width, C)
    output: Index


class Plan(NamedTuple):
    """The tiles of a batch in blocks that fit the caches, several samples or some rows of one.

    Blocks of equal shape come together, with the number of elements of the memory that each core needs for what is
    only passed from step to step: samples in another layout, and what is transformed along one dimension.
    """

    size: Sequence[int]
    cores: int
    by_shape: list[tuple[Shape, int, list[Block]]]


def blocks_of(input: Tensor, windows: Windows, output_size: Sequence[int] | None, channels: Sequence[int]) -> Plan:
    """The plan for an input (N, C, H, W), of these channels; without a size, of all outputs."""
    fewer = max(min(channels), max(channels) // 2)  # so at most twice the tiles that the other operand would take
    tiles, threads = max(LEAST_TILES, ELEMENTS_PER_CORE // fewer), torch.get_num_threads()
    return plan(input.shape[0], input.shape[2:], windows, output_size, max(channels), tiles, threads)


@planned
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

    Torch divides the elements of a tensor evenly among the cores, in the order in which they lie in memory. So
    what is computed lies core by core: at every step, each of them finds in its own cache what it has written
    there before. For that they need filters of their own, which the tiles must be many enough to pay for.
    """
    (height, width), padding, output_size = input_size, windows.padding, output_size or windows.output_size(input_size)
    rows, columns = (math.ceil(size / TILE) for size in output_size)
    cores = math.gcd(batch, threads) if 2 * batch * rows * columns >= threads * channels else 1
    batch, at_once = batch // cores, tiles_of_core * threads // cores
    rows_at_once = block_size(rows, max(1, at_once // columns))
    samples = block_size(batch, max(1, round(at_once / (rows * columns))))
    by_shape: dict[Shape, list[Block]] = {}
    for start, first in itertools.product(range(0, batch, samples), range(0, rows, rows_at_once)):
        n, block_rows = min(samples, batch - start), min(rows_at_once, rows - first)
        of_samples, top, bottom = slice(start, start + n), first * TILE, (first + block_rows) * TILE
        above = max(0, top - padding[0])  # the first row of the input that they see
        seen = slice(above, max(above, min(height, bottom + 2 - padding[0])))
        padded = slice(seen.start - top + padding[0], seen.stop - top + padding[0])
        block = Block(
            (slice(None), of_samples, slice(None), seen),
            (slice(None), slice(None), padded, slice(padding[1], padding[1] + width)),
            (slice(None), of_samples, slice(None), slice(top, bottom)),
        )
        by_shape.setdefault((cores, n, block_rows, columns), []).append(block)
    row = max(columns * TILE + 3, columns * SEEN)
    elements = {shape: shape[1] * (shape[2] * TILE + 2) * row * channels for shape in by_shape}
    return Plan(output_size, cores, [(shape, elements[shape], blocks) for shape, blocks in by_shape.items()])


class InputTransform:
    """Bᵀ x B, in memory that one block of the tiles after the other is computed in.

    The steps of the computation and what they read and write are laid down once, for every block.
    """

    def __init__(self, input: Tensor, shape: Shape, scratch: Tensor) -> None:
        (cores, samples, rows, columns), (channels, _, width) = shape, input.shape[2:]
        height = rows * TILE + 2
        self.padded = input.new_zeros((cores, samples, height, columns * TILE + 2, channels))
        self.index: Index | None = None  # of what `padded` holds of the input
        self.rows = rows_to_turn((cores, samples, channels, height, width), scratch)
        by_column = self.padded.unfold(3, SEEN, TILE).movedim(-1, 0)  # (6, cores, n, padded height, columns, C)
        along_width = scratch_view(by_column.shape, scratch)
        by_row = along_width.unfold(3, SEEN, TILE).movedim(-1, 0)  # (6, 6, cores, n, rows, columns, C)
        memory = input.new_empty((cores, SEEN, SEEN, samples, rows, columns, channels))
        self.steps = [*to_points(by_column, along_width), *to_points(by_row, memory.movedim(0, 2))]
        self.points = memory.view(cores * SEEN**2, -1, channels)

    def transformed(self, input: Tensor, block: Block) -> Tensor:
        """Of this block of the input (cores, n, C, H, W): (cores · 36, tiles of a core, C)."""
        if block.padded != self.index:
            self.index, inside = block.padded, block.padded[2]
            for outside in (slice(inside.start), slice(inside.stop, None)):
                self.padded[:, :, outside].zero_()  # where rows of the block before may be
        data = input[block.input]
        if data.stride(2) != 1:
            data = self.rows[..., : data.shape[3], : data.shape[4]].copy_(data)
        self.padded[block.padded].copy_(data.movedim(2, -1))
        for step in self.steps:
            step()
        return self.points


class OutputTransform:
    """Aᵀ m A, in memory that one block of the tiles after the other is computed in."""

    def __init__(self, output: Tensor, shape: Shape, scratch: Tensor) -> None:
        (cores, samples, rows, columns), channels = shape, output.shape[2]
        self.memory = memory = output.new_empty((cores, SEEN, SEEN, samples, rows, columns, channels))
        self.products = memory.view(cores * SEEN**2, -1, channels)
        by_row = memory.movedim(0, 2)
        along_height = scratch_view((TILE, *by_row.shape[1:]), scratch)
        by_column = along_height.transpose(0, 1)  # (6, 4, cores, n, rows, columns, O)
        # in the place of the products, which are not needed any more
        self.pixels = scratch_view((cores, samples, rows * TILE, columns * TILE, channels), memory.view(cores, -1))
        by_tile = self.pixels.view(cores, samples, rows, TILE, columns, TILE, channels).permute(5, 3, 0, 1, 2, 4, 6)
        self.steps = [*from_points(by_row, along_height), *from_points(by_column, by_tile)]

    def write(self, output: Tensor, bias: Tensor | None) -> None:
        """From the products to this block of the output (cores, n, O, height, width)."""
        for step in self.steps:
            step()
        pixels = self.pixels[:, :, : output.shape[3], : output.shape[4]].movedim(-1, 2)
        if bias is None:
            output.copy_(pixels)
        else:
            torch.add(pixels, bias.view(-1, 1, 1), out=output)


class GradTransform:
    """A g Aᵀ of dL/dy, or of what takes its place in a filter's gradient: 4×4 elements a tile, none of them twice."""

    def __init__(self, data: Tensor, shape: Shape, scratch: Tensor, memory: Tensor | None = None) -> None:
        (cores, samples, rows, columns), (channels, _, width) = shape, data.shape[2:]
        self.whole = data.new_zeros((cores, samples, rows * TILE, columns * TILE, channels))
        self.rows = rows_to_turn((cores, samples, channels, rows * TILE, width), scratch)
        # (4, cores, n, height, columns, C)
        by_column = self.whole.view(cores, samples, rows * TILE, columns, TILE, channels).movedim(4, 0)
        along_width = scratch_view((SEEN, *by_column.shape[1:]), scratch)
        by_row = along_width.unflatten(3, (rows, TILE)).movedim(4, 0)  # (4, 6, cores, n, rows, columns, C)
        if memory is None:
            memory = data.new_empty((cores, SEEN, SEEN, samples, rows, columns, channels))
        self.steps = [*block_to_points(by_column, along_width), *block_to_points(by_row, memory.movedim(0, 2))]
        self.points = memory.view(cores * SEEN**2, -1, channels)

    def transformed(self, data: Tensor) -> Tensor:
        """Of this block of the data (cores, n, C, height, width): (cores · 36, tiles of a core, C)."""
        height, width = data.shape[3:]
        if height < self.whole.shape[2]:
            self.whole[:, :, height:].zero_()
        if data.stride(2) != 1:
            data = self.rows[..., :height, :width].copy_(data)
        self.whole[:, :, :height, :width].copy_(data.movedim(2, -1))
        for step in self.steps:
            step()
        return self.points


Step = Callable[[], object]


def rows_to_turn(shape: Sequence[int], memory: Tensor) -> Tensor:
    """Memory for contiguous (cores, n, C, height, width) on their way to channels last, whose rows end with a gap.

    Channels whose distance is a power of two would share the same few lines of the cache, and turning them takes five
    times as long.
    """
    return scratch_view((*shape[:-1], shape[-1] + 1), memory)[..., :-1]


def scratch_view(shape: Sequence[int], memory: Tensor) -> Tensor:
    """`shape` (…, cores, n, rows, columns, channels), of each core in the beginning of its memory (cores, numbers)."""
    *points, cores = shape[:-4]
    return memory[:, : math.prod(shape) // cores].view(cores, *points, *shape[-4:]).movedim(0, len(points))


def to_points(x: Tensor, out: Tensor) -> list[Step]:
    """Bᵀ x along the first dimension, written so that what two rows share is computed once, where it stays."""
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
    """Aᵀ m along the first dimension, written so that what two rows share is computed once, in the place of m."""
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


def block_to_points(g: Tensor, out: Tensor) -> list[Step]:
    """A g along the first dimension, written so that what two rows share is computed once, where it stays."""
    odd, even = out[1:5:3], out[2:4]
    return [
        functools.partial(torch.add, g[:2], g[2:], alpha=P**2, out=out[1:3]),
        functools.partial(torch.add, g[2:], g[:2], alpha=P**2, out=out[3:5]),
        functools.partial(torch.add, even, odd, alpha=Q, out=odd),
        functools.partial(torch.sub, odd, even, alpha=2, out=even),
        functools.partial(out[::5].copy_, g[::3]),
    ]


def add_products(total: Tensor | None, blocks: Tensor, inputs: Tensor) -> Tensor:
    """What filters' gradients sum up at each point, (…, tiles, O) and (…, tiles, C) → (…, O, C), added to the total."""
    return torch.bmm(blocks.mT, inputs) if total is None else total.baddbmm_(blocks.mT, inputs)


def transformed_filters(weight: Tensor, cores: int) -> Tensor:
    """G w Gᵀ, for each core anew: (O, C, 3, 3) → (cores · 36, O, C)."""
    transform = weight.new_tensor(FILTER_TRANSFORM)  # G
    rows = transform @ weight.permute(2, 3, 0, 1).reshape(3, -1)
    points = weight.new_empty((cores, SEEN, SEEN, rows.shape[1] // 3))
    torch.matmul(transform, rows.view(SEEN, 3, -1), out=points[0])
    points[1:] = points[0]
    return points.view(-1, *weight.shape[:2])


def filters_from(points: Tensor | None, cores: int) -> Tensor:
    """The transpose of `transformed_filters`: (cores · 36, O, C) → (O, C, 3, 3), summed over the cores, in place."""
    assert points is not None
    transform = points.new_tensor(FILTER_TRANSFORM).mT
    total, *others = points.view(cores, SEEN, SEEN, -1)
    for other in others:
        total += other
    rows = torch.matmul(transform, total).view(SEEN, -1)
    return (transform @ rows).view(3, 3, *points.shape[1:]).permute(2, 3, 0, 1)


WINOGRAD = Kernel("winograd", fits, cost, correlate, full_convolution, weight_gradient, gradients)

"""How pooling goes wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchfromscratch.checking.formulas import as_tuple, first_of_largest, pad, pool_windows, spans, within
from torchfromscratch.checking.mistakes.row import Mistake, exchange, forward, gradient, not_applicable
from torchfromscratch.checking.truth import Truth

FIRST = "The gradient of a window belongs to one element: the first of the largest."
OVERLAP = "An input that several windows see gets the sum of what comes back from each: += in place of =."


def pooling_windows(t: Truth, x: Tensor, value: float) -> Tensor:
    """(…, O1, O2, K): the windows of a pooling layer over `x`."""
    dims = x.dim() - 2
    k, p = as_tuple(t.kernel_size, dims), as_tuple(t.padding, dims)
    s = k if t.stride is None else as_tuple(t.stride, dims)
    d = as_tuple(t.arguments.get("dilation", 1), dims)
    return pool_windows(x, k, s, p, d, t.ceil_mode, value)


def send_back(t: Truth, share: Callable[[Tensor], Tensor]) -> Tensor:
    """dL/dx if each window gives its dL/dy to its elements in these shares."""
    x = t.input.detach().requires_grad_()
    shares = share(pooling_windows(t, x, -math.inf).detach())
    y = torch.where(shares != 0, pooling_windows(t, x, 0.0), 0) * shares
    return torch.autograd.grad(y.sum(-1), x, t.g)[0]


def largest(windows: Tensor) -> Tensor:
    """1 for each of the largest elements."""
    return (windows == windows.amax(-1, keepdim=True)).double()


def overwrite(t: Truth, share: Callable[[Tensor], Tensor], whole_windows: bool = False) -> Tensor:
    """dL/dx by a loop over windows that writes where it should add: the winners, or whole windows with their zeros."""
    numbers = torch.arange(1.0, 1 + t.input[0, 0].numel(), dtype=torch.float64).view(1, 1, *t.input.shape[2:])
    where = pooling_windows(t, numbers.expand_as(t.input), 0.0).long().flatten(2, -2)
    shares = share(pooling_windows(t, t.input.detach(), -math.inf))
    values = (t.g.unsqueeze(-1) * shares).flatten(2, -2)
    chosen = (shares != 0).flatten(2, -2) | whole_windows
    found = t.input.new_zeros(*t.input.shape[:2], 1 + numbers.numel())
    for i in range(where.shape[2]):
        index, value = where[:, :, i], values[:, :, i].detach()
        found = found.scatter(2, torch.where(chosen[:, :, i], index, 0), value)
    return found[..., 1:].reshape(t.input.shape)


def top_left(windows: Tensor) -> Tensor:
    """1 for the first element."""
    shares = torch.zeros_like(windows)
    shares[..., 0] = 1
    return shares


# What becomes of a gradient where several elements are the largest.
TIES: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("All of several largest elements get the gradient.", largest),
    ("Several largest elements share the gradient.", lambda x: largest(x) / largest(x).sum(-1, keepdim=True)),
    (
        "The last of several largest elements gets the gradient.",
        lambda x: first_of_largest(x.flip(-1)).flip(-1).double(),
    ),
)


def of_options() -> Iterator[Mistake]:
    """Options that are forgotten or exchanged."""
    for name in ("kernel_size", "stride", "padding"):
        yield forward(
            f"The {name.replace('_', ' ')} of height and width are exchanged.",
            f"{name} is (height, width), as the shapes are.",
            lambda t, name=name: t.output(**{name: exchange(getattr(t, name))}),
        )
    yield forward(
        "The stride is 1, not the kernel's size.",
        "Without a stride, windows lie side by side: stride = kernel_size.",
        lambda t: t.output(stride=1) if t.stride is None else not_applicable(),
    )
    yield forward("The stride is taken for 1.", "Windows begin `stride` apart.", lambda t: t.output(stride=1))
    yield forward(
        "The stride is the kernel's size, whatever stride says.",
        "Windows begin `stride` apart.",
        lambda t: t.output(stride=t.kernel_size),
    )
    for name, neutral in (("padding", 0), ("ceil_mode", False)):
        yield forward(
            f"The {name} is forgotten.",
            f"The layer's {name} changes the output.",
            lambda t, name=name, neutral=neutral: t.output(**{name: neutral}),
        )


def of_max() -> Iterator[Mistake]:
    """Max pooling's own."""
    yield forward(
        "The padding is 0, not −∞.",
        "Padding must never be the largest: fill it with −∞.",
        lambda t: (lambda x: torch.where(first_of_largest(x), x, 0).sum(-1))(pooling_windows(t, t.input, 0.0)),
    )
    yield forward(
        "The dilation is forgotten.", "A window's elements lie `dilation` apart.", lambda t: t.output(dilation=1)
    )
    yield forward(
        "The smallest element in place of the largest.",
        "y is the largest of each window.",
        lambda t: -t.output(input=-t.input),
    )
    yield forward(
        "The mean in place of the largest element.",
        "y is the largest of each window.",
        lambda t: pooling_windows(t, t.input, 0.0).mean(-1),
    )
    for sentence, share in (
        *TIES,
        ("Every element of a window gets the gradient: the mask of the largest is missing.", torch.ones_like),
        (
            "The gradient is spread over the window, as average pooling's is.",
            lambda x: torch.ones_like(x) / x.shape[-1],
        ),
        ("The gradient goes to the first element of each window.", top_left),
        (
            "The smallest element gets the gradient.",
            lambda x: first_of_largest(-x.nan_to_num(neginf=math.inf)).double(),
        ),
    ):
        yield gradient("input", sentence, FIRST, lambda t, share=share: send_back(t, share))
    first = lambda x: first_of_largest(x).double()  # noqa: E731
    for whole in (False, True):
        yield gradient(
            "input",
            "Overlapping windows overwrite each other.",
            OVERLAP,
            lambda t, whole=whole: overwrite(t, first, whole),
        )
        yield gradient(
            "input",
            "Overlapping windows overwrite each other, and all of several largest elements get the gradient.",
            f"{OVERLAP} {FIRST}",
            lambda t, whole=whole: overwrite(t, largest, whole),
        )
    yield gradient(
        "input",
        "The gradient is multiplied with the largest element.",
        "dL/dx is dL/dy where x is the largest: y itself plays no part.",
        lambda t: t.gradient("input", g=t.g * t.y.detach()),
    )
    yield gradient(
        "input",
        "The gradient goes to every element that equals a largest one of any window that sees it.",
        FIRST,
        lambda t: send_back(t, largest),
    )


def of_mean() -> Iterator[Mistake]:
    """Average pooling's own."""
    yield forward(
        "The sum of each window in place of its mean.",
        "y is the sum of a window over its number of elements.",
        lambda t: t.output(divisor_override=1),
    )
    yield forward(
        "The padding counts, though count_include_pad is False.",
        "Divide by the elements of the input alone.",
        lambda t: t.output(count_include_pad=True),
    )
    yield forward(
        "The padding does not count, though count_include_pad is True.",
        "Divide by the kernel's size, padding included.",
        lambda t: t.output(count_include_pad=False),
    )
    yield forward(
        "divisor_override is forgotten.",
        "The divisor is divisor_override where it is given.",
        lambda t: t.output(divisor_override=None),
    )
    yield forward(
        "The divisor is the kernel's size even where a window reaches beyond the padding.",
        "With ceil_mode the last window's elements beyond the padding do not count.",
        lambda t: pooling_windows(t, t.input, 0.0).mean(-1),
    )
    yield forward(
        "The largest element in place of the mean.",
        "y is the mean of each window.",
        lambda t: pooling_windows(t, t.input, -math.inf).amax(-1),
    )
    yield gradient(
        "input",
        "The gradient is not divided by the window's size.",
        "Each element of a window gets dL/dy over the window's number of elements.",
        lambda t: t.gradient("input", divisor_override=1),
    )
    for axis, side in enumerate(("height", "width")):
        yield gradient(
            "input",
            f"The gradient is divided by the {side} of the window alone.",
            "Each element of a window gets dL/dy over the window's number of elements.",
            lambda t, axis=axis: t.gradient("input", divisor_override=as_tuple(t.kernel_size, 2)[axis]),
        )
    yield gradient("input", "Overlapping windows overwrite each other.", OVERLAP, lambda t: overwrite_mean(t))
    yield gradient(
        "input",
        "dL/dy is spread as if the windows lay side by side, whatever the stride.",
        "Windows begin `stride` apart, and what several of them see gets the sum.",
        side_by_side,
    )
    yield gradient(
        "input",
        "Only the first element of each window gets the gradient.",
        "Each element of a window gets its share.",
        lambda t: send_back(t, lambda x: top_left(x) / x.shape[-1]),
    )


def side_by_side(t: Truth) -> Tensor:
    """Each dL/dy over the window's size, repeated over a window of its own, cut to the input's size."""
    dims = t.input.dim() - 2
    kernel = as_tuple(t.kernel_size, dims)
    g = t.g / math.prod(kernel)
    for axis, k in enumerate(kernel, 2):
        g = g.repeat_interleave(k, axis)
    return pad(g, [0] * dims, [n - have for n, have in zip(t.input.shape[2:], g.shape[2:], strict=True)])


def overwrite_mean(t: Truth) -> Tensor:
    """As `overwrite`, with equal shares of whole windows."""
    dims = t.input.dim() - 2
    k, p = as_tuple(t.kernel_size, dims), as_tuple(t.padding, dims)
    s = k if t.stride is None else as_tuple(t.stride, dims)
    size = [
        max(n + 2 * q, (o - 1) * step + w)
        for n, q, o, step, w in zip(t.input.shape[2:], p, t.g.shape[2:], s, k, strict=True)
    ]
    found = t.input.new_zeros(*t.input.shape[:2], *size)
    count = math.prod(k) if t.arguments.get("divisor_override") is None else t.divisor_override
    for i in itertools.product(*map(range, t.g.shape[2:])):
        window = tuple(slice(q * step, q * step + w) for q, step, w in zip(i, s, k, strict=True))
        found[within(window)] = t.g[within(i)].view(*t.g.shape[:2], *[1] * dims) / count
    return pad(found, [-q for q in p], [q + n - have for q, n, have in zip(p, t.input.shape[2:], size, strict=True)])


def regions(t: Truth, ends: Callable[[int, int], list[range]]) -> list[tuple[slice, ...]]:
    """Adaptive pooling's regions, by another rule."""
    dims = t.input.dim() - 2
    size = as_tuple(t.output_size, dims)
    along = [[slice(r.start, r.stop) for r in ends(n, o)] for n, o in zip(t.input.shape[2:], size, strict=True)]
    return [(slice(None), slice(None), *cell) for cell in itertools.product(*along)]


def floor_ends(length: int, count: int) -> list[range]:
    """From ⌊i·n/o⌋ to ⌊(i + 1)·n/o⌋, one element at least."""
    begins = [i * length // count for i in range(count)]
    return [range(begin, max(begin + 1, (i + 1) * length // count)) for i, begin in enumerate(begins)]


def equal_windows(length: int, count: int) -> list[range]:
    """Windows of one size and stride."""
    stride = length // count
    kernel = length - (count - 1) * stride
    return [range(i * stride, i * stride + kernel) for i in range(count)]


def side_by_side_windows(length: int, count: int) -> list[range]:
    """Windows of n // o elements, side by side: fewer than o where there is nothing left."""
    size = max(1, length // count)
    return [range(i * size, (i + 1) * size) for i in range(count)]


def of_adaptive(reduce: Callable[[Tensor], Tensor], share: Callable[[Tensor], Tensor]) -> Iterator[Mistake]:
    """Regions by another rule, and gradients that are overwritten."""
    rule = "Region i is from ⌊i·n/o⌋ to ⌈(i + 1)·n/o⌉."

    def output(t: Truth, ends: Callable[[int, int], list[range]]) -> Tensor:
        parts = [t.input[cell].flatten(2) for cell in regions(t, ends)]
        reduced = [reduce(part) if part.shape[2] else part.sum(2) for part in parts]
        return torch.stack(reduced, -1).view(t.y.shape)

    for sentence, ends in (
        ("The ends of the regions are rounded down.", floor_ends),
        ("The regions all have one size and stride.", equal_windows),
        ("The regions are n // o elements each, side by side.", side_by_side_windows),
    ):
        yield forward(sentence, rule, lambda t, ends=ends: output(t, ends))
    yield forward(
        "The output sizes of height and width are exchanged.",
        "output_size is (height, width).",
        lambda t: t.output(output_size=exchange(t.output_size)),
    )

    def overwriting(t: Truth) -> Tensor:
        found = torch.zeros_like(t.input)
        for cell, g in zip(regions(t, spans), t.g.flatten(2).unbind(-1), strict=True):
            region = t.input.detach()[cell]
            shares = share(region.flatten(2)).view(region.shape)
            value = g.view(*g.shape, *[1] * (region.dim() - 2)) * shares
            found[cell] = torch.where(shares != 0, value, found[cell])
        return found

    yield gradient("input", "Overlapping regions overwrite each other.", OVERLAP, overwriting)


def of_adaptive_max() -> Iterator[Mistake]:
    """Ties."""

    def ties(t: Truth, share: Callable[[Tensor], Tensor]) -> Tensor:
        found = torch.zeros_like(t.input)
        for cell, g in zip(regions(t, spans), t.g.flatten(2).unbind(-1), strict=True):
            region = t.input.detach()[cell]
            found[cell] += g.view(*g.shape, *[1] * (region.dim() - 2)) * share(region.flatten(2)).view(region.shape)
        return found

    for sentence, share in (
        *TIES,
        ("Every element of a region gets the gradient.", torch.ones_like),
        ("The gradient is spread over the region.", lambda x: torch.ones_like(x) / x.shape[-1]),
    ):
        yield gradient("input", sentence, FIRST, lambda t, share=share: ties(t, share))


MAX = (*of_options(), *of_max())
MEAN = (*of_options(), *of_mean())
ADAPTIVE_MAX = (*of_adaptive(lambda x: x.amax(-1), lambda x: first_of_largest(x).double()), *of_adaptive_max())
ADAPTIVE_MEAN = (
    *of_adaptive(lambda x: x.mean(-1), lambda x: torch.ones_like(x) / x.shape[-1]),
    forward(
        "The sum of each region in place of its mean.",
        "y is the sum of a region over its number of elements.",
        lambda t: torch.stack([t.input[cell].flatten(2).sum(-1) for cell in regions(t, spans)], -1).view(t.y.shape),
    ),
)

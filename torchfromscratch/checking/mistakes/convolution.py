"""How convolutions and transposed convolutions go wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.checking.formulas import as_tuple, conv, insert_zeros, pad, within
from torchfromscratch.checking.mistakes.row import (
    Mistake,
    NotApplicableError,
    exchange,
    forward,
    gradient,
    not_applicable,
)
from torchfromscratch.checking.truth import Truth

Sizes = tuple[int, ...]

INPUT = (
    "dL/dx is the full convolution of dL/dy with the kernel turned by 180°: weight.flip over its last dimensions, then "
    "its channels exchanged."
)
WEIGHT = "dL/dw is the cross-correlation of the padded input with dL/dy: dw[k] = Σ x[i·s + k] · dL/dy[i]."
STRIDE = "Between neighbours of dL/dy lie stride − 1 zeros before it is convolved with the rotated kernel."
CROP = "The gradient of the padded input is cropped by the padding on every side: [p : p + length]."
OVERLAP = "An input that several windows see gets the sum of what comes back from each: += in place of =."


def dims(t: Truth) -> int:
    """The kernel's dimensions."""
    return t.weight.dim() - 2


def axes(t: Truth) -> Sizes:
    """The numbers of the kernel's dimensions."""
    return tuple(range(2, t.weight.dim()))


def option(t: Truth, name: str) -> Sizes:
    """An option along each dimension."""
    return as_tuple(getattr(t, name), dims(t))


def rotate180(w: Tensor) -> Tensor:
    """Turned by 180°."""
    return w.flip(*range(2, w.dim()))


def exchange_sides(w: Tensor) -> Tensor:
    """Height and width exchanged, where the kernel has both."""
    if w.dim() != 4:
        raise NotApplicableError
    return w.mT


def exchange_equal_sides(w: Tensor) -> Tensor:
    """The same where they are alike."""
    if w.shape[2] != w.shape[-1]:
        raise NotApplicableError
    return exchange_sides(w)


def exchange_channels(w: Tensor) -> Tensor:
    """Input and output channels exchanged, where there are as many."""
    if w.shape[0] != w.shape[1]:
        raise NotApplicableError
    return w.transpose(0, 1)


def axis_flips() -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """A flip along some of the kernel's dimensions, but not along all."""
    for chosen in ((-1,), (-2,), (-3,), (-1, -2), (-1, -3), (-2, -3)):
        names = " and ".join({-1: "width", -2: "height", -3: "depth"}[axis] for axis in chosen)
        yield names, lambda w, chosen=chosen: w.flip(chosen) if w.dim() - 2 > len(chosen) else not_applicable()


# In dL/dx, `change` of the weight gives what an implementation computes that treats the kernel so
KERNELS: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("The kernel is not rotated.", rotate180),
    *[(f"The kernel is not rotated along the {names}, only along the rest.", flip) for names, flip in axis_flips()],
    ("The kernel is transposed, not rotated.", lambda w: rotate180(exchange_sides(w))),
    ("The kernel is rotated and transposed.", exchange_sides),
    ("The kernel is rotated by 90°, not by 180°.", lambda w: rotate180(w.rot90(1, (2, 3)))),
    ("The kernel is rotated by 270°, not by 180°.", lambda w: rotate180(w.rot90(3, (2, 3)))),
]


def of_kernels() -> Iterator[Mistake]:
    """Each treatment of the kernel, and each with its channels as they are."""
    for sentence, change in KERNELS:
        yield gradient("input", sentence, INPUT, lambda t, change=change: with_kernel(t, change(t.weight)))
    exchanged_ = "The kernel's channels are not exchanged."
    yield gradient("input", exchanged_, INPUT, lambda t: t.gradient("input", weight=exchange_channels(t.weight)))
    for sentence, change in KERNELS:
        yield gradient(
            "input",
            f"{sentence} {exchanged_}",
            INPUT,
            lambda t, change=change: with_kernel(t, change(exchange_channels(t.weight))),
        )


def with_kernel(t: Truth, weight: Tensor) -> Tensor:
    """dL/dx with another kernel, of any size."""
    return full(t, insert_zeros(t.g, option(t, "stride")), option(t, "padding"), weight)


def padded_gradient(t: Truth) -> Tensor:
    """The gradient of the input with its padding."""
    p = option(t, "padding")
    padded = pad(t.input.detach(), p, p).requires_grad_()
    output = conv(padded, t.weight, None, t.stride, 0, t.dilation, t.groups)
    return torch.autograd.grad(output, padded, t.g)[0]


def slice_at(x: Tensor, begin: Sequence[int], size: Sequence[int]) -> Tensor:
    """`size` elements from `begin` on, zeros where there are none."""
    behind = [b + n - have for b, n, have in zip(begin, size, x.shape[2:], strict=True)]
    return pad(x, [-b for b in begin], behind)


def crop_at(offset: int | None) -> Callable[[Truth], Tensor]:
    """dL/dx cut from the padded input's gradient at the padding plus `offset`; None: at the corner."""

    def value(t: Truth) -> Tensor:
        p = option(t, "padding")
        begin = [0 if offset is None else q + offset for q in p]
        return slice_at(padded_gradient(t), begin, t.input.shape[2:])

    return value


def full(
    t: Truth, g: Tensor, begin: Sequence[int], weight: Tensor | None = None, dilation: Sizes | None = None
) -> Tensor:
    """The full convolution of `g` with the rotated kernel, of stride 1, cut to the input's size."""
    w, spacing = t.weight if weight is None else weight, option(t, "dilation") if dilation is None else dilation
    length = [n + d * (k - 1) for n, k, d in zip(g.shape[2:], w.shape[2:], spacing, strict=True)]
    x = t.input.new_zeros(*t.input.shape[:2], *length, requires_grad=True)
    output = conv(x, w, None, 1, 0, spacing, t.groups)
    return slice_at(torch.autograd.grad(output, x, g)[0], begin, t.input.shape[2:])


def repeat(t: Truth, x: Tensor) -> Tensor:
    """Each element as often as the stride says."""
    for axis, s in zip(axes(t), option(t, "stride"), strict=True):
        x = x.repeat_interleave(s, axis)
    return x


def repeat_between(t: Truth, x: Tensor) -> Tensor:
    """The same, but for the last, behind which there are no zeros."""
    for axis, s in zip(axes(t), option(t, "stride"), strict=True):
        x = x.repeat_interleave(s, axis).narrow(axis, 0, (x.shape[axis] - 1) * s + 1)
    return x


def dense_weight_gradient(t: Truth) -> Tensor:
    """dL/dw as if the stride were 1."""
    p = option(t, "padding")
    length = [n + d * (k - 1) for n, k, d in zip(t.g.shape[2:], t.weight.shape[2:], option(t, "dilation"), strict=True)]
    x = slice_at(pad(t.input, p, p), [0] * dims(t), length)
    return torch.autograd.grad(conv(x, t.weight, None, 1, 0, t.dilation, t.groups), t.weight, t.g)[0]


def window(i: Sequence[int], t: Truth) -> tuple[slice, ...]:
    """What lies below the kernel at position i of the padded input."""
    sizes = zip(i, option(t, "stride"), option(t, "dilation"), t.weight.shape[2:], strict=True)
    return tuple(slice(q * s, q * s + d * (k - 1) + 1, d) for q, s, d, k in sizes)


def overwrite(t: Truth) -> Tensor:
    """dL/dx by a loop over positions that writes where it should add."""
    if t.groups != 1:
        raise NotApplicableError
    p = option(t, "padding")
    padded = torch.zeros_like(pad(t.input.detach(), p, p))
    for i in itertools.product(*map(range, t.g.shape[2:])):
        parts = t.g[within(i)] @ t.weight.detach().flatten(1)
        padded[within(window(i, t))] = parts.unflatten(1, t.weight.shape[1:])
    return slice_at(padded, p, t.input.shape[2:])


def move_padding(t: Truth, before: int, after: int, change: Callable[[int, int], int] = lambda p, n: p * n) -> Tensor:
    """The output with the padding multiplied before and after."""
    p = option(t, "padding")
    x = pad(t.input, [change(q, before) for q in p], [change(q, after) for q in p])
    return t.output(input=x, padding=0)


def replicate_border(t: Truth) -> Tensor:
    """The output of an input that is padded with its border."""
    x = t.input
    for axis, p in zip(axes(t), option(t, "padding"), strict=True):
        index = torch.arange(-p, x.shape[axis] + p).clamp(0, x.shape[axis] - 1)
        x = x.index_select(axis, index)
    return t.output(input=x, padding=0)


def of_forward(flipped: str, cross: str) -> Iterator[Mistake]:
    """Other definitions: rows of `output` and of the gradients that belong to it."""
    yield forward(flipped, cross, lambda t: t.output(weight=rotate180(t.weight)))
    for names, flip in axis_flips():
        yield forward(
            f"The kernel is flipped along the {names}.", cross, lambda t, f=flip: t.output(weight=f(t.weight))
        )
    yield forward("The kernel is transposed.", cross, lambda t: t.output(weight=exchange_equal_sides(t.weight)))
    yield forward(
        "The kernel's input and output channels are exchanged.",
        "weight is (output channels, input channels, …), and the other way round in a transposed convolution.",
        lambda t: t.output(weight=exchange_channels(t.weight)),
    )
    for name in ("stride", "padding", "dilation"):
        yield forward(
            f"The {name} of height and width are exchanged.",
            f"{name} is (height, width), as the shapes are.",
            lambda t, name=name: t.output(**{name: exchange(getattr(t, name))}),
        )
    for name, neutral in (("stride", 1), ("padding", 0), ("dilation", 1), ("bias", None)):
        yield forward(
            f"The {name} is forgotten.",
            f"The layer's {name} changes the output.",
            lambda t, name=name, neutral=neutral: output_or_nothing(t, **{name: neutral}),
        )


def output_or_nothing(t: Truth, **changed: Any) -> Tensor:
    """The output with an option changed: nothing where no window fits any more."""
    if "transpose" in t.layer.name:
        return t.output(**changed)
    values = {
        name: as_tuple(changed.get(name, getattr(t, name)), dims(t)) for name in ("stride", "padding", "dilation")
    }
    sizes = zip(t.input.shape[2:], t.weight.shape[2:], *values.values(), strict=True)
    counts = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]
    if min(counts) > 0:
        return t.output(**changed)
    return t.y.new_zeros(*t.y.shape[:2], *(max(0, count) for count in counts))


def last_tap(t: Truth) -> Tensor:
    """The output of the kernel's last element alone."""
    weight = t.weight
    for axis in axes(t):
        weight = only(weight, axis, -1)
    return t.output(weight=weight)


def of_convolution() -> Iterator[Mistake]:
    """What only convolution does."""
    for sentence, change in (
        ("The padding is one too small.", lambda p: max(0, p - 1)),
        ("The padding is one too large.", lambda p: p + 1),
        ("The padding is halved.", lambda p: p // 2),
        ("The padding is doubled.", lambda p: 2 * p),
    ):
        yield forward(
            sentence,
            "padding zeros lie on each side.",
            lambda t, change=change: t.output(padding=tuple(map(change, option(t, "padding")))),
        )
    both = "padding zeros lie before the input and as many behind it, along every dimension."
    yield forward("All of the padding lies before the input.", both, lambda t: move_padding(t, 2, 0))
    yield forward("All of the padding lies behind the input.", both, lambda t: move_padding(t, 0, 2))
    yield forward("The padding lies before the input only.", both, lambda t: move_padding(t, 1, 0))
    yield forward("The padding lies behind the input only.", both, lambda t: move_padding(t, 0, 1))
    yield forward("The padding repeats the border in place of zeros.", "The padding is 0.", replicate_border)
    yield forward(
        "Only the last input channel is there: the others are overwritten.",
        "y is the sum over all input channels: += in place of =.",
        lambda t: t.output(input=only(t.input, 1, -1)),
    )
    yield forward(
        "Only the first input channel is there.",
        "y is the sum over all input channels.",
        lambda t: t.output(input=only(t.input, 1, 0)),
    )
    yield forward(
        "Only the kernel's last element is there.", "y is the sum over the kernel: += in place of =.", last_tap
    )
    yield forward(
        "The mean over the input channels in place of their sum.",
        "y is the sum over the kernel and the input channels.",
        lambda t: t.output(weight=t.weight / t.weight.shape[1]),
    )
    yield forward(
        "The mean over the window in place of its sum.",
        "y is the sum over the kernel and the input channels.",
        lambda t: t.output(weight=t.weight / t.weight[0].numel()),
    )
    yield forward(
        "The bias is added once for each input channel.",
        "The bias is added once to each output element.",
        lambda t: t.output(bias=t.bias * t.weight.shape[1]),
    )
    yield forward("The bias is subtracted.", "The bias is added.", lambda t: t.output(bias=-t.bias))

    yield gradient("input", "The gradient is cropped at the corner.", CROP, crop_at(None))
    yield gradient("input", "The gradient is cropped one element too early.", CROP, crop_at(-1))
    yield gradient("input", "The gradient is cropped one element too late.", CROP, crop_at(1))
    yield gradient(
        "input",
        "The stride's zeros are missing in dL/dy.",
        STRIDE,
        lambda t: full(t, t.g, option(t, "padding")),
    )
    for fill in (repeat, repeat_between):
        yield gradient(
            "input",
            "dL/dy is repeated where the stride's zeros belong.",
            STRIDE,
            lambda t, fill=fill: full(t, fill(t, t.g), option(t, "padding")),
        )
    yield gradient(
        "input",
        "The stride's zeros are missing in dL/dy, and the padding is not cropped.",
        f"{STRIDE} {CROP}",
        lambda t: full(t, t.g, [0] * dims(t)),
    )
    yield gradient(
        "input",
        "dL/dy lies one element too late between the stride's zeros.",
        STRIDE,
        lambda t: full(
            t,
            insert_zeros(t.g, option(t, "stride")),
            [p - s + 1 for p, s in zip(option(t, "padding"), option(t, "stride"), strict=True)],
        ),
    )
    yield gradient("input", "Overlapping windows overwrite each other.", OVERLAP, overwrite)
    yield gradient(
        "input",
        "The dilation is forgotten in dL/dx.",
        "The kernel's elements lie `dilation` apart in dL/dx, too.",
        lambda t: full(t, insert_zeros(t.g, option(t, "stride")), option(t, "padding"), dilation=(1,) * dims(t)),
    )
    yield gradient("weight", "The weight's gradient leaves out the stride.", WEIGHT, dense_weight_gradient)
    yield gradient(
        "weight",
        "dL/dy is rotated in the weight's gradient.",
        WEIGHT,
        lambda t: t.gradient("weight", g=t.g.flip(axes(t))),
    )
    yield gradient(
        "weight",
        "The padding is forgotten in the weight's gradient.",
        WEIGHT,
        lambda t: shifted_weight_gradient(t, 0),
    )
    yield gradient(
        "weight",
        "The weight's gradient takes the padded input one element off.",
        WEIGHT,
        lambda t: shifted_weight_gradient(t, 1),
    )


def shifted_weight_gradient(t: Truth, padding_left: int) -> Tensor:
    """dL/dw of the input with nothing (0) or one element less (1) before it, and zeros behind."""
    p = option(t, "padding")
    before = [padding_left * (q - 1) for q in p]
    behind = [2 * q - b for q, b in zip(p, before, strict=True)]
    return t.gradient("weight", input=pad(t.input, before, behind), padding=0)


def only(x: Tensor, axis: int, index: int) -> Tensor:
    """Zeros but for one index along an axis."""
    mask = torch.zeros(x.shape[axis], dtype=x.dtype)
    mask[index] = 1
    return x * mask.view(-1, *[1] * (x.dim() - 1 - axis % x.dim()))


def of_weights() -> Iterator[Mistake]:
    """dL/dw that is right but for how it lies, and sums that are not made."""
    for sentence, change in (
        ("The weight's gradient is rotated.", rotate180),
        *[(f"The weight's gradient is flipped along the {names}.", flip) for names, flip in axis_flips()],
        ("The weight's gradient is transposed.", exchange_equal_sides),
        ("The weight's gradient is rotated and transposed.", lambda w: rotate180(exchange_equal_sides(w))),
        ("The weight's gradient has its channels exchanged.", exchange_channels),
        ("The weight's gradient is rotated and has its channels exchanged.", lambda w: rotate180(exchange_channels(w))),
    ):
        yield gradient("weight", sentence, WEIGHT, lambda t, change=change: change(t.gradient("weight")))
    summed = "The gradient of what every sample and position shares is the sum over all of them: += in place of =."
    for name in ("weight", "bias"):
        for sentence, change in (
            ("Only the last position counts", lambda g: last_position(g)),
            ("Only the last position of the last sample counts", lambda g: only(last_position(g), 0, -1)),
            ("Only the last row counts", lambda g: only(g, 2, -1)),
            ("Only the first position counts", lambda g: last_position(g, 0)),
        ):
            yield gradient(
                name, f"{sentence} in dL/d {name}.", summed, lambda t, n=name, c=change: t.gradient(n, g=c(t.g))
            )


def last_position(g: Tensor, index: int = -1) -> Tensor:
    """dL/dy at one position only."""
    for axis in range(2, g.dim()):
        g = only(g, axis, index)
    return g


def of_output_channels() -> Iterator[Mistake]:
    """dL/dx from one output channel."""
    summed = "dL/dx is the sum over all output channels: += in place of =."
    yield gradient(
        "input",
        "Only the last output channel counts in dL/dx.",
        summed,
        lambda t: t.gradient("input", g=only(t.g, 1, -1)),
    )
    yield gradient(
        "input",
        "Only the first output channel counts in dL/dx.",
        summed,
        lambda t: t.gradient("input", g=only(t.g, 1, 0)),
    )


def overwrite_output(t: Truth) -> Tensor:
    """Transposed convolution by a loop over inputs that writes where it should add."""
    if t.groups != 1:
        raise NotApplicableError
    padding = option(t, "padding")
    size = [n + 2 * p for n, p in zip(t.y.shape[2:], padding, strict=True)]
    y = t.y.new_zeros(*t.y.shape[:2], *size)
    for i in itertools.product(*map(range, t.input.shape[2:])):
        parts = t.input.detach()[within(i)] @ t.weight.detach().flatten(1)
        y[within(window(i, t))] = parts.unflatten(1, t.weight.shape[1:])
    y = slice_at(y, padding, t.y.shape[2:])
    return y if t.bias is None else y + t.bias.detach().view(-1, *[1] * dims(t))


TRANSPOSED_INPUT = "dL/dx is the cross-correlation of dL/dy with the kernel as it lies."


def of_transposed() -> Iterator[Mistake]:
    """What only transposed convolution does."""
    adds = "y[i·s + k] += w[k] · x[i]: what meets is added."
    yield forward("Overlapping windows overwrite each other.", adds, overwrite_output)
    yield forward(
        "The stride's zeros are missing between the inputs.",
        "Between neighbours of the input lie stride − 1 zeros.",
        lambda t: t.output(stride=1),
    )
    yield forward(
        "The inputs are repeated where the stride's zeros belong.",
        "Between neighbours of the input lie stride − 1 zeros.",
        lambda t: t.output(input=repeat_between(t, t.input), stride=1),
    )
    yield forward(
        "The output_padding is forgotten.",
        "output_padding makes the output longer.",
        lambda t: t.output(output_padding=0),
    )
    yield forward(
        "The output is cropped at the corner.",
        "The output is cropped by the padding on every side.",
        lambda t: slice_at(t.output(padding=0), [0] * dims(t), t.y.shape[2:]),
    )
    for sentence, change in (
        ("The kernel is rotated in dL/dx.", rotate180),
        ("The kernel is transposed in dL/dx.", exchange_equal_sides),
        *[(f"The kernel is flipped along the {names} in dL/dx.", flip) for names, flip in axis_flips()],
    ):
        yield gradient(
            "input", sentence, TRANSPOSED_INPUT, lambda t, change=change: t.gradient("input", weight=change(t.weight))
        )
    yield gradient(
        "input",
        "The kernel's channels are exchanged.",
        TRANSPOSED_INPUT,
        lambda t: t.gradient("input", weight=exchange_channels(t.weight)),
    )


FORWARD = of_forward(
    "A true convolution in place of a cross-correlation: the kernel is flipped.",
    "y[i] = Σ w[k] · x[i·s + k − p]: the kernel lies as it is; only dL/dx turns it.",
)
FORWARD_TRANSPOSED = of_forward("The kernel is rotated.", "y[i·s + k − p] += w[k] · x[i]: the kernel lies as it is.")
CONVOLUTION = (*FORWARD, *of_kernels(), *of_convolution(), *of_weights(), *of_output_channels())
TRANSPOSED = (*FORWARD_TRANSPOSED, *of_transposed(), *of_weights(), *of_output_channels())

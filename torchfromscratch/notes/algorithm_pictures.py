"""The pictures of the ways to convolve: what each multiplies, with numbers that the layers compute."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchfromscratch import functional as F
from torchfromscratch.explaining.explanation import factor, number
from torchfromscratch.kernels.convolution.winograd import FILTER_TRANSFORM, INPUT_TRANSFORM, OUTPUT_TRANSFORM
from torchfromscratch.notes.drawing import CELL, Drawing
from torchfromscratch.notes.pictures import COLOURS, GAP, Say, matrix, whole

IMAGE, KERNEL = (3, 3), (2, 2)  # of the pictures in two dimensions
WIDE = 2 * CELL  # of a cell whose number is not whole


def tap_by_tap(say: Say) -> Drawing:
    """The reference: each tap of the kernel times the part of x that it sees, added up."""
    drawing = Drawing("The reference adds up one tap of the kernel after the other")
    x, w = whole(*IMAGE, seed=3), whole(*KERNEL, seed=5, low=-1)
    left = 0.0
    for tap in range(4):
        row, column = divmod(tap, 2)
        seen = {(row + i, column + j): COLOURS[tap] for i in range(2) for j in range(2)}
        drawing.text(left, 8, f"w[{row},{column}] = {number(float(w[row, column]))}", COLOURS[tap])
        width, height = matrix(drawing, left, 24, x, seen)
        drawing.text(left + width / 2, 24 + height + 18, "↓", "faint", "middle", 18)
        matrix(
            drawing,
            left + CELL / 2,
            24 + height + 36,
            w[row, column] * x[row : row + 2, column : column + 2],
            {},
            COLOURS[tap],
        )
        left += width + GAP
        drawing.text(left - GAP / 2, 24 + height + 36 + CELL, "+" if tap < 3 else "=", "faint", "middle", 20)
    drawing.text(left, 24 + 3 * CELL + 18, "y", "result")
    matrix(drawing, left, 24 + 3 * CELL + 36, correlate(x, w), {}, "result")
    return drawing


def matrix_of_windows(say: Say) -> Drawing:
    """im2col: a row for each window, times the kernel as a column."""
    drawing = Drawing("im2col multiplies the matrix of all windows with the kernel as a column")
    x, w = whole(*IMAGE, seed=3), whole(*KERNEL, seed=5, low=-1)
    windows = x.unfold(0, 2, 1).unfold(1, 2, 1).reshape(4, 4)
    drawing.text(0, 8, "x", "left")
    matrix(drawing, 0, 24, x, {(i, j): COLOURS[0] for i in range(2) for j in range(2)})
    drawing.ring(CELL, CELL + 24, 2, 2, COLOURS[3])
    left = 3.0 * CELL + GAP
    drawing.text(left - GAP / 2, 24 + 2 * CELL, "→", "faint", "middle", 20)
    drawing.text(left, 8, say("a row for each window"), "faint", size=12)
    tints = {(row, column): COLOURS[row] for row in range(4) for column in range(4)}
    for name, values, coloured in (
        ("·", windows, tints),
        ("=", w.reshape(4, 1), {}),
        ("", correlate(x, w).reshape(4, 1), {(row, 0): COLOURS[row] for row in range(4)}),
    ):
        width, _ = matrix(drawing, left, 24, values, coloured)
        drawing.text(left + width + GAP / 2, 24 + 2 * CELL, name, "faint", "middle", 20)
        left += width + GAP
    return drawing


def winograd(say: Say) -> Drawing:
    """Winograd along one dimension, by the matrices that the kernel uses: 6 products for 4 outputs of 3 taps each."""
    drawing = Drawing(
        "Winograd: six inputs and three taps are transformed, multiplied point by point, and brought back"
    )
    x, w = torch.tensor([2.0, 0, 1, 3, -1, 2]).double(), torch.tensor([1.0, 2, -1]).double()
    points, filters = x.new_tensor(INPUT_TRANSFORM) @ x, x.new_tensor(FILTER_TRANSFORM) @ w
    products = points * filters
    y = x.new_tensor(OUTPUT_TRANSFORM) @ products
    torch.testing.assert_close(y, F.conv1d(x.view(1, 1, 6), w.view(1, 1, 3)).flatten())
    rows = [
        ("x", short(x), "left", say("6 inputs")),
        ("Bᵀ·x", short(points), "left", say("additions, and few factors")),
        ("w", short(w), "right", say("3 taps")),
        ("G·w", short(filters), "right", say("once for all tiles")),
        ("(Bᵀ·x) · (G·w)", short(products), "other", say("6 products, where 4 · 3 were")),
        ("Aᵀ·(…) = y", short(exact(y)), "result", say("4 outputs")),
    ]
    put_rows(drawing, 140, rows)
    return drawing


def fourier(say: Say) -> Drawing:
    """FFT: one product for each frequency; of the circle's outputs those are kept whose windows do not wrap around."""
    drawing = Drawing("FFT: a product for each frequency of the input and the kernel")
    x, w = torch.tensor([1.0, 2, 0, -1]).double(), torch.tensor([3.0, 1, 0, 0]).double()
    spectrum, conjugate = torch.fft.fft(x), torch.fft.fft(w).conj()
    product = spectrum * conjugate
    y = exact(torch.fft.ifft(product).real)
    torch.testing.assert_close(y[:3], F.conv1d(x.view(1, 1, 4), w[:2].view(1, 1, 2)).flatten())
    rows: list[tuple[str, list[str], str, str]] = [
        ("x", short(x), "left", ""),
        ("w", short(w), "right", say("filled up with 0")),
        ("X = FFT(x)", list(map(complex_number, spectrum.tolist())), "left", say("4 frequencies")),
        ("W̄ = conj FFT(w)", list(map(complex_number, conjugate.tolist())), "right", ""),
        ("X · W̄", list(map(complex_number, product.tolist())), "other", say("4 products, however long w is")),
        ("FFT⁻¹(X · W̄)", short(y), "result", say("the last window wraps around: cut off")),
    ]
    put_rows(drawing, 150, rows, cut_off=(len(rows) - 1, 3))
    return drawing


def put_rows(
    drawing: Drawing, left: float, rows: list[tuple[str, list[str], str, str]], cut_off: tuple[int, int] | None = None
) -> None:
    """Under each other rows of a title, cells, their colour and a note; one cell may count for nothing."""
    width = max(len(texts) for _, texts, _, _ in rows) * WIDE
    for row, (title, texts, kind, note) in enumerate(rows):
        top = row * (CELL + 14)
        drawing.text(0, top + CELL / 2, title, kind)
        for column, text in enumerate(texts):
            is_cut_off = (row, column) == cut_off
            drawing.box(left + column * WIDE, top, WIDE, CELL, "filler" if is_cut_off else kind)
            drawing.text(
                left + (column + 0.5) * WIDE, top + CELL / 2, text, "faint" if is_cut_off else "", "middle", 13
            )
        drawing.text(left + width + 14, top + CELL / 2, note, "faint", size=13)


def pointwise(say: Say) -> Drawing:
    """A 1×1 kernel: pixels times channels, one product of matrices."""
    drawing = Drawing("A 1×1 convolution is one product of matrices: pixels by channels, channels by outputs")
    x, w = whole(1, 2, 2, 2, seed=6), whole(3, 2, 1, 1, seed=9, low=-1)
    y = F.conv2d(x, w)
    left = 0.0
    for channel in range(2):
        drawing.text(left, 8, say("channel {}").format(channel), COLOURS[channel])
        matrix(drawing, left, 24 + CELL, x[0, channel], {}, COLOURS[channel])
        left += 2 * CELL + GAP / 2
    drawing.text(left, 24 + 2 * CELL, "→", "faint", "middle", 20)
    left += GAP / 2
    by_channel = {(pixel, channel): COLOURS[channel] for pixel in range(4) for channel in range(2)}
    matrices = [
        (say("a row for each pixel"), x[0].flatten(1).T, by_channel, "·"),
        ("wᵀ", w[:, :, 0, 0].T, {}, "="),
        ("y", y[0].flatten(1).T, {(pixel, output): "result" for pixel in range(4) for output in range(3)}, ""),
    ]
    for title, values, tints, sign in matrices:
        top = 24 + (4 - len(values)) * CELL / 2
        drawing.text(left, 8, title, "faint", size=12)
        width, _ = matrix(drawing, left, top, values, tints)
        width = max(width, len(title) * 7)
        drawing.text(left + width + GAP / 2, 24 + 2 * CELL, sign, "faint", "middle", 20)
        left += width + GAP
    return drawing


def depthwise(say: Say) -> Drawing:
    """Each channel has a kernel of its own: products of elements, no channel meets another."""
    drawing = Drawing("A depthwise convolution: each channel with a kernel of its own")
    x, w = whole(1, 2, *IMAGE, seed=7), whole(2, 1, *KERNEL, seed=8, low=-1)
    y = F.conv2d(x, w, groups=2)
    for channel in range(2):
        top = channel * (3 * CELL + 52)
        left = 0.0
        window = {(i, j): COLOURS[channel] for i in range(2) for j in range(2)}
        drawing.text(0, top + 8, say("channel {}").format(channel), COLOURS[channel])
        for values, tints, tint, sign in (
            (x[0, channel], window, "plain", "⋆"),
            (w[channel, 0], {}, "right", "="),
            (y[0, channel], {(0, 0): "result"}, "plain", ""),
        ):
            width, _ = matrix(drawing, left, top + 24 + (3 * CELL - len(values) * CELL) / 2, values, tints, tint)
            drawing.text(left + width + GAP / 2, top + 24 + 1.5 * CELL, sign, "faint", "middle", 20)
            left += width + GAP
        pairs = zip(x[0, channel, :2, :2].flatten().tolist(), w[channel].flatten().tolist(), strict=True)
        text = " + ".join(f"{factor(a)}·{factor(b)}" for a, b in pairs)
        line = f"y[{channel},0,0] = {text} = {number(float(y[0, channel, 0, 0]))}"
        drawing.text(left, top + 24 + 1.5 * CELL, line, "result", size=13)
    return drawing


def correlate(x: Tensor, w: Tensor) -> Tensor:
    """One plane with one kernel."""
    return F.conv2d(x[None, None], w[None, None])[0, 0]


def exact(values: Tensor) -> Tensor:
    """Numbers of a few digits, without what rounding left of them."""
    return values.round(decimals=9) + 0.0


def short(values: Tensor) -> list[str]:
    return [number(value, 3) for value in values.tolist()]


def complex_number(value: complex) -> str:
    """2, −i, 3 + 2i."""
    a, b = round(value.real, 9) + 0.0, round(value.imag, 9) + 0.0
    if b == 0:
        return number(a, 3)
    size = "" if abs(b) == 1 else number(abs(b), 3)
    if a == 0:
        return f"{'−' if b < 0 else ''}{size}i"
    return f"{number(a, 3)} {'−' if b < 0 else '+'} {size}i"


ALGORITHMS: dict[str, Callable[[Say], Drawing]] = {
    "reference": tap_by_tap,
    "im2col": matrix_of_windows,
    "winograd": winograd,
    "fft": fourier,
    "pointwise": pointwise,
    "depthwise": depthwise,
}

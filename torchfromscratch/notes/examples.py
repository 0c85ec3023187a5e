"""The worked examples of the lecture notes: what they print, and what this package's layers compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfromscratch import functional as F
from torchfromscratch import nn
from torchfromscratch.autograd.pooling import max_pool
from torchfromscratch.kernels.windows import Windows
from torchfromscratch.notes import printed

Value = Tensor | tuple[int, ...] | float | None


@dataclass(frozen=True)
class Row:
    """One thing that the notes print (None: they leave it out) and what is computed here."""

    what: str
    printed: Value
    computed: Value
    erratum: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the printed value is the computed one, rounded to the two decimals that the notes use."""
        if self.printed is None:
            return True
        one, other = (torch.as_tensor(value).double() for value in (self.printed, self.computed))
        return one.shape == other.shape and bool(((one - other).abs() <= 0.005).all())


@dataclass(frozen=True)
class Example:
    """A worked example: where it stands, what it is about, and its numbers."""

    title: str
    source: str
    about: str
    rows: list[Row]


# The picture of the X filters: black −1, and the two strokes of an X in white 1.
X_PICTURE = torch.full((9, 9), -1.0)
X_PICTURE[range(1, 8), range(1, 8)] = 1
X_PICTURE[range(1, 8), range(7, 0, -1)] = 1

DIAGONAL = 2 * torch.eye(3) - 1
X_FILTERS = {
    "diagonal": DIAGONAL,
    "cross": torch.maximum(DIAGONAL, DIAGONAL.flip(1)),
    "antidiagonal": DIAGONAL.flip(1),
}

ANIMATED_KERNEL = printed.matrix("1 0 1\n0 1 0\n1 0 1")

# What the table of the volume example must have said: its output follows from these alone.
VOLUME = printed.VOLUME.clone()
VOLUME[2, 1, 1:6] = torch.tensor([2.0, 1, 1, 2, 0])
FIRST_FILTER = printed.FIRST_FILTER.clone()
FIRST_FILTER[2, :2] = torch.tensor([[-1.0, 1, 1], [1, 1, 0]])


def picture(matrix: Tensor) -> Tensor:
    """A matrix as a batch of one picture with one channel."""
    return matrix[None, None]


def match_feature(filter: Tensor) -> Tensor:
    """The notes' feature matching: line up, multiply, add, and divide by the number of pixels."""
    return F.conv2d(picture(X_PICTURE), picture(filter / filter.numel()))[0, 0]


def output_size(size: int, kernel: int, padding: int, stride: int) -> tuple[int, ...]:
    """The size of a convolution's output, from running one."""
    image, weight = torch.zeros(1, 1, size, size), torch.zeros(1, 1, kernel, kernel)
    return tuple(F.conv2d(image, weight, stride=stride, padding=padding).shape[2:])


def parameters(module: torch.nn.Module) -> int:
    """How many numbers a layer learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def output_sizes() -> Example:
    """Sizes of convolutions' outputs."""
    return Example(
        "Output sizes",
        "note 5, “Padding and stride”; note 2, section 2.3",
        "(m − k + 2p)/s + 1, for which a convolution was run.",
        [
            Row("5×5, kernel 3×3, padding 2, stride 1", (6, 6), output_size(5, 3, 2, 1), "E1"),
            Row("figure 2: 7×7 with its padding, kernel 3×3, stride 2", None, output_size(7, 3, 0, 2)),
            Row("the X: 9×9, kernel 3×3", (7, 7), output_size(9, 3, 0, 1)),
            Row("the volume: 7×7 with its padding, kernel 3×3, stride 2", (3, 3), output_size(7, 3, 0, 2)),
        ],
    )


def feature_matching() -> Example:
    """The three filters of the X."""
    diagonal = match_feature(X_FILTERS["diagonal"])
    pooled = F.max_pool2d(picture(F.relu(diagonal)), 2, ceil_mode=True)[0, 0]
    return Example(
        "Feature matching: the strokes of an X",
        "note 2, sections 2.2, 3.2 and 3.3",
        "A 9×9 picture of an X (strokes 1, ground −1) under 3×3 filters, each sum divided by 9; then ReLU and 2×2 "
        "max pooling of the first map.",
        [
            Row("map of the diagonal filter", printed.DIAGONAL_MAP, diagonal, "E2"),
            Row("its ReLU", printed.DIAGONAL_MAP_AFTER_RELU, F.relu(diagonal), "E2"),
            Row("2×2 max pooling of that", printed.POOLED_DIAGONAL_MAP, pooled, "E3"),
            Row("the cross filter", printed.X_FILTERS["cross"], X_FILTERS["cross"], "E4"),
            Row("map of the cross filter", None, match_feature(X_FILTERS["cross"])),
            Row("the antidiagonal filter", printed.X_FILTERS["antidiagonal"], X_FILTERS["antidiagonal"], "E4"),
            Row("map of the antidiagonal filter", None, match_feature(X_FILTERS["antidiagonal"])),
        ],
    )


def animations() -> Example:
    """The 5×5 picture under a 3×3 kernel."""
    image, kernel = picture(printed.PADDED_PICTURE[1:6, 1:6]), picture(ANIMATED_KERNEL)
    return Example(
        "The animations: 5×5 under 3×3",
        "note 2, figure 2; note 3, “CNN no padding”, “Stride”, “CNN with padding”",
        "The notes show them as moving pictures; the numbers of the picture stand in note 2, the kernel is the "
        "[[1, 0, 1], [0, 1, 0], [1, 0, 1]] of the animation.",
        [
            Row("the picture with padding 1", printed.PADDED_PICTURE, F.pad(image, (1, 1, 1, 1))[0, 0]),
            Row("no padding, stride 1", None, F.conv2d(image, kernel)[0, 0]),
            Row("no padding, stride 2", None, F.conv2d(image, kernel, stride=2)[0, 0]),
            Row("padding 1, stride 1", None, F.conv2d(image, kernel, padding=1)[0, 0]),
            Row("padding 1, stride 2", None, F.conv2d(image, kernel, padding=1, stride=2)[0, 0]),
        ],
    )


def volume() -> Example:
    """Three channels, two filters."""
    weight = torch.stack([FIRST_FILTER, printed.SECOND_FILTER])
    output = F.conv2d(VOLUME[None], weight, printed.FILTER_BIASES, stride=2)[0]
    as_printed = F.conv2d(printed.VOLUME[None], weight, printed.FILTER_BIASES, stride=2)[0]
    return Example(
        "A colour picture: 7×7×3 with two 3×3×3 filters",
        "note 5, “Convolution for colour images”",
        "Stride 2, biases 1 and 0. One row of the input and two of the first filter are misprinted or lost; with the "
        "rows that the printed output determines, every number fits.",
        [
            Row("x[:, :, 2]", printed.VOLUME[2], VOLUME[2], "E5"),
            Row("w0[:, :, 2]", printed.FIRST_FILTER[2], FIRST_FILTER[2], "E6"),
            Row("o[:, :, 0]", printed.VOLUME_OUTPUT[0], output[0]),
            Row("o[:, :, 1]", printed.VOLUME_OUTPUT[1], output[1]),
            Row("o[:, :, 1] from x as it is printed", printed.VOLUME_OUTPUT[1], as_printed[1], "E5"),
        ],
    )


def pooling_mask() -> Example:
    """The mask of a max pooling window."""
    x = picture(printed.POOLING_WINDOW).requires_grad_()
    y, winner = max_pool(x, Windows((2, 2), (2, 2), (0, 0), (1, 1)))
    (mask,) = torch.autograd.grad(y, x, torch.ones_like(y))
    return Example(
        "The mask of max pooling",
        "note 1, section 5.2.1",
        "The gradient of the largest value is 1 where it stands and 0 elsewhere. The package stores the winner's tap.",
        [
            Row("max of [[1, 3], [4, 2]]", 4.0, float(y.detach())),
            Row("mask", printed.POOLING_MASK, mask[0, 0]),
            Row("the winner's tap, counted from 0", None, float(winner)),
        ],
    )


def flattening() -> Example:
    """A feature map as a vector."""
    return Example(
        "Flattening",
        "note 5, “Fully connected layer”",
        "Row by row, as it lies in memory.",
        [Row("the 3×3 feature map", printed.FLATTENED, nn.Flatten()(picture(printed.FEATURE_MAP))[0])],
    )


def softmax_cross_entropy() -> Example:
    """dL/dz of softmax with cross-entropy."""
    z = torch.tensor([[2.0, 1.0, 0.1]], dtype=torch.float64, requires_grad=True)
    truth = torch.tensor([0])
    loss = F.cross_entropy(z, truth)
    (gradient,) = torch.autograd.grad(loss, z)
    p, one_hot = F.softmax(z.detach(), 1), torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    moves = 1e-5 * torch.eye(3, dtype=torch.float64)
    slopes = [
        (F.cross_entropy(z.detach() + move, truth) - F.cross_entropy(z.detach() - move, truth)) / 2e-5 for move in moves
    ]
    return Example(
        "Softmax with cross-entropy",
        "note 5, “Backward to the input of softmax”",
        "The notes derive dL/dz = y − Y without numbers; here z = (2, 1, 0.1) and the first class is right.",
        [
            Row("y = softmax(z)", None, p),
            Row("L", None, float(loss.detach())),
            Row("dL/dz against y − Y", p - one_hot, gradient),
            Row("slopes measured by moving z a little", p - one_hot, torch.stack(slopes)[None]),
        ],
    )


def chain_rule() -> Example:
    """F = 2u² + 3u − 1, u = 2x − 2."""
    x = torch.tensor([[-1.0], [0.0], [0.625], [3.0]], requires_grad=True)
    u = F.linear(x, torch.tensor([[2.0]]), torch.tensor([-2.0]))
    (slope,) = torch.autograd.grad((2 * u**2 + 3 * u - 1).sum(), x)
    return Example(
        "The chain rule",
        "note 5, “Chain rule”",
        "F = 2u² + 3u − 1 with u = 2x − 2 as a linear layer; F′(x) = 16x − 10 at x = −1, 0, 0.625 and 3.",
        [Row("F′(x)", (16 * x.detach() - 10).mT, slope.mT)],
    )


def parameter_counts() -> Example:
    """Fully connected against convolutional."""
    convolution = nn.Conv2d(3, 32, 3)
    return Example(
        "Parameters: fully connected against convolutional",
        "note 2, section 1.4; note 5, “Why CNN”; note 4, the formulas",
        "A convolution's parameters do not depend on the size of the picture.",
        [
            Row("values of a 200×200×3 picture", 12_000, 200 * 200 * 3, "E7"),
            Row("into 500 neurons, with biases", 60_500, parameters(nn.Linear(120_000, 500, device="meta")), "E7"),
            Row("values of a 64×64×3 picture", 12_288, 64 * 64 * 3),
            Row("into 1,000 neurons, weights", 12_288 * 1000, nn.Linear(12_288, 1000, device="meta").weight.numel()),
            Row("32 filters 3×3 for either picture: c_out·c_in·k·k + c_out", 32 * 3 * 9 + 32, parameters(convolution)),
            Row("linear 128 → 10: d_in·d_out + d_out", 128 * 10 + 10, parameters(nn.Linear(128, 10))),
            Row("embedding of 1,000 words in 64: V·d", 64_000, parameters(nn.Embedding(1000, 64))),
            Row("layer norm of 64: 2·d", 128, parameters(nn.LayerNorm(64))),
            Row("batch norm of 64: 2·d", 128, parameters(nn.BatchNorm1d(64))),
            Row("RNN 8 → 16: d_in·d_h + d_h² + d_h", 400, parameters(nn.RNN(8, 16)), "E17"),
            Row("LSTM 8 → 16: 4·((d_in + d_h)·d_h + d_h)", 1600, parameters(nn.LSTM(8, 16)), "E17"),
        ],
    )


def colours() -> Example:
    """Pixels split into three matrices."""
    channels = printed.PIXELS.permute(2, 0, 1)
    return Example(
        "A colour picture as three matrices",
        "note 2, section 1.2",
        "(row, column, channel) to (channel, row, column), the order that torch uses.",
        [Row(name, printed.PIXEL_CHANNELS[c], channels[c]) for c, name in enumerate("RGB")]
        + [Row("largest value that 8 bits hold", 260, torch.iinfo(torch.uint8).max, "E8")],
    )


def tensors() -> Example:
    """The tensor exercises."""
    pairs = torch.arange(1, 11).reshape(5, 2)
    one, other = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6], [7, 8]])
    return Example(
        "Tensor exercises",
        "note 4, stage 1",
        "Reshape, index, concatenate.",
        [
            Row("(5, 2) reshaped to (2, 5)", torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]), pairs.reshape(2, 5)),
            Row("tensor[1:4]", torch.tensor([[3, 4], [5, 6], [7, 8]]), pairs[1:4]),
            Row("tensor[4]", torch.tensor([9, 10]), pairs[4]),
            Row("cat along dim 0", torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]]), torch.cat([one, other])),
            Row("arange(0, 10, 2)", torch.tensor([0, 2, 4, 6, 8]), torch.arange(0, 10, 2)),
            Row("linspace(0.1, 1, 10)", torch.arange(1, 11) / 10, torch.linspace(0.1, 1, 10)),
        ],
    )


EXAMPLES: tuple[Callable[[], Example], ...] = (
    output_sizes,
    feature_matching,
    animations,
    volume,
    pooling_mask,
    flattening,
    softmax_cross_entropy,
    chain_rule,
    parameter_counts,
    colours,
    tensors,
)


def show(value: Any) -> str:
    """A value as the page shows it."""
    if value is None:
        return "—"
    if isinstance(value, tuple):
        return "×".join(str(size) for size in value)
    if not isinstance(value, Tensor):
        return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"
    rows = value if value.dim() == 2 else value.reshape(1, -1)
    return "\n".join(" ".join(_cell(number) for number in row) for row in rows.tolist())


def _cell(number: float) -> str:
    if number != number:
        return "?"
    text = f"{number:.2f}".rstrip("0").rstrip(".") if number % 1 else f"{number:.0f}"
    return text.replace("-", "−")

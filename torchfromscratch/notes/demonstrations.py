"""What the lecture notes claim without numbers, measured: each demonstration returns its rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchfromscratch import functional as F
from torchfromscratch import nn

Rows = list[tuple[str, str]]


def parameter_explosion() -> Rows:
    """A small colour picture into 1,000 neurons takes 12 million weights; a convolution does not see the size.

    Note 2, section 1.4.
    """
    rows = []
    for size in (64, 128, 256):
        dense = nn.Linear(size * size * 3, 1000, device="meta")
        convolution = nn.Conv2d(3, 64, 3, device="meta")
        rows.append(
            (
                f"{size}×{size}×3",
                f"linear to 1,000 neurons: {_parameters(dense):>12,}   64 filters 3×3: {_parameters(convolution):,}",
            )
        )
    return rows


def vanishing_gradients() -> Rows:
    """Sigmoid lets the gradient of the first layer vanish with depth; ReLU keeps it, if the weights are scaled for it.

    Note 2, section 3.4; K. He et al., "Delving deep into rectifiers", 2015. The share of the gradient at the output
    that reaches the input of a network with layers of 64.
    """
    rows = []
    for depth in (1, 5, 10, 20):
        shares = {name: gradient_share(depth, activation, gain) for name, (activation, gain) in _ACTIVATIONS.items()}
        rows.append((f"depth {depth}", "   ".join(f"{name} {share:8.1e}" for name, share in shares.items())))
    return rows


def dead_relu() -> Rows:
    """A ReLU neuron that is negative for every input gets no gradient and stays dead; LeakyReLU revives it.

    Note 3, "Leaky ReLU". A neuron x·w + b with b = −3 learns to answer 1 on x in [−1, 1].
    """
    rows = []
    for name, activation in (("ReLU", F.relu), ("LeakyReLU", lambda x: F.leaky_relu(x, 0.1))):
        first, last, gradient = revival(activation)
        rows.append((name, f"first gradient of b {gradient:8.3f}   loss {first:.2f} → {last:.2f}"))
    return rows


def pointwise_convolution() -> Rows:
    """A 1×1 convolution is one linear layer, applied to the channels of every pixel.

    Note 2, part 5.
    """
    torch.manual_seed(0)
    picture, convolution = torch.randn(1, 8, 5, 5), nn.Conv2d(8, 3, 1)
    neuron = nn.Linear(8, 3)
    neuron.load_state_dict({"weight": convolution.weight.flatten(1), "bias": convolution.bias})
    by_pixel = neuron(picture.movedim(1, -1)).movedim(-1, 1)
    difference = float((convolution(picture) - by_pixel).detach().abs().max())
    return [
        ("shape", f"{tuple(picture.shape)} → {tuple(convolution(picture).shape)}: fewer channels, the same pixels"),
        ("against a linear layer on each pixel", f"largest difference {difference:.0e}"),
        ("parameters", f"1×1: {_parameters(convolution)}   3×3: {_parameters(nn.Conv2d(8, 3, 3))}"),
    ]


def video() -> Rows:
    """A 2-D convolution sees single frames and cannot tell the direction of a movement; a 3-D convolution can.

    Note 2, part 5. A bright column moves through 8×8 pictures, to the right and to the left.
    """
    right = moving_column()
    left = right.flip(0)
    still = (
        F.conv2d(right[:, None], STILL).flatten().sort().values,
        F.conv2d(left[:, None], STILL).flatten().sort().values,
    )
    moves = [float(F.conv3d(clip[None, None], MOVING).amax()) for clip in (right, left)]
    return [
        ("2-D, one frame at a time", f"the same answers for both directions: {bool(torch.equal(*still))}"),
        ("3-D, kernel over time", f"strongest answer to the right {moves[0]:.0f}, to the left {moves[1]:.0f}"),
    ]


def edge_filter() -> Rows:
    """A filter made by hand finds the edges of a square: nothing is learned.

    Note 2, section 2.1. The Sobel filter for vertical edges.
    """
    answers = F.conv2d(square()[None, None], SOBEL[None, None], padding=1)[0, 0]
    return [(f"row {y}", "  ".join(f"{value:3.0f}" for value in row)) for y, row in enumerate(answers.tolist())]


DEMONSTRATIONS: dict[str, Callable[[], Rows]] = {
    demonstration.__name__: demonstration
    for demonstration in (
        parameter_explosion,
        vanishing_gradients,
        dead_relu,
        pointwise_convolution,
        video,
        edge_filter,
    )
}

# How each activation is used: with which gain its weights are drawn, as gain · N(0, 1/width).
_ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "sigmoid": (F.sigmoid, 1.0),
    "ReLU": (F.relu, 2**0.5),
    "ReLU, unscaled": (F.relu, 1.0),
}
WIDTH = 64

SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
STILL = torch.tensor([[[[-1.0, 1], [-1, 1]]]])
MOVING = torch.tensor([[[[[1.0, 0], [1, 0]], [[0, 1], [0, 1]]]]])  # here in one frame, one further right in the next


def gradient_share(depth: int, activation: Callable[[Tensor], Tensor], gain: float) -> float:
    """|dL/dx| / |dL/dy| through `depth` layers of random weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, WIDTH, generator=generator).requires_grad_()
    y = x
    for _ in range(depth):
        y = activation(F.linear(y, torch.randn(WIDTH, WIDTH, generator=generator) * gain / WIDTH**0.5))
    grad_output = torch.randn(y.shape, generator=generator)
    (grad_input,) = torch.autograd.grad(y, x, grad_output)
    return float(grad_input.norm() / grad_output.norm())


def revival(activation: Callable[[Tensor], Tensor], steps: int = 300) -> tuple[float, float, float]:
    """First and last loss and the first gradient of the bias of a neuron that starts dead."""
    x = torch.linspace(-1, 1, 21)[:, None]
    weight, bias = torch.tensor([[0.5]], requires_grad=True), torch.tensor([-3.0], requires_grad=True)
    losses, gradients = [], []
    for _ in range(steps):
        loss = ((activation(F.linear(x, weight, bias)) - 1) ** 2).mean()
        grad_weight, grad_bias = torch.autograd.grad(loss, (weight, bias))
        with torch.no_grad():
            weight -= 0.2 * grad_weight
            bias -= 0.2 * grad_bias
        losses.append(float(loss.detach()))
        gradients.append(float(grad_bias))
    return losses[0], losses[-1], gradients[0]


def moving_column() -> Tensor:
    """Six frames (T, H, W) of a bright column that moves one pixel to the right a frame."""
    clip = torch.zeros(6, 8, 8)
    for frame in range(6):
        clip[frame, :, frame + 1] = 1
    return clip


def square() -> Tensor:
    """A bright 4×4 square on a dark 8×8 ground."""
    picture = torch.zeros(8, 8)
    picture[2:6, 2:6] = 1
    return picture


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

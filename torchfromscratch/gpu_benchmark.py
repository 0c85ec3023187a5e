"""What is measured on a GPU: training steps in each precision, eager and compiled, and layers beside the card's limits.

The roofline: a layer takes at least as long as the card needs to move its bytes, or to multiply what it multiplies. How
fast the card does either is measured too, by a copy and by products of large matrices; the layer's share of it is

    max(bytes / (bytes a second), operations / (operations a second)) / time

Source: S. Williams et al., "Roofline: an insightful visual performance model for multicore architectures", 2009.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import torchfromscratch
from torchfromscratch.benchmark import (
    FORMATS,
    HEADER_OF_CARD,
    OURS,
    THEIRS,
    Contenders,
    Result,
    Step,
    Work,
    conditions,
    measure,
    milliseconds,
    row_of_card,
    sgd_step,
    write,
)
from torchfromscratch.counting import count
from torchfromscratch.kernels.triton import IS_INSTALLED
from torchfromscratch.training.models import build_model

# How products of float32 round, and the type of a layer's tensors; what autocast computes a network in.
PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
}

TRAINING_BAR = 1.3


@dataclass(frozen=True)
class Sizes:
    """How large the work is: pictures of a training step by network; then what a layer gets, and what is copied."""

    smallvgg: int = 512
    resnet18: int = 128
    vit: int = 128
    batch: int = 512
    channels: int = 64
    side: int = 32
    tokens: int = 256
    classes: int = 1000
    copied: int = 2**28
    matrix: int = 8192


@dataclass(frozen=True)
class Card:
    """What was measured of a card: bytes a second, and by precision floating point operations a second."""

    bandwidth: float
    products: dict[str, float]


def measure_card(device: torch.device, sizes: Sizes, repeats: int = 10) -> Card:
    """A copy of float32 numbers, and products of square matrices."""
    source = torch.zeros(sizes.copied, device=device)
    target = torch.empty_like(source)
    seconds = best(lambda: target.copy_(source), device, repeats)
    bandwidth = 2 * source.numel() * source.element_size() / seconds
    products = {}
    for name, dtype in PRECISIONS.items():
        matrix = torch.randn(sizes.matrix, sizes.matrix, device=device).to(dtype)
        with precision(name):
            seconds = best(partial(torch.matmul, matrix, matrix), device, repeats)
        products[name] = 2 * sizes.matrix**3 / seconds
    return Card(bandwidth, products)


def best(step: Step, device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of some calls, after one that is not timed."""
    step()
    return min([milliseconds(step, device) for _ in range(repeats)]) / 1e3


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Convolutions and products of float32 on CUDA round to TF32 inside, or do not."""
    is_tf32, before = name == "tf32", torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    torch.set_float32_matmul_precision("high" if is_tf32 else "highest")
    try:
        with cudnn.flags(enabled=True, benchmark=cudnn.benchmark, allow_tf32=is_tf32):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def report(works: list[Work], device: torch.device, sizes: Sizes, repeats: int, seconds: float, folder: Path) -> int:
    """Measures, prints each row at once and writes all. A work that fails is told of, and the next one goes on.

    The exit code is 1 if one has failed.
    """
    described = conditions(device)
    card = measure_card(device, sizes)
    described["copies"] = f"{card.bandwidth / 1e9:.0f} GB/s"
    described["products"] = ", ".join(f"{name} {rate / 1e12:.1f} TFLOP/s" for name, rate in card.products.items())
    print("\n".join(f"{key}: {value}" for key, value in described.items()), HEADER_OF_CARD, sep="\n\n", flush=True)
    results: list[Result] = []
    has_failed = False
    for work in works:
        try:
            measured = measure_beside(card, work, device, repeats, seconds)
        except Exception as error:  # whatever it is, the other works may go well
            has_failed = True
            print(f"| {work.name} | failed: {type(error).__name__}: {' '.join(str(error).split())[:300]} |", flush=True)
            continue
        print("\n".join(map(row_of_card, measured)), flush=True)
        results += measured
    if results:
        print("\nwritten:", *write(results, described, folder))
    return int(has_failed)


def measure_beside(card: Card, work: Work, device: torch.device, repeats: int, seconds: float) -> list[Result]:
    """What a work took, with its share of what the card can do."""
    least = least_milliseconds(work, card)
    measured = measure(work, device, repeats, seconds)
    return measured if least is None else [replace(result, share=least / result.measured) for result in measured]


def gpu_works(sizes: Sizes) -> list[Work]:
    """All that is measured on a GPU."""
    return [*training_works(sizes), *layer_works(sizes)]


# ---------------- training steps


def training_works(sizes: Sizes) -> list[Work]:
    """A step of SGD in each precision: float16 by autocast, which is not counted, as meta tensors have none."""
    found = []
    for label, name, batch, bar in (
        ("SmallVGG", "smallvgg", sizes.smallvgg, TRAINING_BAR),
        ("ResNet-18", "resnet18", sizes.resnet18, TRAINING_BAR),
        ("ViT", "vit", sizes.vit, None),
    ):
        for kind in PRECISIONS:
            for format_name, is_compiled in (("contiguous", False), ("channels last", False), ("channels last", True)):
                contenders = training(name, batch, FORMATS[format_name], kind, is_compiled)
                title = f"{label}, {batch} pictures, {kind}, {format_name}{', compiled' * is_compiled}"
                of_step = work(title, contenders, kind, None if is_compiled else bar)
                found.append(replace(of_step, precision=None) if kind == "float16" else of_step)
    return found


def work(name: str, contenders: Callable[[torch.device], Contenders], kind: str, bar: float | None = None) -> Work:
    """What is measured in this precision."""
    return Work(name, contenders, bar, surroundings=lambda: precision(kind), precision=kind)


def training(
    name: str, batch: int, memory_format: torch.memory_format, kind: str, is_compiled: bool
) -> Callable[[torch.device], Contenders]:
    """The steps on pictures of 3×32². On meta tensors, where they are only counted, nothing is compiled."""

    def contenders(device: torch.device) -> Contenders:
        def build(nn: Any) -> torch.nn.Module:
            network = build_model(name, nn=nn, in_channels=3, image_size=32, classes=10)
            return compile_network(network) if is_compiled and device.type != "meta" else network

        return {
            label: in_precision(kind, device, sgd_step(build, layers, (batch, 3, 32, 32), device, memory_format))
            for label, layers in ((OURS, "scratch"), (THEIRS, "torch"))
        }

    return contenders


def compile_network(network: torch.nn.Module) -> torch.nn.Module:
    return torch.compile(network)  # type: ignore[return-value]


def in_precision(kind: str, device: torch.device, step: Step) -> Step:
    """The step, in float16 under autocast, which has nothing to do on meta tensors."""
    if kind != "float16" or device.type == "meta":
        return step

    def cast() -> None:
        with torch.autocast(device.type, torch.float16):
            step()

    return cast


# ---------------- layers


@dataclass(frozen=True)
class Layer:
    """A function of a namespace's functions and of tensors of these shapes, and whether it is products of matrices."""

    name: str
    function: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    multiplies: bool = False


def layers_of_pictures(sizes: Sizes) -> list[Layer]:
    """One or two of each family of kernels for (N, C, height, width)."""
    c = sizes.channels
    x = (sizes.batch, c, sizes.side, sizes.side)
    return [
        Layer("convolution 3×3", lambda F, x, w: F.conv2d(x, w, padding=1), (x, (c, c, 3, 3)), True),
        Layer("convolution 3×3, stride 2", lambda F, x, w: F.conv2d(x, w, None, 2, 1), (x, (2 * c, c, 3, 3)), True),
        Layer("convolution 1×1", lambda F, x, w: F.conv2d(x, w), (x, (4 * c, c, 1, 1)), True),
        Layer(
            "transposed convolution 4×4, stride 2",
            lambda F, x, w: F.conv_transpose2d(x, w, None, 2, 1),
            (x, (c, c // 2, 4, 4)),
            multiplies=True,
        ),
        Layer("depthwise convolution 3×3", lambda F, x, w: F.conv2d(x, w, padding=1, groups=c), (x, (c, 1, 3, 3))),
        Layer("ReLU", lambda F, x: F.relu(x), (x,)),
        Layer("max pooling 2×2", lambda F, x: F.max_pool2d(x, 2), (x,)),
        Layer("max pooling 3×3, stride 2", lambda F, x: F.max_pool2d(x, 3, 2, 1), (x,)),
        Layer("average pooling 2×2", lambda F, x: F.avg_pool2d(x, 2), (x,)),
        Layer("batch norm", lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True), (x, (c,), (c,))),
        Layer("group norm", lambda F, x, w, b: F.group_norm(x, 4, w, b), (x, (c,), (c,))),
    ]


def layers_of_rows(sizes: Sizes) -> list[Layer]:
    """Those for rows of features, for classes, and for heads of attention."""
    features = 8 * sizes.channels
    x, w = (sizes.batch * sizes.tokens, features), (features, features)
    heads = (sizes.batch, 8, sizes.tokens, sizes.channels)
    scores = (sizes.batch * sizes.tokens // 8, sizes.classes)

    def cross_entropy(F: Any, z: Tensor) -> Tensor:
        return F.cross_entropy(z, torch.arange(z.shape[0], device=z.device) % sizes.classes)

    return [
        Layer("linear", lambda F, x, w: F.linear(x, w), (x, w), True),
        Layer("GELU", lambda F, x: F.gelu(x), (x,)),
        Layer("layer norm", lambda F, x, w, b: F.layer_norm(x, (features,), w, b), (x, (features,), (features,))),
        Layer("softmax", lambda F, x: F.softmax(x, -1), (x,)),
        Layer("dropout", lambda F, x: F.dropout(x, 0.1, True), (x,)),
        Layer("cross-entropy", cross_entropy, (scores,)),
        Layer("attention", lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v), (heads,) * 3, True),
    ]


def layer_works(sizes: Sizes) -> list[Work]:
    """Forward and backward of each layer, of pictures channels last."""
    found = []
    both = ((layers_of_pictures, torch.channels_last), (layers_of_rows, torch.contiguous_format))
    for layers, memory_format in both:
        for layer in layers(sizes):
            for kind in PRECISIONS if layer.multiplies else ("float32", "float16"):
                for direction, of_pass in (("forward", forward), ("backward", backward)):
                    contenders = passes(layer, of_pass, PRECISIONS[kind], memory_format)
                    found.append(work(f"{layer.name}, {kind}, {direction}", contenders, kind))
    return found


def passes(
    layer: Layer, of_pass: Callable[..., Step], dtype: torch.dtype, memory_format: torch.memory_format
) -> Callable[[torch.device], Contenders]:
    """The forward or the backward pass of a layer."""

    def contenders(device: torch.device) -> Contenders:
        torch.manual_seed(0)
        inputs = [0.1 * torch.randn(shape, device=device).to(dtype) for shape in layer.shapes]
        inputs = [x.to(memory_format=memory_format) if x.dim() == 4 else x for x in inputs]
        return {
            label: of_pass(layer, functional, inputs)
            for label, functional in ((OURS, torchfromscratch.functional), (THEIRS, torch.nn.functional))
        }

    return contenders


def forward(layer: Layer, functional: Any, inputs: list[Tensor]) -> Step:
    """Without autograd."""

    def step() -> None:
        with torch.no_grad():
            layer.function(functional, *inputs)

    return step


def backward(layer: Layer, functional: Any, inputs: list[Tensor]) -> Step:
    """By all inputs, again and again of the same forward pass."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    y = layer.function(functional, *inputs)
    g = torch.ones_like(y)
    return lambda: torch.autograd.grad(y, inputs, g, retain_graph=True)


# ---------------- the roofline


def least_milliseconds(work: Work, card: Card) -> float | None:
    """What the card needs at least, counted on meta tensors; None where kernels in Triton cannot be counted."""
    if not IS_INSTALLED or work.precision is None:
        return None
    from torch.utils.flop_counter import FlopCounterMode

    with work.surroundings():
        steps = work.contenders(torch.device("meta"))
        for step in steps.values():  # the first makes the optimiser's state
            step()
        moved = min([count(step).bytes_moved for step in steps.values()])
        with FlopCounterMode(display=False) as operations:
            steps[THEIRS]()
    products = operations.get_total_flops() / card.products[work.precision]
    return 1e3 * max(moved / card.bandwidth, products)

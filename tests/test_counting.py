"""What is counted on meta tensors is what is known of an operation, and what training steps may cost at most."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as TF

from torchfromscratch.benchmark import COUNT_BARS, COUNTED, FORMATS, OURS, THEIRS, count
from torchfromscratch.counting import Count
from torchfromscratch.counting import count as count_launches
from torchfromscratch.kernels.triton import LEAST_VERSION

FLOAT = 4


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda: meta(10, 10).t().view(10, 2, 5), Count(0, 0, 400)),  # reserved and looked at
        (lambda: meta(10) + meta(10), Count(1, 120, 40)),
        (lambda: meta(10).add_(meta(10)), Count(1, 120, 40)),  # reads both, writes one
        (lambda: meta(10).copy_(meta(10)), Count(1, 80, 40)),
        (lambda: meta(10).zero_(), Count(1, 40, 40)),
        (lambda: meta(10, 1).expand(10, 5) * 2, Count(1, 40 + 200, 200)),  # what repeats itself is read once
        (lambda: torch._foreach_add_([meta(10), meta(20)], 1.0), Count(1, 240, 80)),
        (lambda: meta(3, 4) @ meta(4, 5), Count(1, FLOAT * (12 + 20 + 15), 80)),
    ],
)
def test_operations(step: Callable[[], object], expected: Count) -> None:
    assert count_launches(step) == expected


def test_torchs_backward_of_a_convolution_has_a_kernel_for_each_gradient() -> None:
    x, w = meta(2, 3, 8, 8), meta(4, 3, 3, 3)
    g = meta(2, 4, 6, 6)

    def step(*wanted: bool) -> Count:
        options = [1, 1], [0, 0], [1, 1], False, [0, 0], 1
        backward = torch.ops.aten.convolution_backward
        return count_launches(lambda: backward(g, x, w, [4], *options, list(wanted)))

    dx, dw, db = (step(True, False, False), step(False, True, False), step(False, False, True))
    assert dx.bytes_moved == FLOAT * (g.numel() + w.numel() + x.numel())
    assert dw.bytes_moved == FLOAT * (g.numel() + w.numel() + x.numel())
    assert db.bytes_moved == FLOAT * (g.numel() + 4)
    every = step(True, True, True)
    assert (every.launches, every.bytes_moved) == (3, dx.bytes_moved + dw.bytes_moved + db.bytes_moved)


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_convolution_launches_what_it_says(memory_format: str, groups: int) -> None:
    """A kernel for y with its bias, one for dL/dx, one or two for dL/dw, one for dL/db; no copy and no windows."""
    pytest.importorskip("triton", minversion=LEAST_VERSION, reason="without it there are other launches")
    from torchfromscratch import functional as F

    def step(functional: object) -> Count:
        x, w = meta(64, 8, 32, 32), meta(16, 8 // groups, 3, 3)
        x, w = (t.to(memory_format=FORMATS[memory_format]).requires_grad_() for t in (x, w))
        b, g = meta(16).requires_grad_(), meta(64, 16, 32, 32).to(memory_format=FORMATS[memory_format])
        conv2d = functional.conv2d  # type: ignore[attr-defined]
        return count_launches(lambda: torch.autograd.grad(conv2d(x, w, b, padding=1, groups=groups), (x, w, b), g))

    ours, theirs = step(F), step(TF)
    assert theirs.launches == 4
    assert ours.launches <= 5
    assert ours.bytes_moved <= 1.1 * theirs.bytes_moved  # the slices of dL/dw are written and read besides
    assert ours.largest == theirs.largest


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("label", ["SmallVGG", *[pytest.param(label, marks=pytest.mark.slow) for label in COUNTED][1:]])
def test_training_steps_cost_what_is_aimed_at(label: str, memory_format: str) -> None:
    pytest.importorskip(
        "triton",
        minversion=LEAST_VERSION,
        reason="without it, windows are written out and formulas launched term by term",
    )
    counts = count(*COUNTED[label], FORMATS[memory_format])
    ours, theirs = (counts[side] for side in (OURS, THEIRS))
    launches, bytes_moved, largest = COUNT_BARS
    assert ours.launches <= launches * theirs.launches
    assert ours.bytes_moved <= bytes_moved * theirs.bytes_moved
    assert ours.largest <= largest * theirs.largest

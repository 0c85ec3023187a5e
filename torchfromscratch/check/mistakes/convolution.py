"""How convolutions go wrong."""

from __future__ import annotations

from torchfromscratch.check.mistakes.row import Mistake, gradient
from torchfromscratch.check.truth import Truth


def axes(t: Truth) -> tuple[int, ...]:
    """The kernel's dimensions."""
    return tuple(range(2, t.weight.dim()))


ROTATED = (
    "dL/dx is the full convolution of dL/dy with the kernel turned by 180°: weight.flip over all of its dimensions but "
    "the first two, then its channels exchanged."
)

CONVOLUTION: tuple[Mistake, ...] = (
    gradient(
        "input", "The kernel is not rotated.", ROTATED, lambda t: t.gradient("input", weight=t.weight.flip(axes(t)))
    ),
)

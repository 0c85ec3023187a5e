"""What is called in Python for a work does not grow with it: nothing is done once an element, window or position."""

from __future__ import annotations

import sys
from types import FrameType, FunctionType
from typing import Any

import pytest
import torch

import torchfromscratch.functional as F
from tests.growing import GROWING, Growing
from tests.subjects import tensors_of
from torchfromscratch.kernels import blocking, gate, resampling

# A window ten times as large is made of halves four times more often, in each of two dimensions, forward and backward.
DOUBLINGS = 150


def calls(growing: Growing, n: int) -> int:
    """How many functions are called for values and gradients of n elements, in Python or from it."""
    inputs, count = growing.inputs(n), 0

    def notice(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    def run() -> None:
        outputs = [output for output in tensors_of(growing.call(F, *inputs)) if output.requires_grad]
        torch.autograd.grad(outputs, inputs, [torch.ones_like(output) for output in outputs], allow_unused=True)

    run()  # what is kept from the first time on
    sys.setprofile(notice)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("growing", GROWING, ids=lambda growing: growing.name)
def test_calls_do_not_grow(growing: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or no further: what is done for each of a few, up to a bound, has ended at a hundred times the size."""
    for module, name in (
        (blocking, "BATCH_BLOCK_BYTES"),
        (blocking, "ELEMENTWISE_BLOCK"),
        (gate, "GATE_BLOCK"),
        (resampling, "BLOCK"),
    ):
        monkeypatch.setattr(module, name, 2**40)  # blocks that fit the cache, which are as many as the work is large
    allowed = DOUBLINGS if "window of" in growing.how else 0
    small, large = calls(growing, 10**4), calls(growing, 10**5)
    if large > small + allowed:
        small, large = large, calls(growing, 10**6)
    assert large <= small + allowed


def test_every_function_is_counted() -> None:
    """But for the in-place names of others."""
    names = {name for name, value in vars(F).items() if isinstance(value, FunctionType) and name[0] != "_"}
    assert {growing.function for growing in GROWING} == {name for name in names if name[-1] != "_"}

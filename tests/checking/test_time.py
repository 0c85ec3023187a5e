"""What a check costs: processor time on one thread, with its default number of cases."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
import torch.nn.functional as F

import torchfromscratch
from tests.checking.corpus import WRONG, Wrong
from torchfromscratch.checking.layers import LAYERS

LONGEST = {"conv2d": 20.0}  # seconds
OTHERS = 5.0
# One of each family that takes long to be made small and named
WRONG_ONES = [
    found
    for found in WRONG
    if found.name
    in (
        "TransposedKernel",
        "transposed_that_repeats",
        "OverlapsOverwritten",
        "OneLessInBackward",
        "layer_norm_with_eps_outside",
        "attention_that_does_not_see_itself",
        "gru_that_resets_before_the_product",
        "cross_entropy_with_softmax_over_the_batch",
        "AThird",
        "AllOfATie",
    )
]


def seconds(function: object, like: str | None, **given: object) -> float:
    """The median of three checks."""
    times = []
    for _ in range(3):
        start = time.process_time()
        torchfromscratch.check(function, like, **given)
        times.append(time.process_time() - start)
    return statistics.median(times)


@pytest.mark.slow
# torch takes no mask for dropout, and its lstm_cell does not tell what it takes
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("dropout", "lstm_cell")])
def test_a_check_of_a_right_layer_is_done_soon(name: str) -> None:
    function = getattr(F, name, None) or getattr(torch, name)
    assert seconds(function, name) <= LONGEST.get(name, OTHERS)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG_ONES, ids=lambda wrong: wrong.name)
def test_a_check_of_a_wrong_layer_is_done_soon(wrong: Wrong) -> None:
    given = {} if wrong.inputs is None else {"inputs": wrong.inputs()}
    assert seconds(wrong.function, wrong.like, **given) <= LONGEST.get(wrong.like or "", OTHERS)

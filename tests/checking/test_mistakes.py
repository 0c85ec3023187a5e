"""The tables of mistakes: every row is a mistake, and is found."""

from __future__ import annotations

from functools import cache

import pytest
from torch import Tensor

from torchfromscratch.checking import cases, mistakes, naming
from torchfromscratch.checking.layers import LAYERS
from torchfromscratch.checking.mistakes.row import Mistake
from torchfromscratch.checking.trial import Trial, close
from torchfromscratch.checking.truth import Truth

# One of each family; those of other dimensions have the same tables
QUICK = ("relu", "linear", "softmax", "embedding", "mse_loss")
ONE_OF_EACH = [name for name in LAYERS if name[-2:] not in ("1d", "3d")]
# Rows of layers with fewer dimensions or with options that a definition shared by several layers does not have
NOT_EVERYWHERE = {
    "The dilation is forgotten.",
    "The mask is forgotten.",
    "The statistics are taken over the positions of each sample alone.",  # which is what instance norm does
    "The statistics are taken over batch and positions.",  # which is what batch norm does
    "The softmax is over the last dimension, not over the classes.",  # the same for samples without positions
}


@cache
def truths(name: str) -> list[Truth]:
    layer = LAYERS[name]
    return [layer.truth(case) for case in cases.draw_cases(cases.strategy(layer, layer.arguments, {}), 80, 0)]


def trials(name: str, row: Mistake) -> dict[str, list[Trial]]:
    """The wrong cases of each quantity, if a function makes this mistake."""
    found: dict[str, list[Trial]] = {}
    for truth in truths(name):
        for what, right in truth.right.items():
            value = naming.value(row, what, Trial(truth.case, truth, {}))
            if isinstance(value, Tensor) and not close(value, right):
                found.setdefault(what, []).append(Trial(truth.case, truth, {what: value}))
    return found


def is_flip_of_three(row: Mistake) -> bool:
    """Whether the row is of kernels with three dimensions."""
    return "depth" in row.sentence or "width and height" in row.sentence


def check_rows(name: str) -> None:
    for row in mistakes.of(name):
        wrong = trials(name, row)
        assert wrong or is_flip_of_three(row) or row.sentence in NOT_EVERYWHERE, row.sentence
        for what, found in list(wrong.items())[:2]:
            assert naming.name(what, mistakes.of(name), found[:20], []).is_exact, (row.sentence, what)


@pytest.mark.parametrize("name", QUICK)
def test_every_row_is_wrong_somewhere_and_is_named(name: str) -> None:
    check_rows(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ONE_OF_EACH if name not in QUICK])
def test_every_row_of_the_other_layers_is_wrong_somewhere_and_is_named(name: str) -> None:
    check_rows(name)


def test_rows_of_one_table_have_different_sentences() -> None:
    for name, table in mistakes.TABLES.items():
        sentences = [row.sentence for row in table if row.is_definition]
        assert len(set(sentences)) == len(sentences), name

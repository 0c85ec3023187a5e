"""CTC against the sum over all paths, and torch's own for every form of lengths and targets."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import torchfromscratch
import torchfromscratch.functional as F
from tests.subjects import assert_same_outcome, outcome


def log_probs(*shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).log_softmax(-1).requires_grad_()


def spelt(path: tuple[int, ...], blank: int) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != blank]


@pytest.mark.parametrize("target", [[], [1], [2, 2], [1, 2, 1], [1, 1, 1]], ids=str)
def test_is_the_sum_over_all_paths(target: list[int]) -> None:
    x = log_probs(4, 1, 3)
    paths = itertools.product(range(3), repeat=4)
    probability = sum(
        math.exp(sum(x[t, 0, label].item() for t, label in enumerate(path)))
        for path in paths
        if spelt(path, 0) == target
    )
    loss = F.ctc_loss(x, torch.tensor([target], dtype=torch.int64), (4,), (len(target),), reduction="sum")
    assert loss.item() == pytest.approx(-math.log(probability) if probability else math.inf)


LENGTHS = [((6, 6, 6), (3, 2, 3)), ((6, 4, 1), (3, 0, 1)), ((2, 5, 6), (3, 2, 1)), ((0, 0, 3), (0, 1, 0))]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("form", ["rows", "one after the other"])
@pytest.mark.parametrize("kind", [tuple, torch.tensor], ids=["tuple", "tensor"])
@pytest.mark.parametrize(("steps", "lengths"), LENGTHS, ids=str)
def test_equals_torchs(
    steps: tuple[int, ...], lengths: tuple[int, ...], kind: Any, form: str, zero_infinity: bool, reduction: str
) -> None:
    """Infinite losses, targets of no labels, samples of no steps, labels that repeat and paths that are unlikely."""
    rows = torch.tensor([[1, 1, 3], [3, 1, 0], [1, 0, 0]])
    targets = rows if form == "rows" else torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)])
    for scale in (1.0, 50.0):
        x = log_probs(6, 3, 4, scale=scale)
        answers = [
            outcome(
                lambda x, library=library: library.ctc_loss(
                    x, targets, kind(steps), kind(lengths), 2, reduction, zero_infinity
                ),
                [x],
            )
            for library in (F, torch.nn.functional)
        ]
        assert_same_outcome(*answers)


def test_a_class_that_never_happens_has_a_gradient_of_zero() -> None:
    # torch's is NaN: e^(−∞) − e^(−∞ + L + ∞)
    x = torch.tensor([[[0.5, 0.5, 0.0]], [[0.25, 0.75, 0.0]]], dtype=torch.float64).log().requires_grad_()
    F.ctc_loss(x, torch.tensor([[1]]), (2,), (1,)).backward()
    assert x.grad is not None
    assert (x.grad[..., 2] == 0).all()
    assert x.grad.isfinite().all()


def test_what_stands_behind_a_target_does_not_count() -> None:
    x, targets = log_probs(5, 2, 4), torch.tensor([[1, 2, 99], [3, -7, 99]])
    losses = F.ctc_loss(x, targets, (5, 5), (2, 1), reduction="none")
    torch.testing.assert_close(losses, F.ctc_loss(x, torch.tensor([1, 2, 3]), (5, 5), (2, 1), reduction="none"))


@pytest.mark.parametrize(
    ("targets", "steps", "lengths", "options"),
    [
        ([[1, 2], [2, 1]], (4,), (2, 2), {}),
        ([[1, 2], [2, 1]], (5, 4), (2, 2), {}),
        ([[1, 2], [2, 1]], (-1, 4), (2, 2), {}),
        ([[1, 2], [2, 1]], (4, 4), (3, 2), {}),
        ([[1, 2], [2, 1]], (4, 4), (-1, 2), {}),
        ([[1, 2], [2, 1]], (4, 4), (2, 2), {"blank": 3}),
        ([[1, 2], [2, 1]], (4, 4), (2, 2), {"blank": -1}),
        ([[1, 2], [2, 1]], (4, 4), (2, 2), {"reduction": "median"}),
        ([1, 2], (4, 4), (2, 2), {}),
        ([1, 2], (4, 4), (1, 0), {}),
        ([[1, 2]], (4, 4), (2, 2), {}),
    ],
    ids=str,
)
def test_raises_what_torch_raises(targets: list, steps: tuple, lengths: tuple, options: dict[str, Any]) -> None:
    given = log_probs(4, 2, 3), torch.tensor(targets), steps, lengths
    with pytest.raises((RuntimeError, ValueError)) as theirs:
        torch.nn.functional.ctc_loss(*given, **options)
    with pytest.raises(theirs.type):
        F.ctc_loss(*given, **options)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda library: library.ctc_loss(log_probs(4, 2, 3)[:0], torch.tensor([[1], [2]]), (0, 0), (1, 1)),
        lambda library: library.ctc_loss(log_probs(4, 2, 3)[0, 0], torch.tensor([1]), (1,), (1,)),
        lambda library: library.ctc_loss(torch.ones(4, 1, 3).long(), torch.tensor([[1]]), (4,), (1,)),
        lambda library: library.ctc_loss(
            log_probs(4, 1, 3), torch.tensor([[1]]), torch.tensor([4.0]), torch.tensor([1])
        ),
    ],
    ids=["no steps", "no classes", "integers", "lengths with a point"],
)
def test_raises_what_torch_raises_of_inputs(wrong: Any) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        wrong(torch.nn.functional)
    with pytest.raises(theirs.type):
        wrong(F)


def test_torchs_own_name_runs_by_hand() -> None:
    x, targets = log_probs(4, 2, 3), torch.tensor([[1, 2], [2, 1]])
    for number, reduction in enumerate(("none", "mean", "sum")):
        with torchfromscratch.audit(), torchfromscratch.from_scratch():
            loss = torch.ctc_loss(x, targets, (4, 4), (2, 2), 0, number)
        torch.testing.assert_close(loss, F.ctc_loss(x, targets, (4, 4), (2, 2), reduction=reduction))

"""PyTorch's own samples: a few of every operator here, all of them behind the slow marker."""

from __future__ import annotations

import pytest
import torch

from torchfromscratch.conformance import Operator, Sample, as_markdown, conformance, operators

QUICK = 6  # samples of an operator


@pytest.mark.parametrize("operator", operators(), ids=lambda operator: operator.name)
def test_first_samples(operator: Operator) -> None:
    (row,) = conformance([operator], ["values", "gradients", "errors"], limit=QUICK)
    assert not row.failures, row.failures
    assert row.full


@pytest.mark.slow
@pytest.mark.parametrize("operator", operators(), ids=lambda operator: operator.name)
def test_all_samples(operator: Operator) -> None:
    (row,) = conformance([operator])
    assert not row.failures, row.failures
    assert row.full


def off_by_a_little(x: torch.Tensor) -> torch.Tensor:
    return x * x * (1 + 1e-9)


def with_a_wrong_gradient(x: torch.Tensor) -> torch.Tensor:
    return x * x.detach()


def refusing(x: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError("not today")


@pytest.mark.parametrize(
    ("function", "failing"),
    [
        (off_by_a_little, {"values", "gradients", "second", "forward"}),
        (with_a_wrong_gradient, {"gradients", "second", "forward"}),
        (refusing, {"values", "gradients", "second", "forward"}),
        (lambda x: x * x, set()),
    ],
)
def test_table_tells_what_differs(function: object, failing: set[str]) -> None:
    """A wrong value, a wrong derivative and a refusal each fail their columns and no other."""
    x = torch.linspace(-1, 1, 5, dtype=torch.float64, requires_grad=True)
    sample = Sample(lambda tree: function(*tree[0]), lambda tree: tree[0][0] * tree[0][0], ((x,), {}))
    (row,) = conformance([Operator("square", lambda: [sample], list)])
    assert {column for column in row.total if row.passed[column] < row.total[column]} == failing
    assert ("Differing\n\nNone." in as_markdown([row])) == (not failing)


def test_table_tells_of_other_errors() -> None:
    """Where torch raises, an answer and an exception of another type both fail."""

    def torchs(_: object) -> None:
        raise ValueError

    for answer, passed in ((refusing, 0), (lambda x: x, 0), (lambda x: torchs(x), 1)):
        sample = Sample(lambda tree, answer=answer: answer(*tree[0]), torchs, ((torch.ones(()),), {}))
        (row,) = conformance([Operator("square", list, lambda sample=sample: [sample])])
        assert (row.passed["errors"], row.total["errors"]) == (passed, 1)

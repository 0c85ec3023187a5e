"""PyTorch's own samples: a few of every operator here, all of them behind the slow marker."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest
import torch

from tests import lacks
from torchfromscratch.conformance import (
    COLUMNS,
    WRONG_IN_TORCH,
    Errors,
    Operator,
    Sample,
    accuracy,
    accuracy_as_markdown,
    as_markdown,
    conformance,
    operators,
)

DOCS = Path(__file__).parents[1] / "docs"
QUICK = 6  # samples of an operator


@pytest.mark.parametrize("operator", operators(), ids=lambda operator: operator.name)
def test_first_samples(operator: Operator) -> None:
    reason = lacks.batch_norm_in_evaluation_with_eps_0() if operator.name.startswith("nn.BatchNorm") else ""
    (row,) = conformance([operator], ["values", "gradients", *["errors"] * (not reason)], limit=QUICK)
    assert not row.failures, row.failures
    assert row.full
    if reason:
        pytest.skip(reason)


def test_what_is_left_out_since_torch_is_wrong_is_named_as_torch_names_it() -> None:
    if not hasattr(torch.nn.functional, "linear_cross_entropy"):
        pytest.skip("this torch has no linear_cross_entropy")
    assert {name for name, _ in WRONG_IN_TORCH} <= {operator.name for operator in operators()}
    assert {column for _, column in WRONG_IN_TORCH} <= COLUMNS.keys()


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


def test_accuracy_is_a_multiple_of_torchs_error() -> None:
    """An error twice as large, the same one, and none that chance could be blamed for."""
    x = torch.linspace(0.1, 1, 5, dtype=torch.float64, requires_grad=True)

    def cube(x: torch.Tensor, *, off: float = 0.0) -> torch.Tensor:
        return x * x * x * (1 if x.dtype == torch.float64 else 1 + off)

    def rows(ours: Callable[..., torch.Tensor], theirs: Callable[..., torch.Tensor]) -> list[Errors]:
        sample = Sample(lambda tree: ours(*tree[0]), lambda tree: theirs(*tree[0]), ((x,), {}))
        return accuracy([Operator("cube", lambda: [sample], list)])

    (row,) = rows(partial(cube, off=0.2), partial(cube, off=0.1))
    assert row.ratio(torch.float32, "values") == pytest.approx(2, rel=1e-3)
    assert row.ratio(torch.float16, "gradients") == pytest.approx(2, rel=0.1)
    (row,) = rows(cube, cube)
    assert row.ratio(torch.bfloat16, "values") == 1
    assert accuracy_as_markdown([row]).count("| 1.00 ") == 2 * 6
    (row,) = rows(lambda x: x * torch.rand(5), lambda x: x * torch.rand(5))
    assert row.ratio(torch.float32, "values") is None


def test_accuracy_tells_of_overflow_unless_torch_overflows() -> None:
    def overflow(x: torch.Tensor) -> torch.Tensor:
        return x if x.dtype == torch.float64 else x / 0

    def ratio(ours: Callable[..., torch.Tensor], theirs: Callable[..., torch.Tensor]) -> float | None:
        sample = Sample(lambda tree: ours(*tree[0]), lambda tree: theirs(*tree[0]), ((torch.full((1,), 0.1),), {}))
        (row,) = accuracy([Operator("x", lambda: [sample], list)])
        return row.ratio(torch.float16, "values")

    assert ratio(overflow, lambda x: x * x) == float("inf")
    assert ratio(lambda x: x * x, overflow) is None


@pytest.mark.parametrize("document", ["conformance", "accuracy"])
def test_the_document_has_every_operator_and_none_differs(document: str) -> None:
    text = (DOCS / f"{document}.md").read_text(encoding="utf-8")
    if f"Measured with torch {metadata.version('torch')}," not in text:
        pytest.skip("the installed torch has other samples than the one of the table")
    _, *rows, _ = re.findall(r"^\| (?!---)(.*?) \|", text, re.MULTILINE)  # between the head and the sums
    assert rows == [operator.name for operator in operators()]
    assert document == "accuracy" or "\n## Differing\n\nNone.\n" in text

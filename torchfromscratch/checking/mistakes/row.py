"""What a row of a table of mistakes is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchfromscratch.checking.truth import Truth, name_outputs


class NotApplicableError(ValueError):
    """A row says nothing of this case."""


@dataclass(frozen=True)
class Mistake:
    """A wrong formula: what it is called, what is right instead, and what it computes.

    `compute(truth, what)` is the wrong value of the quantity `what`, as "output" or "input.grad"; None where the row
    says nothing of it. `is_definition`: it says what the outputs are, and takes the gradients of those.
    """

    sentence: str
    explanation: str
    compute: Callable[[Truth, str], Tensor | None]
    is_definition: bool = False


def forward(sentence: str, explanation: str, output: Callable[[Truth], Any]) -> Mistake:
    """Another definition of the layer, whose gradients autograd takes: a row for outputs and gradients."""

    def compute(truth: Truth, what: str) -> Tensor | None:
        if output not in truth.definitions:
            truth.definitions[output] = answers(truth)
        return truth.definitions[output].get(what)

    def answers(truth: Truth) -> dict[str, Tensor]:
        found = output(truth)
        outputs = found if isinstance(found, tuple) else (found,)
        if any(y.shape != g.shape for y, g in zip(outputs, truth.gs, strict=True)):
            return name_outputs(outputs)
        return {**name_outputs(outputs), **truth.gradients(outputs)}

    return Mistake(sentence, explanation, compute, is_definition=True)


def gradient(name: str, sentence: str, explanation: str, value: Callable[[Truth], Tensor]) -> Mistake:
    """A wrong dL/d `name`."""
    return Mistake(sentence, explanation, lambda truth, what: value(truth) if what == f"{name}.grad" else None)


def not_applicable() -> Tensor:
    """Says nothing, where an expression is due."""
    raise NotApplicableError


def square(x: Tensor) -> Tensor:
    """A matrix that has as many rows as columns: its transpose fits in its place."""
    if x.dim() < 2 or x.shape[-1] != x.shape[-2]:
        raise NotApplicableError
    return x


def exchange(option: int | Sequence[int]) -> tuple[int, ...]:
    """An option of height and width the other way round."""
    if isinstance(option, int) or len(option) < 2:
        raise NotApplicableError
    return tuple(reversed(option))

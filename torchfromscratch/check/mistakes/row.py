"""What a row of a table of mistakes is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchfromscratch.check.truth import Truth, name_outputs


@dataclass(frozen=True)
class Mistake:
    """A wrong formula: what it is called, what is right instead, and what it computes for the quantities it touches."""

    sentence: str
    explanation: str
    compute: Callable[[Truth], dict[str, Tensor]]
    touches: str = ""

    def of(self, what: str, truth: Truth) -> Tensor | None:
        """The wrong value of this quantity; None where the row says nothing of it."""
        if self.touches and self.touches != what:
            return None
        return self.compute(truth).get(what)


def forward(sentence: str, explanation: str, output: Callable[[Truth], Any]) -> Mistake:
    """Another definition of the layer, whose gradients autograd takes: a row for outputs and gradients."""

    def compute(truth: Truth) -> dict[str, Tensor]:
        found = output(truth)
        outputs = found if isinstance(found, tuple) else (found,)
        gradients = (
            truth.gradients(outputs) if all(_fits(*pair) for pair in zip(outputs, truth.gs, strict=True)) else {}
        )
        return {**name_outputs(outputs), **gradients}

    return Mistake(sentence, explanation, compute)


def gradient(name: str, sentence: str, explanation: str, value: Callable[[Truth], Tensor]) -> Mistake:
    """A wrong dL/d `name`."""
    return Mistake(sentence, explanation, lambda truth: {f"{name}.grad": value(truth)}, f"{name}.grad")


def _fits(output: Tensor, g: Tensor) -> bool:
    return output.shape == g.shape

"""`check`: an implementation beside the formula, case by case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.check import layers, mistakes
from torchfromscratch.check.case import Case
from torchfromscratch.check.program import describe, program
from torchfromscratch.check.report import Finding, Report
from torchfromscratch.check.subject import Subject, subject
from torchfromscratch.check.truth import Truth, confirm, name_outputs

TOLERANCE = 1e-8  # of the largest element, in float64: sums of a few thousand products err by 1e-12
SHRINKS = 400  # evaluations spent on making a wrong case smaller


@dataclass
class Trial:
    """One case: the right answers and what the function gave, or why it refused."""

    case: Case
    truth: Truth
    given: Mapping[str, Any]
    refusal: str = ""

    def is_wrong(self, what: str) -> bool:
        """Whether this quantity was given and is wrong."""
        return what in self.given and not close(self.given[what], self.truth.right[what])


def close(yours: Any, right: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether two tensors are equal to rounding."""
    if not isinstance(yours, Tensor) or yours.shape != right.shape:
        return False
    if not right.numel():
        return True
    yours, right = yours.detach(), right.detach()
    finite = right.isfinite()
    if not torch.equal(yours.isfinite(), finite):
        return False
    scale = max(1.0, float(right[finite].abs().max())) if finite.any() else 1.0
    return bool(((yours.double() - right)[finite].abs() <= tolerance * scale).all())


def check(
    function: Callable[..., Any],
    like: Any,
    *,
    options: Mapping[str, Any] | None = None,
    double: bool = True,
    cases: int = 200,
    seed: int = 0,
) -> Report:
    """Compare a function with a layer's formula, and name what it does wrong."""
    try:
        from torchfromscratch.check.cases import drawn, smallest, strategy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'check draws its cases with hypothesis: pip install "torchfromscratch[check]"'
        ) from error
    layer = layers.find(like)
    checked = subject(function, layer)
    source = strategy(layer, checked.takes, dict(options or {}))
    trials = [attempt(checked, layer, case) for case in drawn(source, cases, seed)]
    for trial in trials:
        confirm(trial.truth)
    answered = [trial for trial in trials if not trial.refusal]
    if not answered:
        raise layers.CannotCheckError(f"{checked.name} refuses every case of {layer.name}: {trials[0].refusal}")
    right, findings = [], []
    for what in answered[0].truth.right:
        wrong = [trial for trial in answered if trial.is_wrong(what)]
        if not wrong:
            right.append(what)
            continue
        found = smallest(source, cases, seed, _remembering(checked, layer, what))
        least = attempt(checked, layer, found) if found else min(wrong, key=lambda trial: trial.case.size())
        findings.append(_finding(checked, layer, what, wrong, answered, least))
    title = f"{layer.name}, as {checked.name}({', '.join(checked.takes)})"
    return Report(title, len(answered), right, findings, _notes(checked, layer, trials))


def attempt(checked: Subject, layer: layers.Layer, case: Case) -> Trial:
    """Both answers in one case."""
    truth = Truth(layer, case)
    leaves = {name: x.detach().requires_grad_() for name, x in case.tensors.items()}
    called = Case({**case.arguments, **leaves}, case.cotangent)
    try:
        output = checked(called)
        outputs = output if isinstance(output, tuple) else (output,)
        given = dict(name_outputs(outputs))
        if all(
            isinstance(y, Tensor) and y.shape == right.shape for y, right in zip(outputs, truth.outputs, strict=True)
        ):
            gs = case.cotangents(truth.outputs)
            found = torch.autograd.grad(outputs, [*leaves.values()], gs, allow_unused=True)
            given |= {f"{name}.grad": gradient for name, gradient in zip(leaves, found, strict=True)}
    except Exception as error:
        return Trial(case, truth, {}, f"{type(error).__name__}: {error}")
    return Trial(case, truth, given)


def _remembering(checked: Subject, layer: layers.Layer, what: str) -> Callable[[Case], bool]:
    """Whether a case is wrong; after many wrong ones, only those that were already seen to be."""
    seen: dict[str, bool] = {}

    def is_wrong(case: Case) -> bool:
        key = describe(case) + program(case, checked, layer)
        if key not in seen:
            seen[key] = sum(seen.values()) < SHRINKS and attempt(checked, layer, case).is_wrong(what)
        return seen[key]

    return is_wrong


def _finding(
    checked: Subject, layer: layers.Layer, what: str, wrong: Sequence[Trial], answered: Sequence[Trial], least: Trial
) -> Finding:
    row = _row(layer, what, [*wrong, least])
    return Finding(
        what=what,
        mistake=row.sentence if row else None,
        explanation=row.explanation if row else "",
        case=describe(least.case),
        program=program(least.case, checked, layer),
        yours=least.given[what],
        right=least.truth.right[what],
        wrong_cases=len(wrong),
        cases=len(answered),
    )


def _row(layer: layers.Layer, what: str, wrong: Sequence[Trial]) -> Any:
    """The first row of the layer's table that gives what was given in every wrong case."""
    for row in mistakes.of(layer.name):
        if all(_gives(row, what, trial) for trial in wrong):
            return row
    return None


def _gives(row: Any, what: str, trial: Trial) -> bool:
    try:
        value = row.of(what, trial.truth)
    except (RuntimeError, ValueError, IndexError, AttributeError):  # the row has no meaning for these shapes
        return False
    return value is not None and close(trial.given[what], value)


def _notes(checked: Subject, layer: layers.Layer, trials: Sequence[Trial]) -> list[str]:
    left_out = [name for name in layer.arguments if name not in checked.takes]
    notes = [f"not taken, so not checked: {', '.join(left_out)}"] if left_out else []
    refusals = dict.fromkeys(trial.refusal.splitlines()[0][:200] for trial in trials if trial.refusal)
    refused = sum(bool(trial.refusal) for trial in trials)
    if refused:
        notes.append(f"not supported in {refused} cases: {'; '.join([*refusals][:3])}")
    return notes

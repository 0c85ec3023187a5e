"""What a function of somebody's own gives, beside what is right and where that comes from."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial, update_wrapper
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.checking import modules
from torchfromscratch.checking.case import Case, Numbers
from torchfromscratch.checking.checks import Check, CheckOfInputs, CheckOfLayer
from torchfromscratch.checking.differences import STEP, Unknown
from torchfromscratch.checking.program import describe
from torchfromscratch.checking.subject import as_function
from torchfromscratch.checking.trial import Trial, close_elements
from torchfromscratch.checking.truth import name_outputs
from torchfromscratch.explaining.arguments import (
    EXPLAINED,
    CannotExplainError,
    Gradient,
    build,
    has_numbers,
    held_by,
    in_double,
)
from torchfromscratch.explaining.explanation import Explanation, Grid, Pass, Step, number

CASES = 200  # drawn to check a function
SHOWN = 40  # elements of the inputs of a case that is chosen to be shown


def compare(
    function: Any, like: Any, inputs: Sequence[Any] | None, options: dict[str, Any], gradient: Gradient
) -> Explanation:
    """What a function gives beside what is right: by the layer that it should be, or by finite differences."""
    if like is not None:
        checker: Check = CheckOfLayer(function, like, options, True, CASES, gradient.seed)
        report = checker.report()
        held = held_by(function, checker.layer.name) if isinstance(function, torch.nn.Module) else {}
        held |= modules.options(like) | options
        case = _shown_case(checker) if inputs is None else _case_of(checker, inputs, held, gradient)
    elif inputs is not None:
        checker = CheckOfInputs(_in_double(function, options), inputs, True)
        report = checker.report()
        case = _GivenCase(checker.inputs, Numbers(), gradient=gradient)
    else:
        raise CannotExplainError("say what it is called with, explain(function, (x, w)), or which layer it should be")
    trial = checker.attempt(case)
    failed = f"{checker.subject.name} fails here: {trial.refusal}\n" if trial.refusal else ""
    return replace(_right(checker, trial), verdict=f"{failed}{report}")


def _in_double(function: Any, options: dict[str, Any]) -> Any:
    """The function with its options; a module as a copy whose parameters are float64, as the inputs will be."""
    if isinstance(function, torch.nn.Module):
        return deepcopy(function).double()
    return update_wrapper(partial(as_function(function), **options), function) if options else function


@dataclass(frozen=True, eq=False)
class _GivenCase(Case):
    """A case at the user's inputs, with the user's dL/dy."""

    gradient: Gradient = field(kw_only=True)

    def cotangents(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        return [self.gradient(output.shape) for output in outputs]


def _case_of(checker: Check, inputs: Sequence[Any], held: dict[str, Any], gradient: Gradient) -> Case:
    """The arguments of the layer that these inputs are to the function, and those that it holds."""
    layer = checker.layer
    takes = [name for name in checker.subject.takes if name not in held]
    if len(inputs) > len(takes):
        raise CannotExplainError(f"{checker.subject.name} takes {', '.join(takes)}, and {len(inputs)} were given")
    given = held | dict(zip(takes, inputs, strict=False))
    arguments = {name: in_double(value) for name, value in given.items() if name in layer.arguments}
    if layer.name == "batch_norm" and "running_mean" not in checker.subject.takes:
        arguments |= {"running_mean": None, "running_var": None, "training": True}
    if layer.name == "layer_norm":
        arguments.setdefault("normalized_shape", tuple(arguments["input"].shape[-1:]))
    missing = [name for name in layer.arguments if name not in layer.defaults and name not in arguments]
    if missing:
        raise CannotExplainError(f"{layer.name} takes {', '.join(layer.arguments)}: {', '.join(missing)} was not given")
    ordered = {name: {**layer.defaults, **arguments}[name] for name in layer.arguments}
    return _GivenCase(ordered, Numbers(), layer.constants, gradient=gradient)


def _shown_case(checker: Check) -> Case:
    """The smallest case with numbers that shows what is wrong; if none does, the largest that is read at a glance."""
    wrong = [trial.case for trial in checker.least if has_numbers(trial.case.arguments)]
    if wrong:
        return wrong[0]
    answered = [trial.case for trial in checker.answered if has_numbers(trial.case.arguments)]
    return max(answered, key=lambda case: (case.size() <= SHOWN, case.size() if case.size() <= SHOWN else -case.size()))


def _right(checker: Check, trial: Trial) -> Explanation:
    """What is right in one case, where it comes from, and beside it what was given."""
    name, arguments = checker.layer.name, trial.case.arguments
    explained = EXPLAINED.get(name)
    explanation = None
    if explained is not None and explained.symbols:
        explanation = build(name, arguments, lambda shape: trial.truth.g.view(shape))
    names = explained.names() if explanation is not None and explained is not None else {}
    if explanation is None:
        explanation = _by_formula(checker, trial)
        names = {what: _symbol(what) for what in trial.truth.right}
    grids = {symbol: replace(grid, torch=None) for symbol, grid in explanation.grids.items()}
    for what, symbol in names.items():
        yours = trial.given.get(what)
        if symbol in grids and isinstance(yours, Tensor) and yours.shape == trial.truth.right[what].shape:
            yours = yours.detach().double().view(grids[symbol].values.shape)
            grids[symbol] = replace(grids[symbol], given=yours, wrong=_wrong(trial, what, yours))
    return replace(explanation, grids=grids)


def _wrong(trial: Trial, what: str, yours: Tensor) -> Tensor:
    """Which cells are wrong."""
    right = trial.truth.right[what].view(yours.shape)
    accepted = close_elements(yours, right, trial.tolerance)
    if what.endswith(".grad"):
        accepted |= trial.truth.accepts(what, yours.view(trial.truth.right[what].shape)).view(yours.shape)
    return ~accepted


def _by_formula(checker: Check, trial: Trial) -> Explanation:
    """An explanation of a layer that has none of its own: its formula's numbers, or those of finite differences."""
    truth, case = trial.truth, trial.case
    tensors = {name: x for name, x in case.arguments.items() if isinstance(x, Tensor) and name in checker.subject.takes}
    incoming = {f"dL/d {name}": g for name, g in zip(name_outputs(truth.outputs), truth.gs, strict=True)}
    right = {_symbol(what): value.detach() for what, value in truth.right.items()}
    if isinstance(checker.layer, Unknown):  # its own output is taken for right
        source, right = (
            "by finite differences of its own values",
            {n: x for n, x in right.items() if n.startswith("dL")},
        )
    else:
        source = f"by {checker.layer.name}'s formula"
    passes = []
    for result, values in right.items():
        operands = (*tensors, *incoming) if result.startswith("dL") else (*tensors,)
        moved = result.removeprefix("dL/d ")
        steps = [
            Step(cell, {moved: [cell]} if moved in tensors else {}, [(_describe(checker, value), None)])
            for cell, value in enumerate(values.flatten().tolist())
        ]
        passes.append(Pass(result, f"{result}, {source}", _formula(checker, moved), operands, steps))
    grids = {name: Grid(x.detach()) for name, x in {**tensors, **incoming, **right}.items()}
    return Explanation(
        checker.subject.name, describe(case, checker.subject.takes), (*tensors, *incoming), grids, passes
    )


def _symbol(what: str) -> str:
    return f"dL/d {what.removesuffix('.grad')}" if what.endswith(".grad") else what


def _describe(checker: Check, value: float) -> str:
    """How a number came about."""
    if isinstance(checker.layer, Unknown):
        return f"{number(value * STEP)} / {number(STEP)}"
    return f"{checker.layer.name}'s formula"


def _formula(checker: Check, moved: str) -> str:
    if not isinstance(checker.layer, Unknown):
        return ""
    return f"dL/d {moved} = ΔL / Δ{moved}: how far L = Σ dL/dy · y moves, by how far one number moves, to both sides"

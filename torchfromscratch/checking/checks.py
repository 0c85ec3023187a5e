"""`check`: an implementation beside the formula, case by case."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.checking import layers, mistakes, modules
from torchfromscratch.checking.case import LAYOUTS, STYLES, Case, Numbers, roll, to_layout
from torchfromscratch.checking.conduct import Fault, faults
from torchfromscratch.checking.differences import Unknown
from torchfromscratch.checking.layers import CannotCheckError, Layer
from torchfromscratch.checking.mistakes.row import Mistake
from torchfromscratch.checking.naming import Name, name
from torchfromscratch.checking.program import describe, program
from torchfromscratch.checking.report import Finding, Report
from torchfromscratch.checking.subject import Subject, as_function, input_names, name_of, subject
from torchfromscratch.checking.trial import (
    SECOND,
    SINGLE_TOLERANCE,
    Second,
    Trial,
    attempt,
    contiguous,
    follows_output,
    second,
    second_by_differences,
)
from torchfromscratch.checking.truth import confirm

SHRINKS = 250  # evaluations spent on making a wrong case smaller
SECONDS = 40  # cases in which second derivatives are compared
MISSING = 'check draws its cases with hypothesis: pip install "torchfromscratch[check]"'


def check(
    function: Callable[..., Any],
    like: Any = None,
    *,
    inputs: Sequence[Any] | None = None,
    options: Mapping[str, Any] | None = None,
    double: bool = True,
    cases: int = 200,
    seed: int = 0,
) -> Report:
    """Compare a function with a layer's formula, and name what it does wrong.

    `function` is anything that takes torch.nn.functional's arguments by position: `Function.apply`, a function, a
    module or its class. `like` says which layer it should be: a name as "conv2d", a function of torch.nn.functional
    or a module. Arguments that it does not take are left out; `options` fixes some of the others, as
    `{"stride": 2}`. `double`: second derivatives, too.

    Up to `cases` cases are drawn by hypothesis, the same for the same seed. Right is what the layer's definition
    gives in float64, by plain operations under autograd, confirmed by finite differences.

    Without `like`, `inputs` are what the function is called with, and right is what finite differences of its own
    values give: `check(function, inputs=(x, w))`.

    Raises CannotCheckError if there is no such layer, if every case is refused, and without hypothesis.
    """
    if like is None:
        if inputs is None:
            raise CannotCheckError(
                'say what it should be: check(function, "conv2d"), or check(function, inputs=(x, w))'
            )
        return CheckOfInputs(function, inputs, double).report()
    if inputs is not None:
        raise CannotCheckError("give like or inputs: cases of a known layer are drawn")
    return CheckOfLayer(function, like, dict(options or {}), double, cases, seed).report()


class Check:
    """One check, from its cases to its report."""

    layer: Layer | Unknown
    subject: Subject
    dtype = torch.float64

    def __init__(self, double: bool) -> None:
        self.double = double
        self.least: list[Trial] = []
        self.notes: list[str] = []

    def cases(self) -> list[Case]:
        """What it is tried on."""
        raise NotImplementedError

    def confirm(self) -> None:
        """Raise if what is taken for right is not."""

    def attempt(self, case: Case) -> Trial:
        """One case."""
        return attempt(self.subject, self.layer, case, self.dtype)

    def table(self) -> Sequence[Mistake]:
        """The mistakes that are known of the layer."""
        return ()

    def faults(self) -> list[Fault]:
        """What is wrong with it as a Function."""
        return faults(self.subject, self.layer, self.trials, self.attempt)

    def find_second(self, case: Case) -> Second:
        """Second derivatives beside the right ones."""
        raise NotImplementedError

    def find_smallest(self, what: str, wrong: Sequence[Trial]) -> Case | None:
        """A smaller wrong case than the wrong ones."""
        return None

    def report(self) -> Report:
        """Everything that was found."""
        drawn = self.cases()
        self.trials = [self.attempt(case) for case in drawn]
        self.confirm()
        self.answered = [trial for trial in self.trials if not trial.refusal]
        self.found_faults = self.faults()
        if not self.answered and not self.found_faults:
            refusal = Counter(trial.refusal.splitlines()[0] for trial in self.trials).most_common(1)[0][0]
            raise CannotCheckError(f"{self.subject.name} refuses every case of {self.layer.name}: {refusal}")
        findings = [finding for what in self._quantities() for finding in self._compare(what)]
        right = [what for what in self._quantities() if what not in {finding.what for finding in findings}]
        if self.double and self.answered and not findings and self.dtype == torch.float64:
            seconds = self._compare_second()
            findings += seconds
            right += [SECOND] * (not seconds and self.has_second)
        findings += [
            Finding(fault.what, fault.sentence, fault.explanation, *self._describe_arguments(fault.case))
            for fault in self.found_faults
            if not fault.advice and (fault.what, fault.sentence) not in {(f.what, f.mistake) for f in findings}
        ]
        advice = [f"{fault.sentence} {fault.explanation}" for fault in self.found_faults if fault.advice]
        return Report(
            title=f"{self.layer.name}, as {self.subject.name}({', '.join(self.subject.takes)})",
            cases=len(self.answered),
            right=right,
            findings=findings,
            notes=[*self._omissions(), *self._refusals(), *dict.fromkeys(self.notes)],
            advice=advice,
            see=self._see(),
        )

    def _see(self) -> str:
        """Where to read on."""
        from torchfromscratch.explaining.command import LAYERS as EXPLAINED

        why = f'Why: docs/derivations.en.md, "{self.layer.derivation}".' if self.layer.derivation else ""
        return f"{why} See it: torchfromscratch explain {self.layer.name}" if self.layer.name in EXPLAINED else why

    def _quantities(self) -> list[str]:
        """Outputs, and then the gradients in the order of the arguments."""
        found = {what: None for trial in self.answered for what in trial.truth.right}
        order = [f"{argument}.grad" for argument in self.layer.arguments]
        return sorted(found, key=lambda what: order.index(what) if what in order else -1)

    def _compare(self, what: str) -> list[Finding]:
        """What is wrong with one quantity, if anything."""
        wrong = [trial for trial in self.answered if trial.is_wrong(what)]
        if not wrong:
            return []
        if all(self._is_single(trial, what) for trial in wrong):
            return self._single(what, wrong)
        if any(self._is_single(trial, what) for trial in wrong):
            wrong = self._in_single(what)
        least = self._smallest(what, wrong)
        found = self._arrangement(what, wrong) or self._name(what, wrong, least)
        evidence = f" In all {len(wrong)} cases yours is what that gives." if found.is_exact else ""
        return [self._finding(what, Name(found.sentence, f"{found.explanation}{evidence}".strip()), least, len(wrong))]

    def _name(self, what: str, wrong: Sequence[Trial], least: Trial) -> Name:
        """The mistake: one that gives these numbers, exactly or as precisely as float32, or what else is wrong."""
        found = self._from_table(what, wrong, least)
        if not found.is_exact and isinstance(self.layer, Layer) and wrong[0].tolerance < SINGLE_TOLERANCE:
            gross = self._in_single(what)
            coarse = self._from_table(what, gross, least) if gross else found
            found = coarse if coarse.is_exact else found
        if found.sentence is not None:
            return found
        kinds = (what, "repeatability", "state")
        told = [fault for fault in self.found_faults if fault.what in kinds and not fault.advice]
        if told:
            return Name(told[0].sentence, told[0].explanation)
        if what.endswith(".grad") and self._follows_output(wrong):
            return Name("Only forward is wrong: this is the gradient of the output as it was computed.")
        return found

    def _follows_output(self, wrong: Sequence[Trial]) -> bool:
        """Whether the output is wrong, and the gradients belong to it."""
        output_is_wrong = any(trial.is_wrong(what) for trial in wrong for what in trial.given if "output" in what)
        return output_is_wrong and all(follows_output(self.subject, trial) for trial in wrong[:8])

    def _finding(self, what: str, found: Name, least: Trial, wrong_cases: int) -> Finding:
        return Finding(
            what=what,
            mistake=found.sentence,
            explanation=found.explanation,
            case=describe(least.case, self.subject.takes),
            program=program(least.case, self.subject, self.layer),
            yours=least.given[what],
            right=least.truth.right[what],
            wrong_cases=wrong_cases,
            cases=len(self.answered),
        )

    def _from_table(self, what: str, wrong: Sequence[Trial], least: Trial) -> Name:
        """The mistake that gives these numbers."""
        least.tolerance = wrong[0].tolerance
        right = [trial for trial in self.answered if not trial.is_wrong(what) and what in trial.given]
        return name(what, self.table(), [*wrong, least], right)

    def _in_single(self, what: str) -> list[Trial]:
        """What is wrong beyond the errors of float32."""
        for trial in self.answered:
            trial.tolerance = max(trial.tolerance, SINGLE_TOLERANCE)
        return [trial for trial in self.answered if trial.is_wrong(what)]

    def _single(self, what: str, wrong: Sequence[Trial]) -> list[Finding]:
        """Errors of float32: no mistake, but where the output has none."""
        outputs = [other for other in wrong[0].given if other.startswith("output")]
        if what in outputs or any(trial.is_wrong(other) for trial in self.answered for other in outputs):
            self.notes.append("computed in float32: the errors are float32's, not a mistake's")
            return []
        rounded = Name(
            "The gradient is rounded to float32, though the output is not.",
            "A gradient has the dtype of what it is taken by; torch casts it, and digits are lost.",
        )
        return [self._finding(what, rounded, min(wrong, key=lambda trial: trial.case.size()), len(wrong))]

    def _is_single(self, trial: Trial, what: str) -> bool:
        return isinstance(self.layer, Layer) and trial.is_rounding(what)

    def _arrangement(self, what: str, wrong: Sequence[Trial]) -> Name | None:
        """Whether everything is right once the same numbers lie contiguously."""
        for trial in wrong[:12]:
            if self.attempt(contiguous(trial.case)).is_wrong(what):
                return None
        return Name(
            "It is wrong only where a tensor does not lie contiguously.",
            "The same numbers, contiguous, give the right answer: strides are ignored somewhere.",
        )

    def _smallest(self, what: str, wrong: Sequence[Trial]) -> Trial:
        """The smallest wrong case: one that showed something else already, or as small as hypothesis makes it."""
        for trial in self.least:
            if trial.is_wrong(what):
                return trial
        found = self.find_smallest(what, wrong)
        least = self.attempt(found) if found is not None else wrong[0]
        least.tolerance = wrong[0].tolerance
        if not least.is_wrong(what):  # it is not wrong each time
            least = min(wrong, key=lambda trial: trial.case.size())
        self.least.append(least)
        return least

    def _compare_second(self) -> list[Finding]:
        """What is wrong with second derivatives."""
        self.has_second = False
        compared: list[tuple[Trial, Second]] = []
        refusals: list[tuple[Trial, Second]] = []
        for trial in self.answered[:: max(1, len(self.answered) // SECONDS)][:SECONDS]:
            found = self.find_second(trial.case)
            (refusals if found.refusal else compared).append((trial, found))
        if refusals:
            self.notes.append(
                f"no second derivatives in {len(refusals)} of {len(compared) + len(refusals)} cases: "
                f"{refusals[0][1].refusal.splitlines()[0]}"
            )
        tolerance = (
            SINGLE_TOLERANCE if any("float32" in note for note in self.notes) else 10 * self.answered[0].tolerance
        )
        wrong = [(trial, found) for trial, found in compared if found.wrong(tolerance)]
        self.has_second = bool(compared)
        if not wrong:
            return []
        trial, found = min(wrong, key=lambda pair: pair[0].case.size())
        source = found.wrong(tolerance)[0]
        is_zero = all(not found.given[source].any() for _, found in wrong for source in found.wrong(tolerance))
        if is_zero:
            sentence = "It is silently zero."
            explanation = (
                "backward computes on tensors without a graph, as .detach(), .data, no_grad and NumPy leave them, as "
                "forward computes them on its way, or as ctx keeps them. Compute on saved inputs and outputs and on "
                "dL/dy, or mark backward with @once_differentiable, which refuses what is not there."
            )
        else:
            sentence = "Something that depends on the inputs is taken for a constant by backward."
            explanation = (
                "What forward computes on its way has no graph: recompute it in backward from what was saved, or mark "
                "backward with @once_differentiable, which refuses what is not there."
            )
        shown = describe(trial.case, self.subject.takes)
        return [
            Finding(
                what=SECOND,
                mistake=sentence,
                explanation=explanation,
                case=f"{shown}; the derivative by {source} of the sum of the gradients times 1 to 3",
                program=program(trial.case, self.subject, self.layer),
                yours=found.given[source],
                right=found.right[source],
                wrong_cases=len(wrong),
                cases=len(compared),
            )
        ]

    def _describe_arguments(self, case: Case) -> tuple[str, str]:
        return describe(case, self.subject.takes), program(case, self.subject, self.layer)

    def _omissions(self) -> list[str]:
        left_out = [
            n for n in self.layer.arguments if n not in self.subject.takes and n not in ("size_average", "reduce")
        ]
        return [f"not taken, so not checked: {', '.join(left_out)}"] if left_out else []

    def _refusals(self) -> list[str]:
        refused = [trial for trial in self.trials if trial.refusal]
        reasons = dict.fromkeys(trial.refusal.splitlines()[0][:160] for trial in refused)
        return [f"not supported in {len(refused)} cases: {'; '.join([*reasons][:3])}"] if refused else []


class CheckOfLayer(Check):
    """A check beside a layer's formula."""

    def __init__(
        self, function: Any, like: Any, options: Mapping[str, Any], double: bool, cases: int, seed: int
    ) -> None:
        super().__init__(double)
        try:
            drawing = importlib.import_module("torchfromscratch.checking.cases")
        except ModuleNotFoundError as error:
            raise CannotCheckError(MISSING) from error
        self.drawing, self.count, self.seed = drawing, cases, seed
        self.layer: Layer = layers.find(like)
        self.subject = subject(function, self.layer)
        fixed = {**modules.options(like), **modules.options(function), **options}
        self.source = drawing.strategy(self.layer, self.subject.takes, fixed, self.subject.needs)

    def cases(self) -> list[Case]:
        drawn: list[Case] = self.drawing.draw_cases(self.source, self.count, self.seed)
        self.dtype = self._dtype(drawn[:20])
        return drawn

    def confirm(self) -> None:
        for trial in self.trials:
            confirm(trial.truth)

    def table(self) -> Sequence[Mistake]:
        return mistakes.of(self.layer.name)

    def find_second(self, case: Case) -> Second:
        return second(self.subject, self.layer, case)

    def find_smallest(self, what: str, wrong: Sequence[Trial]) -> Case | None:
        return self.drawing.find_smallest(self.source, self.count, self.seed, self._remembering(wrong, what))

    def _dtype(self, drawn: Sequence[Case]) -> torch.dtype:
        """float64, unless it is refused where float32 is not."""
        trials = [attempt(self.subject, self.layer, case) for case in drawn]
        if any(not trial.refusal or trial.in_backward for trial in trials):
            return torch.float64
        single = [attempt(self.subject, self.layer, case, torch.float32) for case in drawn]
        if all(trial.refusal for trial in single):
            return torch.float64
        self.notes.append("float64 is not supported; compared in float32")
        return torch.float32

    def _remembering(self, wrong: Sequence[Trial], what: str) -> Callable[[Case], bool]:
        """Whether a case is wrong; after many evaluations, only those that were already seen to be."""
        answers = {self._key(trial.case): False for trial in self.trials}
        answers |= {self._key(trial.case): True for trial in wrong}
        budget = len(answers) + SHRINKS

        def is_wrong(case: Case) -> bool:
            key = self._key(case)
            if key not in answers:
                answers[key] = len(answers) < budget and self._is_wrong(case, what, wrong[0].tolerance)
            return answers[key]

        return is_wrong

    def _is_wrong(self, case: Case, what: str, tolerance: float) -> bool:
        trial = self.attempt(case)
        trial.tolerance = tolerance
        return trial.is_wrong(what)

    def _key(self, case: Case) -> str:
        return program(case, self.subject, self.layer)


class CheckOfInputs(Check):
    """A check beside finite differences, at given inputs."""

    def __init__(self, function: Any, inputs: Sequence[Any], double: bool) -> None:
        super().__init__(double)
        names = input_names(function, len(inputs))
        for argument, x in zip(names, inputs, strict=True):
            if isinstance(x, Tensor) and x.is_complex():
                raise CannotCheckError(f"check compares real numbers, and {argument} is {x.dtype}")
        self.inputs = {
            name: x.detach().double() if isinstance(x, Tensor) and x.is_floating_point() else x
            for name, x in zip(names, inputs, strict=True)
        }
        self.subject = Subject(as_function(function), names, name_of(function))
        self.layer: Unknown = Unknown(self.subject.function, names)

    def cases(self) -> list[Case]:
        """Every kind of dL/dy, every arrangement in memory, and the same numbers in other places."""
        cotangents = [Numbers(style, seed) for seed in range(3) for style in STYLES]
        found = [Case(self.inputs, cotangent) for cotangent in cotangents]
        for layout in LAYOUTS[1:]:
            found.append(Case(self.inputs, Numbers("whole", 1, layout)))
            if layout != "expanded":
                tensors = {n: to_layout(x, layout) if isinstance(x, Tensor) else x for n, x in self.inputs.items()}
                found.append(Case(tensors, Numbers("whole", 2)))
        try:
            self.layer.truth(found[0])
        except CannotCheckError:
            raise
        except Exception as error:
            raise CannotCheckError(f"{self.subject.name} fails: {type(error).__name__}: {error}") from error
        for by in (1, 3):
            moved = Case(self.inputs | {n: roll(x, by) for n, x in found[0].tensors.items()}, Numbers("whole", 3))
            with suppress(Exception):  # a function may not take its numbers in every order
                self.layer.truth(moved)
                found.append(moved)
        return found

    def find_second(self, case: Case) -> Second:
        return second_by_differences(self.subject, self.layer, case)

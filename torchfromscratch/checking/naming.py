"""Which mistake gives the numbers that were given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.checking.mistakes.row import Mistake
from torchfromscratch.checking.patterns import CERTAIN, FACTORS, common, elements
from torchfromscratch.checking.trial import Trial, close, close_elements

SAMPLE = 24  # wrong cases that every row is compared with; a row that fits them is compared with all
FACTS, GUESSES = ({sentence for sentence, _ in part} for part in (FACTORS[:CERTAIN], FACTORS[CERTAIN:]))
FEW = 3  # cases that several rows may fit by chance
LEAST_SHARE = (
    0.75  # of the wrong cases that a row must fit to be told: numbers that are small and positive fit many rows
)


@dataclass(frozen=True)
class Name:
    """A mistake in words; `is_exact` if it gives what was given in every wrong case."""

    sentence: str | None
    explanation: str = ""
    is_exact: bool = False


def name(what: str, table: Sequence[Mistake], wrong: Sequence[Trial], right: Sequence[Trial]) -> Name:
    """The mistake that gives what was given in every wrong case: a row of the layer, one that every function has,
    a row of the layer times a factor; else what the wrong cases have in common.

    Where several rows fit, one that gives the output that was given, too; then one that fits the right cases; then
    the first.
    """
    wrong = sorted(wrong, key=lambda trial: trial.case.size())
    rows = [*table, *common(tuple(wrong[0].truth.tensors))]
    if what.startswith("output") and not all(isinstance(trial.given[what], Tensor) for trial in wrong):
        return Name(f"The output is {type(wrong[0].given[what]).__name__}, not a tensor.")
    if all(trial.given[what] is None for trial in wrong):
        return Name(f"There is no gradient: None in place of dL/d {what.removesuffix('.grad')}.")
    fitting = [row for row in rows if _fits_all(row, what, wrong)]
    guesses = [row.sentence for row in fitting if row.sentence in GUESSES]
    factor = _constant_factor(what, wrong) if not table and guesses else None
    if factor is not None:
        certain = [row.sentence for row in fitting if row.sentence in FACTS]
        fact = certain[0] if certain else f"It is {factor:.6g} times what is right."
        return Name(f"{fact} Perhaps: {' Or: '.join(guesses)}")
    if fitting:
        output_is_wrong = any(trial.is_wrong(other) for trial in wrong for other in trial.given if "output" in other)
        best = max(
            fitting,
            key=lambda row: (
                _is_consistent(row, wrong),
                row.is_definition and output_is_wrong,
                _fits_all(row, what, right[:SAMPLE]),
            ),
        )
        return Name(best.sentence, best.explanation, is_exact=True)
    nearly = (_name_scaled(what, table, wrong) or _mostly(what, rows, wrong)) if table else None
    return nearly or _pattern(what, wrong, right)


def value(row: Mistake, what: str, trial: Trial) -> Tensor | None:
    """What the row gives; None where it has no meaning for these shapes."""
    try:
        found = row.compute(trial.truth, what)
    except (RuntimeError, ValueError, LookupError, AttributeError, TypeError, ZeroDivisionError):
        return None
    return None if found is None else found.detach()


def _fits(row: Mistake, what: str, trial: Trial) -> bool:
    found = value(row, what, trial)
    return found is not None and close(trial.given[what], found, trial.tolerance)


def _fits_all(row: Mistake, what: str, trials: Iterable[Trial]) -> bool:
    return all(_fits(row, what, trial) for trial in trials)


def _is_consistent(row: Mistake, trials: Sequence[Trial]) -> bool:
    """Whether a row of another definition gives the outputs that were given: a mistake of backward alone does not."""
    for trial in trials[:SAMPLE] if row.is_definition else ():
        outputs = {what: value(row, what, trial) for what in trial.given if what.startswith("output")}
        if any(y is not None and not close(trial.given[what], y, trial.tolerance) for what, y in outputs.items()):
            return False
    return True


def _name_scaled(what: str, table: Sequence[Mistake], wrong: Sequence[Trial]) -> Name | None:
    """A row of the layer times a factor."""
    # of a gradient, what is said of the gradient alone comes first
    for row in sorted(table, key=lambda row: row.is_definition and what.endswith(".grad")):
        for sentence, factor in FACTORS:

            def compute(t: Any, w: str, row: Mistake = row, factor: Callable[[Any], float] = factor) -> Tensor | None:
                found = row.compute(t, w)
                return None if found is None else factor(t) * found

            if _fits_all(Mistake(sentence, "", compute), what, wrong):
                return Name(f"{row.sentence} And: {sentence[0].lower()}{sentence[1:]}", row.explanation)
    return None


def _mostly(what: str, rows: Sequence[Mistake], wrong: Sequence[Trial]) -> Name | None:
    """Two rows that together give what was given in every case, or one that does so in most of them."""
    sample = wrong[:: max(1, len(wrong) // SAMPLE)][:SAMPLE]
    fits = {i: {j for j, trial in enumerate(sample) if _fits(row, what, trial)} for i, row in enumerate(rows)}
    first = max(fits, key=lambda i: len(fits[i]))
    rest = set(range(len(sample))) - fits[first]
    second = max(fits, key=lambda i: len(fits[i] & rest))
    if len(rest) >= FEW and fits[second] >= rest and len(fits[first]) >= FEW:
        sentence = f"{rows[first].sentence} In other cases: {rows[second].sentence}"
        return Name(sentence, f"{rows[first].explanation} {rows[second].explanation}".strip())
    if len(sample) > FEW and len(fits[first]) >= LEAST_SHARE * len(sample):
        share = (
            f"That gives your numbers in {len(fits[first])} of {len(sample)} wrong cases; in the others more is wrong."
        )
        return Name(rows[first].sentence, f"{rows[first].explanation} {share}".strip())
    return None


def _pattern(what: str, wrong: Sequence[Trial], right: Sequence[Trial]) -> Name:
    """What the wrong cases have in common, or their wrong elements."""
    first = wrong[0]
    if all(_has_other_shape(what, trial) for trial in wrong):
        shapes = f"{tuple(first.given[what].shape)} in place of {tuple(first.truth.right[what].shape)}"
        return Name(f"The shape is wrong: {shapes}.")
    factor = _constant_factor(what, wrong)
    if factor is not None:
        return Name(f"It is {factor:.6g} times what is right.")
    same_shape = [t for t in wrong if isinstance(t.given[what], Tensor) and not _has_other_shape(what, t)]
    places = [_places(what, trial) for trial in same_shape]
    partly = any(_is_partly_right(what, trial) for trial in same_shape)
    common_places = sorted(set.intersection(*places), reverse=True) if places and partly else []
    words = [f"only elements {place} are wrong" for place in common_places]
    conditions = [f"only cases with {condition} are wrong" for condition in _conditions(wrong, right)]
    said = "; ".join([*words[:2], *conditions[:2]])
    return Name(None, f"{said[0].upper()}{said[1:]}." if said else "")


def _has_other_shape(what: str, trial: Trial) -> bool:
    yours = trial.given[what]
    return isinstance(yours, Tensor) and yours.shape != trial.truth.right[what].shape


def _is_partly_right(what: str, trial: Trial) -> bool:
    """Whether some elements are right."""
    return bool(close_elements(trial.given[what], trial.truth.right[what], trial.tolerance).any())


def _places(what: str, trial: Trial) -> set[str]:
    right = trial.truth.right[what]
    input = next(iter(trial.truth.tensors.values())).detach()
    return elements(
        trial.given[what].detach().double(), right, input, lambda a, b: close_elements(a, b, trial.tolerance)
    )


def _constant_factor(what: str, wrong: Sequence[Trial]) -> float | None:
    """c where yours = c · right everywhere."""
    yours: list[Tensor] = []
    right: list[Tensor] = []
    for trial in wrong:
        if not isinstance(trial.given[what], Tensor) or trial.given[what].shape != trial.truth.right[what].shape:
            return None
        yours.append(trial.given[what].detach().double().flatten())
        right.append(trial.truth.right[what].detach().flatten())
    a, b = torch.cat(yours), torch.cat(right)
    if not (b * b).sum():
        return None
    factor = float((a * b).sum() / (b * b).sum())
    return factor if close(a, factor * b, 1e-6) else None


def _conditions(wrong: Sequence[Trial], right: Sequence[Trial]) -> list[str]:
    """What holds in every wrong case and in no right one."""
    found = []
    for condition in sorted(set.intersection(*[set(_facts(trial)) for trial in wrong])):
        if len(right) > 3 and not any(condition in _facts(trial) for trial in right):
            found.append(condition)
    return found


def _facts(trial: Trial) -> list[str]:
    """What can be said of a case."""
    facts = []
    defaults = trial.truth.layer.defaults
    for argument, given in trial.case.arguments.items():
        if isinstance(given, Tensor):
            if not given.is_contiguous():
                facts.append(f"{argument} not contiguous")
            if given.dim() and given.shape[0] != 1:
                facts.append(f"a batch of more than one in {argument}" if given.shape[0] else f"an empty {argument}")
        elif argument in defaults:
            neutral = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}.get(argument, defaults[argument])
            if given != neutral:
                facts.append(f"{argument} other than {neutral}")
            if isinstance(given, tuple) and len(set(given)) > 1:
                facts.append(f"{argument} that differs between height and width")
    if any(not g.is_contiguous() for g in trial.case.cotangents(trial.truth.outputs)):
        facts.append("dL/dy not contiguous")
    return facts

"""`check` beside implementations as people write them: it finds the wrong ones, names how, and accuses no right one."""

from __future__ import annotations

import re
from functools import cache

import pytest

import torchfromscratch
from tests.checking.corpus import RIGHT, WRONG, Right, Wrong
from torchfromscratch.checking import Report

CASES = 60
QUICK = 16  # one in so many is checked by every test run, all of them by the slow ones
LEAST_NAMED = 0.95
CONSEQUENCE = "Only forward is wrong"  # what is said of the right gradient of a wrong output


def sampled(implementations: list) -> list:
    """Each as a parameter, most of them behind the slow marker."""
    return [
        pytest.param(number, id=implementation.name, marks=[pytest.mark.slow] * (number % QUICK != 0))
        for number, implementation in enumerate(implementations)
    ]


@cache
def checked(number: int) -> Report:
    """The report on one of the wrong ones."""
    return report_on(WRONG[number])


def report_on(implementation: Wrong | Right) -> Report:
    if implementation.inputs is not None:
        return torchfromscratch.check(implementation.function, inputs=implementation.inputs())
    return torchfromscratch.check(implementation.function, implementation.like, cases=CASES)


def mistakes(report: Report) -> list[str]:
    """What the report calls the mistakes, or where it says that they are."""
    said = [finding.mistake or finding.explanation for finding in report.findings]
    return [words for words in said if words]


@pytest.mark.parametrize("number", sampled(WRONG))
def test_wrong_ones_are_found_and_named_for_what_they_are_or_not_at_all(number: int) -> None:
    assert not checked(number).ok
    for mistake in mistakes(checked(number)):
        assert re.search(f"{WRONG[number].named}|{CONSEQUENCE}", mistake, re.IGNORECASE), mistake


@pytest.mark.parametrize("number", sampled(RIGHT))
def test_right_ones_are_not_accused(number: int) -> None:
    report = report_on(RIGHT[number])
    assert report.ok, str(report)
    assert report.cases > 0


@pytest.mark.slow
def test_nearly_all_are_named() -> None:
    unnamed = {}
    for number, implementation in enumerate(WRONG):
        said = "\n".join(mistakes(checked(number)))
        if not implementation.named or not re.search(implementation.named, said, re.IGNORECASE):
            unnamed[f"{implementation.name} ({implementation.like})"] = said or "nothing"
    share = 1 - len(unnamed) / len(WRONG)
    assert share >= LEAST_NAMED, f"{share:.1%} named; not: {unnamed}"


def test_there_are_enough_of_both() -> None:
    assert len(WRONG) >= 200
    assert len(RIGHT) >= 30

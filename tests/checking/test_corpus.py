"""`check` beside implementations as people write them: it finds the wrong ones, names how, and accuses no right one."""

from __future__ import annotations

import re

import pytest

import torchfromscratch
from tests.checking.corpus import RIGHT, WRONG, Right, Wrong
from torchfromscratch.checking import Report

CASES = 60
QUICK = 8  # one in so many is checked by every test run, all of them by the slow ones
LEAST_NAMED = 0.95


def sampled(implementations: list) -> list:
    """Each as a parameter, most of them behind the slow marker."""
    return [
        pytest.param(implementation, id=implementation.name, marks=[pytest.mark.slow] * (number % QUICK != 0))
        for number, implementation in enumerate(implementations)
    ]


def told(report: Report) -> str:
    """What the report calls the mistakes."""
    return "\n".join(finding.mistake for finding in report.findings if finding.mistake)


def checked(implementation: Wrong | Right) -> Report:
    return torchfromscratch.check(implementation.function, implementation.like, cases=CASES)


@pytest.mark.parametrize("implementation", sampled(WRONG))
def test_wrong_ones_are_found(implementation: Wrong) -> None:
    assert not checked(implementation).ok


@pytest.mark.parametrize("implementation", sampled(RIGHT))
def test_right_ones_are_not_accused(implementation: Right) -> None:
    report = checked(implementation)
    assert report.ok, str(report)
    assert report.cases > 0


@pytest.mark.slow
def test_nearly_all_are_named() -> None:
    unnamed = {}
    for implementation in WRONG:
        said = told(checked(implementation))
        if not re.search(implementation.named, said, re.IGNORECASE):
            unnamed[f"{implementation.name} ({implementation.like})"] = said or "nothing"
    share = 1 - len(unnamed) / len(WRONG)
    assert share >= LEAST_NAMED, f"{share:.1%} named; not: {unnamed}"


def test_there_are_enough_of_both() -> None:
    assert len(WRONG) >= 120
    assert len(RIGHT) >= 25

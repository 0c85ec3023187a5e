"""What a check found."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

COLUMNS = 110  # of text
WIDTH = 16  # columns for the name of what is right or wrong


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, in the smallest case that shows it.

    `what` is "output", "input.grad", "weight.grad", "second derivative" or what else of a Function is wrong.
    `mistake` names what was done, in one sentence, or is None where nothing is known to give such numbers;
    `explanation` says what is right. `yours` and `right` are tensors where numbers are wrong.
    """

    what: str
    mistake: str | None
    explanation: str
    case: str
    program: str
    yours: Any = None
    right: Any = None
    wrong_cases: int = 0
    cases: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON, tensors as lists."""
        tensors = {name: _as_json(getattr(self, name)) for name in ("yours", "right")}
        return {**vars(self), **tensors}

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, is_repeated: bool = False) -> list[str]:
        """What is wrong, the smallest case, both numbers and the mistake, in short where it was explained before."""
        count = f"wrong in {self.wrong_cases} of {self.cases} cases; the smallest:" if self.wrong_cases else "wrong:"
        lines = [f"{derivative(self.what):{WIDTH}}  {count}", f"    {self.case}"]
        if isinstance(self.right, Tensor):
            lines += _beside("yours", self.yours, "right", self.right)
        if is_repeated and self.mistake:
            return [*lines, f"  The same: {self.mistake}"]
        return [*lines, *_wrap(f"{self.mistake or 'No known mistake gives these numbers.'} {self.explanation}")]


@dataclass(frozen=True)
class Report:
    """What came out of a check: `ok` if nothing is wrong. `str` reads as a page."""

    title: str
    cases: int
    right: Sequence[str]
    findings: Sequence[Finding]
    notes: Sequence[str] = field(default_factory=tuple)
    advice: Sequence[str] = field(default_factory=tuple)
    see: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def __str__(self) -> str:
        lines = [f"{self.title}: {self.cases} cases"]
        lines += [f"  {derivative(what):{WIDTH}}  right" for what in self.right]
        said: set[str | None] = set()
        for finding in self.findings:
            lines += ["  " + line for line in finding.lines(finding.mistake in said)]
            said.add(finding.mistake)
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  advice: {advice}" for advice in self.advice]
        if self.findings and self.see:
            lines.append(f"  {self.see}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {**vars(self), "ok": self.ok, "findings": [finding.as_dict() for finding in self.findings]}

    def raise_if_wrong(self) -> None:
        """For tests: AssertionError with the report, unless everything is right."""
        if not self.ok:
            raise AssertionError(str(self))


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _as_json(value: Any) -> Any:
    return value.detach().tolist() if isinstance(value, Tensor) else value


def derivative(what: str) -> str:
    """input.grad as a reader writes it: dL/d input."""
    return f"dL/d {what.removesuffix('.grad')}" if what.endswith(".grad") else what


def numbers(tensor: Any) -> str:
    """A tensor's elements on one line or several."""
    if not isinstance(tensor, Tensor):
        return str(tensor)
    text = str(tensor.detach().squeeze() if tensor.dim() > 2 else tensor.detach())
    return text.split(", dtype")[0].split(", size")[0].removeprefix("tensor(").removesuffix(")")


def _beside(left: str, yours: Any, right: str, truth: Tensor) -> list[str]:
    first, second = (numbers(tensor).replace("\n       ", "\n") for tensor in (yours, truth))
    if "\n" not in first + second and len(first + second) < 90:
        return [f"    {left}  {first}      {right}  {second}"]
    return [
        "    " + line
        for label, text in ((left, first), (right, second))
        for line in (f"{label}  " + text.replace("\n", "\n" + " " * (len(label) + 2))).splitlines()
    ]

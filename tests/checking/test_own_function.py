"""The programs of docs/own_function.md run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own_function.md"
PROGRAMS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_programs_run(capsys: pytest.CaptureFixture[str]) -> None:
    programs = PROGRAMS.findall(PAGE.read_text(encoding="utf-8"))
    assert len(programs) == 7
    names: dict[str, Any] = {"__name__": "own_function"}
    for program in programs:
        exec(compile(program, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    assert "second derivative" in printed
    assert "wrong in" in printed

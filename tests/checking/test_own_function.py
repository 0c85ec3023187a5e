"""The programs of docs/own_function.md run, one after the other."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own_function.md"
PROGRAMS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_programs_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    programs = PROGRAMS.findall(PAGE.read_text(encoding="utf-8"))
    assert len(programs) == 7
    module = types.ModuleType("own_function")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where older Dynamos look for a function's names
    for program in programs:
        exec(compile(program, str(PAGE), "exec"), vars(module))
    printed = capsys.readouterr().out
    assert "second derivative" in printed
    assert "wrong in" in printed

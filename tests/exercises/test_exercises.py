"""Every exercise is solved by its solution, by hand, and tells what to do as it is handed out."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

import torchfromscratch
from tests.exercises.solutions import SOLUTIONS
from torchfromscratch.__main__ import main
from torchfromscratch.checking import CannotCheckError

FOLDER = Path(__file__).parents[2] / "exercises"
FILES = sorted(FOLDER.glob("*.py"))
GAP = re.compile(r'^( +)raise NotImplementedError\("your turn: .*"\)$', re.MULTILINE)


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def function_and_layer(path: Path) -> tuple[str, str]:
    """From the command that the exercise gives."""
    command = re.search(rf"torchfromscratch check exercises/{path.name}:(\w+) --like (\w+) --by-hand", path.read_text())
    assert command is not None
    return command[1], command[2]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_solution_is_right(path: Path, tmp_path: Path) -> None:
    name, like = function_and_layer(path)
    solution = SOLUTIONS[path.stem].strip()
    solved = tmp_path / path.name
    source, gaps = GAP.subn(lambda gap: textwrap.indent(solution, gap[1]), path.read_text(encoding="utf-8"))
    assert gaps == 1
    solved.write_text(source, encoding="utf-8")
    with torchfromscratch.audit():
        report = torchfromscratch.check(getattr(loaded(solved), name), like, cases=40)
    assert report.ok, str(report)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_gap_says_what_is_due(path: Path) -> None:
    name, like = function_and_layer(path)
    try:
        said = str(torchfromscratch.check(getattr(loaded(path), name), like, cases=3))
    except CannotCheckError as error:  # the gap is in the forward pass
        said = str(error)
    assert "your turn: return" in said


def test_there_are_twenty_and_each_has_a_solution() -> None:
    assert len(FILES) == 20
    assert {path.stem for path in FILES} == set(SOLUTIONS)


def test_a_built_in_layer_is_no_solution(tmp_path: Path) -> None:
    file = tmp_path / "cheated.py"
    file.write_text("from torch.nn.functional import conv2d\n", encoding="utf-8")
    command = ["check", f"{file}:conv2d", "--like", "conv2d", "--cases", "3"]
    assert main(command) == 0
    with pytest.raises(CannotCheckError, match="built-in convolution"):
        main([*command, "--by-hand"])

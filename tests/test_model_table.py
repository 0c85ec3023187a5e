"""The tables of models, docs/torchvision.md and docs/timm.md, and the command that writes them."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from torchvision import models

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "model_table.py"))
LIBRARIES = {name: library() for name, library in SCRIPT["LIBRARIES"].items()}
SMALLEST = {"torchvision": "squeezenet1_1", "timm": "lcnet_035"}


def require(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: only this table needs it")


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_the_table_has_every_model_and_each_holds(library: Any) -> None:
    measured, rows = SCRIPT["read"](library)
    if library.name == "torchvision" and f"torchvision {metadata.version('torchvision')}," not in measured:
        pytest.skip("the installed torchvision has other models than the one of the table")
    assert list(rows) == library.models
    assert all(map(SCRIPT["holds"], rows.values()))
    assert SCRIPT["document"](library, measured, rows) == library.document.read_text()


def test_timm_is_there_with_a_hundred_models() -> None:
    assert len(set(LIBRARIES["timm"].models)) >= 100


def test_torchvision_is_there_as_a_whole() -> None:
    assert sorted(LIBRARIES["torchvision"].models) == sorted(models.list_models())


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_command_writes_a_row_and_keeps_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require(name)
    model = SMALLEST[name]
    monkeypatch.setitem(SCRIPT["main"].__globals__, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["model_table.py", name, model])
    assert SCRIPT["main"]() == 1  # the other models have no row
    row = SCRIPT["known_rows"](LIBRARIES[name])[model]
    assert SCRIPT["holds"](row)
    assert capsys.readouterr().out.startswith(f"1/1 {row} ")
    assert row in (tmp_path / f"{name}.md").read_text()


def test_a_model_that_fails_is_told_of_and_the_next_one_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(library: Any, name: str) -> str:
        if name == "alexnet":
            raise ValueError("too old")
        return f"| {name} | yes |"

    monkeypatch.setitem(SCRIPT["main"].__globals__, "DOCS", tmp_path)
    monkeypatch.setitem(SCRIPT["main"].__globals__, "row", row)
    monkeypatch.setattr(sys, "argv", ["model_table.py", "torchvision", "alexnet", "vgg11"])
    assert SCRIPT["main"]() == 1
    told = capsys.readouterr()
    assert told.err == "1/2 alexnet: ValueError: too old\n"
    assert told.out.startswith("2/2 | vgg11 | yes |")


@pytest.mark.slow
@pytest.mark.parametrize(("library", "model"), [(name, m) for name, all_of in LIBRARIES.items() for m in all_of.models])
def test_every_model_runs_by_hand(library: str, model: str) -> None:
    require(library)
    row = SCRIPT["row"](LIBRARIES[library], model)
    assert SCRIPT["holds"](row), row

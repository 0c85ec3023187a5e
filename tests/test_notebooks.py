"""The notebooks of examples/ run from top to bottom, their assertions hold, and they are committed without outputs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MOST_SECONDS = 120
# One for every run of the tests; the others take half a minute together.
ALWAYS = "02_your_own_function"

each = pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS])


def cells_of(path: Path, kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem == ALWAYS else pytest.mark.slow) for path in NOTEBOOKS],
)
def test_a_notebook_runs_from_top_to_bottom(path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="runs notebooks")
    pytest.importorskip("ipykernel", reason="the Python that notebooks run in")
    nbformat = pytest.importorskip("nbformat", reason="reads notebooks")
    notebook = nbformat.read(path, as_version=4)
    begun = time.monotonic()
    nbclient.NotebookClient(
        notebook,
        timeout=MOST_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(EXAMPLES)}},
    ).execute()
    assert time.monotonic() - begun < MOST_SECONDS
    assert any("data" in output for cell in notebook.cells for output in cell.get("outputs", []))


def test_there_are_six() -> None:
    assert [path.stem[:3] for path in NOTEBOOKS] == [f"{number:02}_" for number in range(1, 7)]


@each
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells_of(path, "code"))
    assert all(not cell["metadata"] for cell in notebook["cells"])
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}


@each
def test_a_notebook_installs_the_package_where_it_is_missing(path: Path) -> None:
    first = "".join(cells_of(path, "code")[0]["source"])
    assert first.startswith("try:\n    import torchfromscratch\nexcept ModuleNotFoundError:")
    assert "%pip install" in first
    assert "import torch\n" in "".join("".join(cell["source"]) for cell in cells_of(path, "code")[1:])


@each
def test_a_notebook_asks_for_guesses_holds_what_it_says_and_ends_with_exercises(path: Path) -> None:
    texts = ["".join(cell["source"]) for cell in cells_of(path, "markdown")]
    assert texts[0].startswith("# ")
    assert sum("**Guess" in text for text in texts) >= 2
    assert "## Exercises" in texts[-1]
    assert sum("assert" in "".join(cell["source"]) for cell in cells_of(path, "code")) >= 5

"""What is for reading reads as promised: two halves of each Function, a page that knows every file, a short program."""

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RULE = "# ---------------- torch's side: what is saved, vmap, forward mode"
FILES = sorted(path for path in (ROOT / "torchfromscratch" / "autograd").glob("*.py") if path.name != "__init__.py")
EXAMPLE = ROOT / "examples" / "train_minimal.py"
PAGE = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")


def functions() -> Iterator[tuple[str, Path, ast.ClassDef]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "Function" in [ast.unparse(base) for base in node.bases]:
                yield node.name, path, node


@pytest.mark.parametrize(("path", "function"), [pytest.param(*rest, id=name) for name, *rest in functions()])
def test_the_formula_stands_above_the_rule_and_torchs_side_below(path: Path, function: ast.ClassDef) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    rules = [n for n in range(function.lineno, function.end_lineno) if lines[n - 1].strip() == RULE]
    assert len(rules) == 1
    statements = [node for node in function.body if not isinstance(node, ast.Expr)]
    above = {_name(node) for node in statements if node.lineno < rules[0]}
    below = [_name(node) for node in statements if node.lineno > rules[0]]
    assert above == {"forward", "backward"}
    assert below == [name for name in ("generate_vmap_rule", "setup_context", "vmap", "jvp") if name in below]


def _name(node: ast.stmt) -> str:
    """What a statement of a class defines; `if per_sample:` defines vmap."""
    if isinstance(node, ast.If):
        return _name(node.body[0])
    return ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_page_knows_each_file(path: Path) -> None:
    assert f"../torchfromscratch/autograd/{path.name}" in PAGE


def test_what_the_page_passes_over_exists() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    _, section = PAGE.split("## What to pass over")
    names = re.findall(r"(?<!\[)`(\w+)`", section)
    assert names
    assert [name for name in names if name not in source and not (ROOT / "torchfromscratch" / name).is_dir()] == []


def test_a_newcomer_finds_the_page_the_example_and_the_rules() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in ("docs/reading.md", "examples/train_minimal.py", "CONTRIBUTING.md"):
        assert f"]({path})" in readme


def test_the_minimal_training_is_short_and_learns_the_digits(capsys: pytest.CaptureFixture) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    accuracy = re.search(r"test accuracy: ([\d.]+)%", capsys.readouterr().out)
    assert float(accuracy[1]) > 95

"""The code is formatted, linted and typed, and its modules can be imported."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import torchfromscratch
from tests import lacks

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("command", ["ruff format --check", "ruff check", "mypy"])
def test_style(command: str) -> None:
    if command == "mypy" and (reason := lacks.module_to_memory_format()):
        pytest.skip(reason)
    checked = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("package", ["autograd", "functional", "kernels", "nn"])
def test_what_is_traced_zips_nothing_of_unequal_lengths(package: str) -> None:
    """torch 2.6 to 2.9 compile zip(strict=False) to zip(strict=True)."""
    for file in (ROOT / "torchfromscratch" / package).rglob("*.py"):
        assert "strict=False)" not in file.read_text(encoding="utf-8"), file


def test_no_function_hides_a_package() -> None:
    """`import torchfromscratch.checking.naming as n` looks the package up as an attribute."""
    packages = [found.name for found in pkgutil.iter_modules(torchfromscratch.__path__) if found.ispkg]
    assert {"autograd", "checking", "explaining"} <= set(packages)
    for name in packages:
        package = importlib.import_module(f"torchfromscratch.{name}")
        assert getattr(torchfromscratch, name) is package, name


PARTICIPLE = re.compile(
    "_*([a-z]+[^e]ed|seen|made|held|kept|said|found|given|done|known|told|left|built|shown|drawn|taken|written|put)"
)


def test_a_participle_names_no_function_and_a_deictic_no_variable() -> None:
    """A function is a verb or a noun, as CONTRIBUTING.md says: `widen`, not `widened`."""
    for file in (ROOT / "torchfromscratch").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert not PARTICIPLE.fullmatch(node.name), f"{file}: {node.name}"
            assert not {getattr(node, "id", ""), getattr(node, "arg", "")} & {"here", "there"}, file

"""Every script and every command has a --help that does nothing else, and tells of a mistake in one line."""

from __future__ import annotations

import importlib.metadata
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import torchfromscratch
from torchfromscratch.__main__ import command
from torchfromscratch.command_line import require_known
from torchfromscratch.entry_point import NAME
from torchfromscratch.errors import UserError
from torchfromscratch.explaining.command import LAYERS

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
PROGRAMS = [
    *[[str(script.relative_to(ROOT))] for script in SCRIPTS],
    *[[NAME, *words] for words in ([], ["audit"], ["check"], ["explain"], *[["explain", layer] for layer in LAYERS])],
]
EVERY = pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a program in this process: its exit code, and what it printed and complained of."""

    def run(program: list[str], *options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [Path(program[0]).name, *program[1:], *options])
        monkeypatch.setenv("OMP_PROC_BIND", "false")  # which benchmark.py sets
        with pytest.raises(SystemExit) as ended:
            command() if program[0] == NAME else runpy.run_path(str(ROOT / program[0]), run_name="__main__")
        return (ended.value.code, *capsys.readouterr())

    return run


@EVERY
def test_help_tells_what_the_program_does_and_does_nothing(program: list[str], run: Run) -> None:
    written = {path: path.stat().st_mtime_ns for path in (ROOT / "docs").iterdir()}
    code, out, err = run(program, "--help")
    usage, _, rest = out.partition("\n\n")
    assert (code, err) == (0, "")
    assert usage.startswith(f"usage: {Path(program[0]).name}")
    assert len(rest.splitlines()[0]) > 20
    assert max(map(len, out.splitlines())) <= 120
    assert written == {path: path.stat().st_mtime_ns for path in (ROOT / "docs").iterdir()}


@pytest.mark.parametrize(
    ("program", "options", "wanted"),
    [
        (["scripts/step_profile.py"], "--batch-size 0", "of at least 1"),
        (["scripts/step_profile.py"], "--threads 0", "from 1 to 1,024"),
        (["scripts/benchmark.py"], "--threads 99999999999999999999", "from 1 to 1,024"),
        (["scripts/benchmark.py"], "--seconds nan", "above 0"),
        (["scripts/model_table.py"], "torchvision --threads many", "from 1 to 1,024"),
        ([NAME, "audit"], "json:loads --seed 99999999999999999999", "from 0 to 4,294,967,295"),
        ([NAME, "audit"], "json:loads --integers 0", "of at least 1"),
        ([NAME, "check"], "--torch --cases 0", "of at least 1"),
        ([NAME, "explain", "conv2d"], "--seed -1", "from 0 to 4,294,967,295"),
    ],
    ids=str,
)
def test_a_number_out_of_an_options_range(program: list[str], options: str, wanted: str, run: Run) -> None:
    code, out, err = run(program, *options.split())
    *_, option, value = options.split()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"argument {option}: {value!r} is not a " in err
    assert wanted in err


@EVERY
def test_a_mistake_is_one_line(program: list[str], run: Run) -> None:
    for mistake in (["--no-such-option"], ["no-such-word", "--no-such-option"]):
        code, out, err = run(program, *mistake)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_a_mistake_is_told_before_what_takes_long_is_loaded() -> None:
    """But by feature_maps, which has matplotlib's picture to offer, and model_table, which has torchvision's models."""
    scripts = [str(script) for script in SCRIPTS if script.stem not in ("feature_maps", "model_table")]
    program = """if True:
        import contextlib, runpy, sys
        for script in sys.argv[1:]:
            sys.argv = [script, "--no-such-option"]
            with contextlib.suppress(SystemExit):
                runpy.run_path(script, run_name="__main__")
        print(*sys.modules)
    """
    finished = subprocess.run([sys.executable, "-c", program, *scripts], capture_output=True, text=True, cwd=ROOT)
    assert finished.stderr.count("error: ") == len(scripts), finished.stderr
    slow = {
        "torchvision",
        "sklearn",
        "matplotlib",
        "tensorboard",
        "torch._dynamo",
        "torch._inductor",
        "sympy",
        "triton",
    }
    assert not slow & set(finished.stdout.split())


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        ("conformance", "zzz", "no operator has 'zzz' in its name; there are "),
        ("notes", "zzz", "unrecognized arguments: zzz"),
        ("examples", "dead_rely", "no example is called 'dead_rely'; did you mean dead_relu"),
        ("model_table", "torchvision resnet17", "no model of torchvision is called 'resnet17'; did you mean resnet1"),
    ],
)
def test_an_unknown_word_is_named(program: str, words: str, message: str, run: Run) -> None:
    code, out, err = run([f"scripts/{program}.py"], *words.split())
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {message}")  # torch may log something as it loads its samples


def test_the_commands_are_listed_with_what_they_do(run: Run) -> None:
    _, out, _ = run([NAME], "--help")
    assert "audit     convert a model" in out
    assert "explain   show every number" in out
    assert f"{NAME} explain conv2d --input 4x4" in out


def test_the_version_is_that_of_the_installed_package(run: Run) -> None:
    assert torchfromscratch.__version__ == importlib.metadata.version(NAME)
    assert run([NAME], "--version")[1].startswith(f"{NAME} {torchfromscratch.__version__}, torch ")


def test_installation_puts_the_command_on_the_path() -> None:
    """The name in pyproject.toml's [project.scripts] leads to `command`."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'[project.scripts]\n{NAME} = "{command.__module__}:{command.__name__}"\n' in text


def test_what_is_not_known_is_answered_with_what_is() -> None:
    require_known("layer", ["a"], ["a", "b"])
    with pytest.raises(UserError, match="no layer is called 'c'; there are a, b"):
        require_known("layer", ["c"], ["a", "b"])

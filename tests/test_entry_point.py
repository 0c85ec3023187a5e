"""How every command ends: one line and an exit code, whatever happens, and whenever."""

import io
import os
import signal
import sys
from pathlib import Path

import pytest

from torchfromscratch import entry_point
from torchfromscratch.entry_point import loading, run
from torchfromscratch.errors import UserError

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))

# what ends a command: its exit code, and the line
ENDS = [
    (KeyboardInterrupt(), 130, "stopped by Ctrl-C\n"),
    (UserError("use\nthis"), 2, "error: use this\n"),
    (FileNotFoundError(2, "No such file", "a.png"), 2, "error: [Errno 2] No such file: 'a.png'\n"),
    (ModuleNotFoundError("No module named 'expecttest'"), 2, "error: No module named 'expecttest'\n"),
    (BrokenPipeError(), 141, ""),
    (MemoryError(), 2, "error: not enough memory (MemoryError)\n"),
    (RuntimeError("can't allocate memory"), 2, "error: not enough memory (can't allocate memory)\n"),
    (ImportError("Cannot allocate memory"), 2, "error: not enough memory (Cannot allocate memory)\n"),
    (SystemExit(3), 3, ""),
]
CASES = pytest.mark.parametrize(("error", "code", "line"), ENDS, ids=lambda value: type(value).__name__)


def raising(error: BaseException) -> None:
    raise error


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is one of the commands."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS[0])])
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)


@CASES
def test_what_ends_a_command_is_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(lambda: raising(error))
    assert ended.value.code == code
    assert capsys.readouterr().err == line


@CASES
def test_the_same_while_a_command_is_loaded(
    error: BaseException, code: int, line: str, command: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, loading():
        raise error
    assert ended.value.code == code
    assert capsys.readouterr().err == line


def test_mistakes_of_the_code_keep_their_traceback(command: None) -> None:
    ours = ImportError("cannot import name", name="torchfromscratch.nn")
    for error in (ValueError("1"), RuntimeError("shapes differ"), TypeError("2"), ours):
        with pytest.raises(type(error)):
            run(lambda error=error: raising(error))


@pytest.mark.parametrize("argv", [["/home/somebody/train.py"], ["-m"], []], ids=str)
def test_who_imports_the_package_is_left_alone(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "somebodys.package"])
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), loading():
        raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) == handler


@pytest.mark.parametrize("argv0", ["-m", "/usr/bin/torchfromscratch", *map(str, SCRIPTS)])
def test_every_command_is_known(argv0: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [argv0])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-O", "-m", "torchfromscratch", "audit"])
    assert entry_point._is_command()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_script_loads_and_runs_by_the_entry_point(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert text.rstrip().endswith('if __name__ == "__main__":\n    run(main)')
    heavy = [line for line in text.splitlines() if line.startswith(("import torch", "from torch"))]
    assert heavy == ["from torchfromscratch.entry_point import loading, run"], "import the rest within loading()"


def test_streams_that_are_closed_are_opened_to_nowhere(command: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with loading():
        print("nobody reads this")
    assert all(stream.name == os.devnull for stream in (sys.stdin, sys.stdout, sys.stderr))


def test_what_the_output_cannot_encode_is_spelled_out(command: None, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    with loading():
        print("3×4 in \udcff")
    assert written.getvalue() == b"3\\xd74 in \\udcff\n"


def test_pictures_need_no_window(command: None) -> None:
    with loading():
        assert os.environ["MPLBACKEND"] == "agg"


def test_output_that_nobody_can_write_is_given_up(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def fileno(self) -> int:
            return os.dup(1)

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit) as ended:
        run(lambda: None)
    assert ended.value.code == 2
    assert capfd.readouterr().err == "error: [Errno 28] No space left on device\n"

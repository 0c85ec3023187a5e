"""`torchfromscratch check`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torchfromscratch.__main__ import main
from torchfromscratch.checking.installation import check_torch
from torchfromscratch.errors import UserError

FUNCTIONS = str(Path(__file__).with_name("functions.py"))


def test_the_exit_code_says_what_came_out_and_no_file_is_left(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hypothesis.configuration.__hypothesis_home_directory_default", tmp_path / ".hypothesis")
    assert main(["check", f"{FUNCTIONS}:ReLU", "--like", "relu", "--cases", "10"]) == 0
    assert "dL/d input        right" in capsys.readouterr().out
    assert main(["check", f"{FUNCTIONS}:NoGradient", "--like", "relu", "--cases", "10", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["findings"][0]["what"] == "input.grad"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"{FUNCTIONS}:ReLU"], "what it should be"),
        ([FUNCTIONS, "--like", "relu"], "is named FILE.py:NAME"),
        (["nowhere.py:ReLU", "--like", "relu"], "there is no such file"),
        ([f"{FUNCTIONS}:Nothing", "--like", "relu"], "has no 'Nothing'"),
        ([f"{FUNCTIONS}:ReLU", "--like", "rely"], "did you mean relu"),
        (["--torch", f"{FUNCTIONS}:ReLU"], "leave one of them out"),
        (["--torch", "--device", "nowhere"], "cannot use device nowhere"),
    ],
)
def test_what_cannot_be_checked_is_an_error_of_the_user(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["check", *arguments])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('at import')", "cannot import .*: RuntimeError: at import"),
        ("import sys; sys.exit(3)", "cannot import .*: SystemExit: 3"),
        ("def f(x:", "cannot import .*: SyntaxError"),
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("def f(x):\n    raise SystemExit(4)", "exits with 4"),
        ("def f(x):\n    raise ValueError('no')", "f refuses every case of relu: ValueError: no"),
        ("f = 3", "3 cannot be called"),
        ("def f(x, y, z): return x", "takes .x, y, z., but relu is called as .input."),
    ],
)
def test_a_file_that_does_not_work_is_an_error_of_the_user(source: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "layers.py"
    file.write_text(source, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        main(["check", f"{file}:f", "--like", "relu", "--cases", "3"])


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_torchs_wrong_gradient_of_a_batch_of_one_is_found(name: str) -> None:
    """dL/dβ of an x that lies contiguously and a dL/dy whose channels lie innermost."""
    _, _, report = next(check_torch([name], cases=40))
    assert not isinstance(report, str)
    finding = next(finding for finding in report.findings if finding.what == "bias.grad")
    assert "does not lie contiguously" in (finding.mistake or "")
    place: dict = {"print": lambda *_, **__: None}
    exec(finding.program, place)
    assert not place["gradients"][-1].equal(place["grad_output"].sum((0, *range(2, place["grad_output"].dim()))))

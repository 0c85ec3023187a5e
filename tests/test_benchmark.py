"""The benchmark runs, writes what it measured and tells what it cannot do; how fast anything is, no test asks."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torchfromscratch.benchmark import OURS, THEIRS, Work, measure, saved_bytes, works

SCRIPT = Path(__file__).parent.parent / "scripts" / "benchmark.py"


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parent.parent)


def test_the_command_writes_its_table(tmp_path: Path) -> None:
    finished = run("--only", "1×1", "--repeats", "2", "--output", str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    written = json.loads((tmp_path / "benchmark.json").read_text())
    contenders = {result["contender"] for result in written["results"]}
    assert {OURS, THEIRS, "F.unfold and matmul"} <= contenders
    assert all(result["measured"] > 0 and result["ratio"] > 0 for result in written["results"])
    assert torch.__version__ in written["conditions"]["torch"]
    assert "1×1" in (tmp_path / "benchmark.md").read_text()
    assert (tmp_path / "benchmark.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "5×5×5"], "no such work; there are SmallVGG"),
        (["--repeats", "0"], "at least 1"),
        pytest.param(
            ["--device", "cuda"],
            "no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device"),
        ),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, *arguments])
    monkeypatch.setenv("OMP_PROC_BIND", "false")  # which the script sets
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_names_are_unique() -> None:
    names = [work.name for work in works()]
    assert len(names) == len(set(names))


def test_a_slow_work_is_measured_once() -> None:
    turns = []
    slow = Work("slow", lambda device: {OURS: lambda: turns.append(1), THEIRS: lambda: turns.append(2)})
    ours, theirs = measure(slow, torch.device("cpu"), repeats=5, seconds=0)
    assert turns == [1, 2]
    assert ours.measured > 0
    assert theirs.ratio == 1


def test_bytes_held_are_those_of_the_activations() -> None:
    """torch.nn keeps every ReLU's and every pooling's output, and 8 bytes an index of the pooling."""
    found = saved_bytes(torch.device("cpu"))
    side, wide, batch = 32, 32, 128
    activations, indices = 3 * side**2, 0
    for _ in range(3):
        activations += 2 * wide * side**2 + wide * side**2 // 4
        indices += 2 * wide * side**2 // 4  # of 8 bytes, in units of 4
        side, wide = side // 2, 2 * wide
    expected = 4 * batch * (activations + indices + 256)
    assert abs(found[THEIRS]() - expected) < 0.01 * expected
    assert found[OURS]() < found[THEIRS]()

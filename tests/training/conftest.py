"""A training so small that a test can run it as a user would."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train_cifar.py"
LAYERS = "scratch"
TINY = ["--dataset", "digits", "--device", "cpu", "--epochs", "3", "--batch-size", "100", "--layers", LAYERS]
DEFAULT_NAME = f"digits-lenet5-{LAYERS}"


CAMPAIGN_SEED = int(os.environ.get("CAMPAIGN_SEED", 0))  # of the slow tests' random faults


def assert_equal(some: Any, others: Any, where: str) -> None:
    """Requires equal states: equal to the last bit, as deep as they go."""
    if isinstance(some, torch.Tensor):
        assert torch.equal(some, others), where
    elif isinstance(some, dict):
        assert set(some) == set(others), where
        for name in some:
            assert_equal(some[name], others[name], f"{where}.{name}")
    elif isinstance(some, list):
        assert len(some) == len(others), where
        for number, pair in enumerate(zip(some, others, strict=True)):
            assert_equal(*pair, f"{where}.{number}")
    else:
        assert some == others, where


def launch(
    *arguments: str | Path, cwd: Path, processes: int = 1, environment: Mapping[str, str] = os.environ
) -> "subprocess.Popen[str]":
    """Starts the command, on one process or on several with torchrun, its output going into pipes."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [*launcher, str(SCRIPT), *map(str, arguments)],
        cwd=cwd,
        # as many threads as the tests themselves: another number sums in another order, and rounds otherwise
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
    """Waits for the command to end."""
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(autouse=True)
def usual_signal_handlers() -> Iterator[None]:
    """No test leaves the handlers of a training behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert before == {number: signal.getsignal(number) for number in before}


@pytest.fixture
def in_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh working directory, where runs/ and data/ are looked for."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the graph and the pictures, which take four fifths of so small a training's time."""
    leave_out_pictures(monkeypatch)


def leave_out_pictures(patch: pytest.MonkeyPatch) -> None:
    """What `undrawn` does, for fixtures of a whole module."""
    from torch.utils.tensorboard import SummaryWriter

    from torchfromscratch.training.monitor import Monitor

    patch.setattr(SummaryWriter, "add_graph", lambda *arguments: None)
    patch.setattr(Monitor, "pictures", lambda *arguments: None)


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command in this process, requires it to end as on a user's mistake, returns the message."""
    from torchfromscratch.training.cli import main

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        assert main(list(map(str, arguments))) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert "Traceback" not in message
        assert len(message.splitlines()) == 1
        return message

    return run

"""Commands in odd environments, as processes of their own: slow, but as a user meets them."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
TRAIN = "scripts/train_cifar.py --dataset digits --epochs 1 --batch-size 100 --device cpu --run-dir"
COMMANDS = {
    "train": f"{TRAIN} {{out}}",
    "explain": "-m torchfromscratch explain conv2d",
}
# what the shell adds to the command, variables, and the exit codes that may follow
ENVIRONMENTS: dict[str, tuple[str, dict[str, str], set[int]]] = {
    "no output": (">&-", {}, {0}),
    "no errors": ("2>&-", {}, {0}),
    "no streams": ("<&- >&- 2>&-", {}, {0}),
    "ascii output": ("", {"PYTHONIOENCODING": "ascii"}, {0}),
    "ascii locale": ("", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {0}),
    "no such backend": ("", {"MPLBACKEND": "nonsense"}, {0}),
    "full disk": (">/dev/full", {}, {2}),
    "no reader": ("| true; exit ${PIPESTATUS[0]}", {}, {141}),
}

pytestmark = pytest.mark.slow


def run(line: str, memory: int | None = None, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Runs a command line of Python's arguments in a shell; `memory` limits its address space, in MiB."""

    def limit() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory << 20, memory << 20))

    return subprocess.run(
        ["bash", "-c", os.fsencode(f"{sys.executable} {line}")],
        cwd=ROOT,
        env=environment(variables),
        capture_output=True,
        preexec_fn=limit,
        timeout=300,
    )


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}


def assert_told_in_one_line(stderr: bytes) -> None:
    assert b"Traceback" not in stderr, stderr.decode()
    assert b"Exception ignored" not in stderr, stderr.decode()


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_work_in_any_environment(command: str, name: str, tmp_path: Path) -> None:
    suffix, variables, codes = ENVIRONMENTS[name]
    result = run(f"{COMMANDS[command].format(out=tmp_path / 'out')} {suffix}", **variables)
    assert_told_in_one_line(result.stderr)
    assert result.returncode in codes, result.stderr.decode()


def test_a_run_directory_that_is_no_utf_8_is_trained_in(tmp_path: Path) -> None:
    directory = f"{tmp_path}/run\udcff"
    result = run(f"{TRAIN} '{directory}'")
    assert_told_in_one_line(result.stderr)
    assert result.returncode == 0
    assert os.path.exists(f"{directory}/last.pt")


@pytest.mark.parametrize("memory", [500, 1500, 3000])
def test_memory_that_does_not_suffice_for_torch_is_told(memory: int) -> None:
    result = run(COMMANDS["explain"], memory)
    assert_told_in_one_line(result.stderr)
    assert result.returncode in (0, 2)
    assert result.returncode == 0 or result.stderr.startswith(b"error: not enough memory")


@pytest.mark.parametrize("command", [*(f"scripts/{name}" for name in SCRIPTS), "-m torchfromscratch"])
def test_ctrl_c_while_a_command_loads_is_one_line(command: str) -> None:
    process = subprocess.Popen(
        [sys.executable, *command.split(), "--help"],
        cwd=ROOT,
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(random.Random(command).uniform(0.3, 1.0))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, b"stopped by Ctrl-C\n")

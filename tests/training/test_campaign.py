"""The campaign of faults: kills at chosen and at random points, two runs in a directory, processes that die.

What it found is told in docs/reliability.md. A killed process is a fork of the tests' own, which has loaded all.
"""

import itertools
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import tqdm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.conftest import (
    CAMPAIGN_SEED,
    DEFAULT_NAME,
    ROOT,
    SCRIPT,
    TINY,
    assert_equal,
    finish,
    launch,
    leave_out_pictures,
)
from torchfromscratch.training import checkpoint, lock
from torchfromscratch.training.checkpoint import load_checkpoint
from torchfromscratch.training.cli import main
from torchfromscratch.training.monitor import Monitor
from torchfromscratch.training.trainer import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

RANDOM_KILLS = int(os.environ.get("CAMPAIGN_KILLS", 30))
MOST_KILLS_OF_A_RUN = 3
LONGEST_TRIAL = 300  # seconds
OPTIONS = [*TINY, "--epochs", "2", "--checkpoint-every", "6"]
TIMES = {"images_per_second", "seconds", "data_wait_share"}


@pytest.fixture(autouse=True, scope="module")
def _no_thread_of_the_progress_bar() -> Iterator[None]:
    """A lock that another thread holds would never be free in a fork."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm.tqdm, "monitor_interval", 0)
        if tqdm.tqdm.monitor is not None:
            tqdm.tqdm.monitor.exit()
        yield


class Ended:
    """All that a run leaves behind which must be the same however often it was killed."""

    def __init__(self, run: Path) -> None:
        self.last, self.best = (without_times(load_checkpoint(run / name)) for name in ("last.pt", "best.pt"))
        self.metrics = [without_times(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
        events = EventAccumulator(str(run), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
        events.Reload()
        tags = events.Tags()
        self.curves = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in tags["scalars"]
            if tag not in TIMES
        }
        self.histograms = {
            tag: [(event.step, event.histogram_value) for event in events.Histograms(tag)] for tag in tags["histograms"]
        }
        self.texts = {tag: [event.step for event in events.Tensors(tag)] for tag in tags["tensors"]}
        self.files = {path.name for path in run.iterdir() if "tfevents" not in path.name}

    def assert_same(self, other: "Ended") -> None:
        for name, part in vars(self).items():
            assert_equal(part, getattr(other, name), name)


def without_times(value: Any) -> Any:
    """A state or a row without what differs between any two runs."""
    if isinstance(value, dict):
        return {name: without_times(part) for name, part in value.items() if name not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def forked(work: Callable[[], Any]) -> int:
    """Does the work in a fork of this process, unseen; returns its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        signal.alarm(LONGEST_TRIAL)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(run: Path) -> int:
    """Begins the run, or goes on with it if it has begun."""
    return main(
        ["--resume", "--run-dir", str(run)] if (run / "last.pt").exists() else [*OPTIONS, "--run-dir", str(run)]
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        assert train(run) == 0
    return Ended(run)


CHOSEN = {
    "lock": (lock, "_lock", (1,)),
    "fsync": (checkpoint.os, "fsync", (1, 2, 3, 5, 6, 7, 8, 9, 12, 14)),
    "replace": (checkpoint.os, "replace", (1, 2, 3, 5, 6, 7)),
    "log opened": (Monitor, "__init__", (1,)),
    "graph": (Monitor, "begin", (1,)),
    "curves of a step": (Monitor, "step", (1, 3)),
    "gradients": (Monitor, "gradients", (1, 2)),
    "curves of an epoch": (Monitor, "epoch", (1, 2)),
    "settings": (Monitor, "finish", (1,)),
    "flush": (Monitor, "flush", (1, 3, 6)),
    "pictures": (Monitor, "pictures", (1, 2)),
    "step": (Trainer, "_train_step", (1, 7, 16)),
    "testing": (Trainer, "_finish_epoch", (1, 2)),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("place", "number"), [(place, number) for place, (_, _, numbers) in CHOSEN.items() for number in numbers]
)
def test_killed_at_a_chosen_point(
    place: str, number: int, after: bool, uninterrupted: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, _ = CHOSEN[place]
    usual, calls = getattr(owner, name), itertools.count(1)

    def deadly(*arguments: Any) -> Any:
        last = next(calls) == number
        if last and not after:
            die()
        result = usual(*arguments)
        if last:
            die()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, deadly)
        assert forked(lambda: train(tmp_path / "run")) == -signal.SIGKILL
    assert train(tmp_path / "run") == 0
    Ended(tmp_path / "run").assert_same(uninterrupted)


def profiled(run: Path, at_event: Callable[[int], None]) -> int:
    """Trains; at every call of and return from a Python or a C function, tells how many there were."""
    events = itertools.count()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        at_event(next(events))

    sys.setprofile(profile)
    try:
        return train(run)
    finally:
        sys.setprofile(None)


@pytest.fixture(scope="module")
def events(uninterrupted: Ended, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many calls and returns a whole training has."""
    run, seen = tmp_path_factory.mktemp("counted") / "run", [0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.tensorboard.SummaryWriter.add_graph", lambda *arguments: None)
        patch.setattr(Monitor, "pictures", lambda *arguments: None)
        assert profiled(run, lambda number: seen.__setitem__(0, number)) == 0
    return seen[0]


@pytest.mark.parametrize("trial", range(RANDOM_KILLS))
def test_killed_at_random_points(trial: int, events: int, uninterrupted: Ended, tmp_path: Path) -> None:
    draw, run = random.Random(1000 * CAMPAIGN_SEED + trial), tmp_path / "run"
    for _ in range(draw.randint(1, MOST_KILLS_OF_A_RUN)):
        point = draw.randrange(events)
        forked(lambda point=point: profiled(run, lambda number: die() if number == point else None))
    assert train(run) == 0
    Ended(run).assert_same(uninterrupted)


# From here on with processes as a user starts them.


def process_ids(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"process (\d+) is training", text)]


@pytest.mark.parametrize("trial", range(2))
def test_two_new_runs_in_one_directory(trial: int, tmp_path: Path) -> None:
    pair = [launch(*TINY, "--seed", seed, "--run-dir", tmp_path / "run", cwd=tmp_path) for seed in "01"]
    ended = [finish(process) for process in pair]
    assert sorted(process.returncode for process in ended) == [0, 2]
    winner, loser = (next(n for n in (0, 1) if ended[n].returncode == code) for code in (0, 2))
    if "already holds a run" not in ended[loser].stderr:
        assert process_ids(ended[loser].stderr) == [pair[winner].pid]
    assert len(ended[loser].stderr.splitlines()) == 1
    state = load_checkpoint(tmp_path / "run/last.pt")
    assert state["config"]["seed"] == winner
    assert [json.loads(line)["epoch"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
    ]


def test_two_new_runs_without_a_name(tmp_path: Path) -> None:
    for process in [launch(*TINY, "--seed", seed, cwd=tmp_path) for seed in "01"]:
        assert finish(process).returncode == 0
    names = (DEFAULT_NAME, f"{DEFAULT_NAME}-2")
    seeds = {load_checkpoint(tmp_path / "runs" / name / "last.pt")["config"]["seed"] for name in names}
    assert seeds == {0, 1}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a long training, on one process or several, and waits for its first epoch."""
    started = []

    def start(*options: str, processes: int = 1) -> "subprocess.Popen[str]":
        arguments = [*TINY, "--epochs", "2000", "--run-dir", tmp_path / "run", *options]
        process = launch(*arguments, cwd=tmp_path, processes=processes)
        started.append(process)
        wait_until((tmp_path / "run/best.pt").exists)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def workers(launcher: int) -> dict[int, int]:
    """The processes that a torchrun has started, by rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    environments = {int(child): Path(f"/proc/{child}/environ").read_text() for child in children}
    found = {child: re.search(r"\0RANK=(\d+)\0", environment) for child, environment in environments.items()}
    return {int(match[1]): child for child, match in found.items() if match}


def is_running(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_going_on_beside_a_live_run(live: Callable[..., "subprocess.Popen[str]"], tmp_path: Path) -> None:
    process = live()
    second = finish(launch("--resume", "--run-dir", tmp_path / "run", cwd=tmp_path))
    assert second.returncode == 2
    assert process_ids(second.stderr) == [process.pid]
    process.send_signal(signal.SIGINT)
    assert finish(process).returncode == 130


def test_workers_without_their_launcher_hold_the_run_until_they_stop_by_themselves(
    live: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    launcher = live(processes=2)
    left = workers(launcher.pid)
    os.kill(left[0], signal.SIGSTOP)  # so that it is there for certain
    launcher.kill()
    second = finish(launch("--resume", "--run-dir", tmp_path / "run", cwd=tmp_path))
    assert second.returncode == 2
    assert process_ids(second.stderr) == [left[0]]
    os.kill(left[0], signal.SIGCONT)
    wait_until(lambda: not any(map(is_running, left.values())))
    state = load_checkpoint(tmp_path / "run/last.pt")
    assert state["position"]["epoch"] >= 1
    assert not (tmp_path / "run" / lock.LOCK).exists()


@pytest.mark.parametrize("killed", [0, 1])
def test_when_a_process_dies_the_other_says_one_line(
    killed: int, live: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    launcher = live(processes=2)
    os.kill(workers(launcher.pid)[killed], signal.SIGKILL)
    ended = finish(launcher)
    assert ended.returncode == 1
    said_by_torchrun = ended.stderr.index("torch/distributed/elastic")
    told = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert told == [
        f"error: process {1 - killed} of 2 stops: another process of this training has ended or cannot be reached; "
        "the last checkpoint is intact"
    ]
    assert "Traceback" not in ended.stderr[:said_by_torchrun]
    assert 'train_cifar.py", line' not in ended.stderr, "the only traceback is torchrun's own"


def test_torchrun_goes_on_by_itself_when_it_starts_its_processes_again(tmp_path: Path) -> None:
    arguments = [*map(str, TINY), "--epochs", "6"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    weights = {}
    for name, options in ("undisturbed", []), ("disturbed", ["--max-restarts", "1"]):
        command = [*torchrun, *options, str(SCRIPT), *arguments, "--name", name]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment)
        if options:
            wait_until((tmp_path / "runs/disturbed/best.pt").exists)
            os.kill(workers(process.pid)[1], signal.SIGKILL)
        assert process.wait() == 0
        weights[name] = load_checkpoint(tmp_path / f"runs/{name}/last.pt")["model"]
    assert_equal(weights["disturbed"], weights["undisturbed"], "weights")
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"undisturbed", "disturbed"}


@pytest.mark.parametrize(("largest_file", "code"), [(100_000, 1), (200_000, 0)], ids=["checkpoint", "step log"])
def test_a_full_disk_meets_all_processes_alike(largest_file: int, code: int, tmp_path: Path) -> None:
    """The first checkpoint has 95 kB, the others 181, TensorBoard's log outgrows 200."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    ended = subprocess.run(
        [*command, *map(str, TINY), "--name", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file)),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code, ended.stderr
    told = [line for line in ended.stderr.splitlines() if line.startswith(("error: ", "note: "))]
    assert [line.split(":")[0] for line in told] == ["note", "error"][: 1 + code], ended.stderr
    assert all("File too large" in line for line in told)
    if code:  # torchrun's, where a process's is not 0
        assert re.findall(r"exitcode +: (-?\d+)", ended.stderr)[-1] == "2"
    else:
        assert load_checkpoint(tmp_path / "runs/run/last.pt")["position"]["epoch"] == 3

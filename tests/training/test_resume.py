"""However a training is stopped, going on with it ends where it would have ended."""

import random
import shlex
import signal
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.conftest import TINY, finish, launch, leave_out_pictures
from torchfromscratch.training.cli import main
from torchfromscratch.training.monitor import Monitor
from torchfromscratch.training.trainer import Trainer

STEPS_PER_EPOCH = 15

pytestmark = pytest.mark.usefixtures("undrawn")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "last.pt", weights_only=True)["model"]


def assert_identical(run: Path, uninterrupted: Path) -> None:
    expected = weights(uninterrupted)
    for name, weight in weights(run).items():
        assert torch.equal(weight, expected[name]), name
    timeless = [
        [(key, value) for key, value in row.items() if key not in ("images_per_second", "seconds", "data_wait_share")]
        for row in (torch.load(path / "last.pt", weights_only=True)["rows"] for path in (run, uninterrupted))
        for row in row
    ]
    assert timeless[: len(timeless) // 2] == timeless[len(timeless) // 2 :]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == len(timeless) // 2


def logged_steps(run: Path) -> dict[str, list[int]]:
    """The steps of all that TensorBoard shows of a run, curves, histograms and texts."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    events.Reload()
    kinds = {"scalars": events.Scalars, "histograms": events.Histograms, "tensors": events.Tensors}
    return {
        tag: [event.step for event in read(tag)]
        for kind, read in kinds.items()
        for tag in events.Tags()[kind]
        if not tag.startswith("precision_recall/")  # logged with the pictures, which only some of these runs draw
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        assert main([*TINY, "--run-dir", str(run)]) == 0
    return run


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """Makes a signal arrive just before a training asks, for the n-th time, whether one did."""

    def arrange(n: int) -> None:
        asked = iter(range(1, n + 1))
        ask = Trainer._stop_if_asked

        def asking(trainer: Trainer) -> None:
            if next(asked, None) == n:
                signal.raise_signal(signal.SIGINT)
            ask(trainer)

        monkeypatch.setattr(Trainer, "_stop_if_asked", asking)

    return arrange


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(1, id="after the first step"),
        pytest.param(7, id="within an epoch"),
        pytest.param(STEPS_PER_EPOCH, id="after an epoch's last step"),
        pytest.param(STEPS_PER_EPOCH + 2, id="while testing"),
        pytest.param(STEPS_PER_EPOCH + 4 + 1, id="after the second epoch's first step"),
        pytest.param(STEPS_PER_EPOCH * 2 + 4 + 2, id="while testing after the second epoch"),
    ],
)
def test_stopped_anywhere_ends_with_identical_weights(stop_at, asked: int, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stop_at(asked)
    assert main([*TINY, "--run-dir", str(run)]) == 130
    assert main(["--resume", "--run-dir", str(run)]) == 0
    assert_identical(run, uninterrupted)
    assert logged_steps(run) == logged_steps(uninterrupted)


def test_killed_at_a_random_moment_ends_with_identical_weights(uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [*TINY, "--run-dir", run, "--checkpoint-every", "4"]
    process = launch(*arguments, cwd=tmp_path)
    while not (run / "last.pt").exists():
        time.sleep(0.01)
    delay = random.uniform(0, 0.7)
    time.sleep(delay)
    process.kill()
    assert finish(process).returncode == -signal.SIGKILL, f"was over {delay} s after its first checkpoint"
    resumed = finish(launch(*arguments, "--resume", cwd=tmp_path))
    assert resumed.returncode == 0, resumed.stderr
    assert_identical(run, uninterrupted)
    assert logged_steps(run) == logged_steps(uninterrupted)


def test_logs_from_after_the_checkpoint_do_not_double(stop_at, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stop_at(STEPS_PER_EPOCH + 9)
    assert main([*TINY, "--run-dir", str(run)]) == 130
    checkpoint = (run / "last.pt").read_bytes()
    assert main(["--resume", "--run-dir", str(run)]) == 0
    (run / "last.pt").write_bytes(checkpoint)  # as if it had been killed with its logs on disk
    assert main(["--resume", "--run-dir", str(run)]) == 0
    assert logged_steps(run) == logged_steps(uninterrupted)
    assert_identical(run, uninterrupted)


class Killed(BaseException):
    """What no part of the training catches, as it would not catch a SIGKILL."""


def kill(*arguments: object) -> None:
    raise Killed


@pytest.mark.parametrize("step", [0, 2, STEPS_PER_EPOCH + 3])
@pytest.mark.parametrize("times", [1, 2])
def test_killed_with_its_logs_on_disk_doubles_nothing(
    step: int, times: int, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, report = tmp_path / "run", Trainer._stop_if_asked

    def killed_at(trainer: Trainer) -> None:
        if trainer.step > step:
            assert trainer.monitor is not None
            trainer.monitor.flush()
            raise Killed
        report(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_stop_if_asked", killed_at)
        for resume in [[], ["--resume"]][:times]:
            with pytest.raises(Killed):
                main([*TINY, *resume, "--run-dir", str(run)])
    assert main(["--resume", "--run-dir", str(run)]) == 0
    assert_identical(run, uninterrupted)
    assert logged_steps(run) == logged_steps(uninterrupted)


@pytest.mark.parametrize("asked", [8, STEPS_PER_EPOCH + 4 + 2])
def test_averages_rates_and_flips_of_a_recipe_go_on_as_well(stop_at, asked: int, tmp_path: Path) -> None:
    recipe = [*TINY, "--lookahead", "--label-smoothing", "0.1", "--norm-bias-lr", "4", "--schedule", "triangular"]
    recipe += ["--crop-fill", "reflect", "--flip", "alternating", "--test-views", "shifted", "--model", "smallvgg-bn"]
    assert main([*recipe, "--run-dir", str(tmp_path / "whole")]) == 0
    stop_at(asked)
    assert main([*recipe, "--run-dir", str(tmp_path / "parts")]) == 130
    assert main(["--resume", "--run-dir", str(tmp_path / "parts")]) == 0
    assert_identical(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("part", ["begin", "epoch", "finish", "pictures"])
def test_killed_while_logging_loses_and_doubles_nothing(
    part: str, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, part, kill)
        with pytest.raises(Killed):
            main([*TINY, "--run-dir", str(run)])
    assert main(["--resume", "--run-dir", str(run)]) == 0
    assert_identical(run, uninterrupted)
    assert logged_steps(run) == logged_steps(uninterrupted)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    process = launch(*TINY, "--epochs", "1000", "--run-dir", run, cwd=tmp_path)
    while not (run / "best.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stopped = finish(process)
    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stderr
    command = stopped.stderr.strip().split("to go on: ")[1]
    assert shlex.split(command)[2:] == ["--resume", "--run-dir", str(run)]
    position = torch.load(run / "last.pt", weights_only=True)["position"]
    assert position["epoch"] >= 1


def test_ctrl_c_under_torchrun_saves_although_it_comes_as_several_signals(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = launch(*TINY, "--epochs", "1000", "--run-dir", run, cwd=tmp_path, processes=2)
    while not (run / "best.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)  # torchrun passes it on, and SIGTERM right after
    stopped = finish(process)
    assert "stopped and saved; to go on: torchrun --nproc-per-node 2" in stopped.stderr
    assert "OSError" not in stopped.stderr


def test_resuming_a_finished_run_only_says_so(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = weights(uninterrupted)
    assert main(["--resume", "--run-dir", str(uninterrupted)]) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert all(torch.equal(weight, before[name]) for name, weight in weights(uninterrupted).items())


def test_resume_without_a_directory_takes_the_latest_run(stop_at, in_directory: Path) -> None:
    assert main([*TINY, "--epochs", "1", "--name", "older", "--seed", "7"]) == 0
    stop_at(3)
    assert main([*TINY, "--name", "newer"]) == 130
    assert main(["--resume"]) == 0
    assert len((in_directory / "runs/newer/metrics.jsonl").read_text().splitlines()) == 3

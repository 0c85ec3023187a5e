"""Every batch size trains to its end, and nothing that is only looked at can end a training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import TINY
from torchfromscratch.training import checkpoint, trainer
from torchfromscratch.training.checkpoint import load_checkpoint
from torchfromscratch.training.cli import main
from torchfromscratch.training.config import resolve
from torchfromscratch.training.data import Dataset, Pictures
from torchfromscratch.training.monitor import Monitor
from torchfromscratch.training.trainer import Trainer


def dataset(count: int) -> Dataset:
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pictures = Pictures(images, torch.arange(count) % 3)
    return Dataset(pictures, pictures, list("abc"))


@pytest.fixture
def unsaved(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the checkpoints as well, 90 MB of each for ResNet-18."""
    monkeypatch.setattr(trainer, "save_checkpoint", lambda state, path: None)


def fitted(model: str, count: int, batch_size: int, directory: Path, layers: str = "scratch") -> dict[str, float]:
    settings = {"dataset": "digits", "model": model, "batch_size": batch_size, "epochs": 1, "layers": layers}
    return Trainer(resolve(settings), dataset(count), directory, device=torch.device("cpu")).fit()


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize("batch_size", [1, 2, 4], ids="batches of {}".format)
@pytest.mark.parametrize("model", ["lenet5", "smallvgg-bn", "resnet18"])
def test_every_batch_size_trains_to_its_end(model: str, batch_size: int, tmp_path: Path) -> None:
    row = fitted(model, 5, batch_size, tmp_path)
    assert row["epoch"] == 1


@pytest.mark.usefixtures("unsaved")
def test_a_single_picture_trains_to_its_end(tmp_path: Path) -> None:
    assert fitted("resnet18", 1, 2, tmp_path)["epoch"] == 1


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize(("model", "batch_size"), [("lenet5", 4), ("smallvgg-bn", 4), ("smallvgg-bn", 1)])
def test_small_batches_follow_the_curve_of_torch(model: str, batch_size: int, tmp_path: Path) -> None:
    scratch, built_in = (fitted(model, 9, batch_size, tmp_path / name, name) for name in ("scratch", "torch"))
    for metric in ("train_loss", "test_loss"):
        assert scratch[metric] == pytest.approx(built_in[metric], rel=1e-3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main([*TINY, "--epochs", "1", "--run-dir", str(run)]) == 0
    return load_checkpoint(run / "last.pt")["model"]


def failure(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: Any) -> None:
        raise error

    return fail


PARTS = ["__init__", "begin", "step", "gradients", "epoch", "pictures", "finish", "flush", "close"]
FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("part", "error"),
    [(part, FULL) for part in PARTS]
    + [
        ("pictures", MemoryError()),
        ("pictures", ValueError("a name\nwith $ and $")),
        ("begin", RuntimeError("tracing")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_log_that_fails_is_one_line_and_training_goes_on(
    part: str,
    error: Exception,
    undrawn: None,
    undisturbed: dict[str, torch.Tensor],
    in_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Monitor, part, failure(error))
    assert main([*TINY, "--epochs", "1", "--name", "run"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("note: ")
    assert "runs/run" in lines[0]
    state = load_checkpoint(Path("runs/run/last.pt"))
    assert all(torch.equal(weight, undisturbed[name]) for name, weight in state["model"].items())
    assert len(Path("runs/run/metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.usefixtures("undrawn")
def test_metrics_that_cannot_be_written_are_one_line_too(
    in_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainer, "save_metrics", failure(FULL))
    assert main([*TINY, "--epochs", "1", "--name", "run"]) == 0
    assert capsys.readouterr().err.count("metrics.jsonl could not be written") == 1


def test_the_checkpoint_is_there_before_anything_is_drawn(in_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = []

    def look(*arguments: Any) -> None:
        epochs.append(
            [load_checkpoint(Path("runs/run") / name)["position"]["epoch"] for name in ("last.pt", "best.pt")]
        )

    monkeypatch.setattr(Monitor, "begin", lambda *arguments: epochs.append(load_checkpoint(Path("runs/run/last.pt"))))
    monkeypatch.setattr(Monitor, "pictures", look)
    assert main([*TINY, "--epochs", "1", "--name", "run"]) == 0
    assert epochs[0]["position"]["epoch"] == 0
    assert epochs[1:] == [[1, 1]]


@pytest.mark.usefixtures("undrawn")
def test_a_disk_too_full_for_a_checkpoint_names_the_path(
    in_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint.os, "replace", failure(FULL))
    assert main([*TINY, "--epochs", "1", "--name", "run"]) == 2
    # nothing was there before, so nothing is said of it
    assert capsys.readouterr().err == "error: cannot write runs/run/last.pt: No space left on device\n"
    assert not Path("runs/run").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_is_on_the_disk_with_its_name_and_the_log_before_it(
    in_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = checkpoint.os.fsync, checkpoint.os.replace

    def watched_fsync(file: int) -> None:
        done.append(Path(f"/proc/self/fd/{file}").resolve().name.split(".")[0] or "unfinished")
        fsync(file)

    def watched_replace(source: Path, target: Path) -> None:
        done.append(f"-> {target.name}")
        replace(source, target)

    monkeypatch.setattr(checkpoint.os, "fsync", watched_fsync)
    monkeypatch.setattr(checkpoint.os, "replace", watched_replace)
    assert main([*TINY, "--epochs", "1", "--name", "run"]) == 0
    written = [step for name in ("best.pt", "last.pt", "metrics.jsonl") for step in ("unfinished", f"-> {name}", "run")]
    assert done[-10:] == ["events", *written]


@pytest.mark.usefixtures("undrawn")
def test_a_run_takes_up_its_number_of_threads(in_directory: Path) -> None:
    assert main([*TINY, "--epochs", "1", "--name", "run"]) == 0
    torch.set_num_threads(2)
    try:
        assert main(["--resume"]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", 10_000), ("threads", -1), ("processes", 3), ("torch", "1.0"), ("cpu", "another"), ("device", "cuda")],
)
def test_other_conditions_than_before_are_one_line(
    name: str, value: object, in_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, "--epochs", "1", "--name", "run"]) == 0
    state = load_checkpoint(Path("runs/run/last.pt"))
    checkpoint.save_checkpoint({**state, "conditions": {**state["conditions"], name: value}}, Path("runs/run/last.pt"))
    capsys.readouterr()
    assert main(["--resume"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: the run goes on under other conditions ({name} {value} before, ")
    assert main(["--resume"]) == 0, "from then on, these are its conditions"
    assert not capsys.readouterr().err

"""Whatever goes wrong is one clear message and exit code 2, and nothing is lost."""

import gzip
import os
import resource
import shutil
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from tests.training.conftest import SCRIPT, TINY, finish, launch
from torchfromscratch.training import checkpoint
from torchfromscratch.training.cli import main

Failing = Callable[..., str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    assert main([*TINY, "--epochs", "2", "--run-dir", str(run)]) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_command_itself_ends_with_2_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = finish(launch(*TINY, "--run-dir", tmp_path / "file" / "run", cwd=tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot create the run directory")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_device_that_is_not_there(device: str, failing: Failing, in_directory: Path) -> None:
    if getattr(torch, device).is_available():
        pytest.skip(f"{device} is there")
    message = failing(*TINY, "--device", device)
    assert f"--device {device}" in message
    assert "use --device cpu" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "0"],
        ["--lr", "nan"],
        ["--lr", "-1"],
        ["--lr", "1e39"],
        ["--norm-bias-lr", "1e-300"],
        ["--batch-size", "x"],
        ["--seed", str(2**32)],
        ["--name", "a/b"],
        ["--name", ""],
        ["--momentum", "1"],
        ["--dataset", "cats"],
    ],
    ids=" ".join,
)
def test_option_that_makes_no_sense(
    arguments: list[str], capsys: pytest.CaptureFixture[str], in_directory: Path
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert arguments[0] in capsys.readouterr().err
    assert not list(in_directory.iterdir())


def test_directory_that_holds_a_run_is_not_overwritten(failing: Failing, run: Path) -> None:
    before = contents(run)
    assert "--resume" in failing(*TINY, "--run-dir", run)
    assert contents(run) == before


@pytest.mark.parametrize(
    "other",
    [["--model", "smallvgg"], ["--lr", "0.1"], ["--epochs", "5"], ["--seed", "1"], ["--flip", "random"]],
    ids=" ".join,
)
def test_resume_with_other_settings(other: list[str], failing: Failing, run: Path) -> None:
    before = contents(run)
    message = failing("--resume", "--run-dir", run, *other)
    assert f"{other[0]} is " in message
    assert contents(run) == before


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "something else", "empty"])
def test_damaged_checkpoint(damage: str, failing: Failing, run: Path) -> None:
    whole = (run / "last.pt").read_bytes()
    middle = len(whole) // 2
    damaged = {
        "truncated": whole[:middle],
        "a flipped bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "something else": b"no checkpoint at all",
        "empty": b"",
    }[damage]
    (run / "last.pt").write_bytes(damaged)
    before = contents(run)
    message = failing("--resume", "--run-dir", run)
    assert "damaged" in message
    assert f"{run / 'best.pt'} is whole" in message
    assert contents(run) == before

    shutil.copy(run / "best.pt", run / "last.pt")
    assert main(["--resume", "--run-dir", str(run)]) == 0


def test_damaged_checkpoint_and_no_best(failing: Failing, run: Path) -> None:
    (run / "last.pt").write_bytes(b"")
    (run / "best.pt").unlink()
    assert "Start a new run" in failing("--resume", "--run-dir", run)


def test_checkpoint_of_another_program(failing: Failing, run: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, run / "last.pt")
    assert "not a checkpoint of" in failing("--resume", "--run-dir", run)


@pytest.mark.parametrize("lr", ["1e6", "1e18"])
def test_loss_that_became_nan(lr: str, failing: Failing, in_directory: Path) -> None:
    message = failing(*TINY, "--lr", lr, "--schedule", "constant", "--name", "run", "--checkpoint-every", "1")
    assert "became NaN or infinite" in message
    assert "smaller --lr" in message
    state = torch.load(in_directory / "runs/run/last.pt", weights_only=True)
    assert all(weight.isfinite().all() for weight in state["model"].values())


def test_compiler_that_is_not_there(tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    result = finish(launch(*TINY, "--compile", cwd=tmp_path, environment=environment))
    assert result.returncode == 2
    assert result.stderr.startswith("error: torch.compile does not work here")
    assert "Traceback" not in result.stderr


def test_no_network_names_the_offline_choices(
    failing: Failing, in_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*arguments: Any, **keywords: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets.utils, "_urlretrieve", no_network)
    message = failing("--epochs", "1")
    assert message.startswith("error: cifar10 ")
    assert "--dataset digits" in message
    assert "--dataset folder" in message


def test_damaged_dataset(failing: Failing, in_directory: Path) -> None:
    raw = in_directory / "data/MNIST/raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for content in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{content}-ubyte").write_bytes(b"\x00\x00\x08\x01")
            (raw / f"{part}-{content}-ubyte.gz").write_bytes(gzip.compress(b""))
    assert "Delete it there and try again" in failing("--dataset", "mnist", "--epochs", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Zeros and ones as pictures in class folders."""
    digits = load_digits(n_class=2)
    for number, (image, label) in enumerate(zip(digits.images[:60], digits.target[:60], strict=True)):
        directory = tmp_path / "folder" / ("test" if number < 20 else "train") / str(label)
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype("uint8")).resize((12, 16)).save(directory / f"{number}.png")
    return tmp_path / "folder"


def of_folder(folder: Path) -> list[str | Path]:
    return [*TINY, "--epochs", "1", "--dataset", "folder", "--data-dir", folder]


def test_folder_of_pictures_is_trained_on(folder: Path, in_directory: Path) -> None:
    assert main(list(map(str, of_folder(folder)))) == 0


def test_folder_that_is_not_there(failing: Failing, in_directory: Path) -> None:
    assert "DIR/train/<class>/*" in failing(*of_folder(in_directory / "nowhere"))
    assert not list((in_directory / "runs").iterdir()), "a run that never began left its directory behind"


def test_folder_with_other_classes_to_test(folder: Path, failing: Failing, in_directory: Path) -> None:
    (folder / "test/1").rename(folder / "test/one")
    assert "differ: 1, one" in failing(*of_folder(folder))


def test_folder_with_one_class(folder: Path, failing: Failing, in_directory: Path) -> None:
    for part in ("train", "test"):
        shutil.rmtree(folder / part / "1")
    assert "one class only, 0" in failing(*of_folder(folder))


def test_picture_that_is_damaged(folder: Path, failing: Failing, in_directory: Path) -> None:
    picture = next((folder / "train/0").iterdir())
    picture.write_bytes(picture.read_bytes()[:60])
    assert str(picture) in failing(*of_folder(folder))


def test_pictures_too_small_for_the_model(folder: Path, failing: Failing, in_directory: Path) -> None:
    message = failing(*of_folder(folder), "--model", "smallvgg", "--image-size", "7")
    assert "at least 8×8 pixels, these have 7×7" in message


def test_pictures_too_large_for_memory(folder: Path, failing: Failing, in_directory: Path) -> None:
    assert "smaller --image-size" in failing(*of_folder(folder), "--image-size", "10000000")


def test_crops_that_leave_nothing_of_a_picture(failing: Failing, in_directory: Path) -> None:
    assert "choose less than 8" in failing(*TINY, "--crop-padding", "8")


def test_image_size_of_a_dataset_that_has_its_own(failing: Failing, in_directory: Path) -> None:
    assert "--image-size is for" in failing(*TINY, "--image-size", "32")


def fewer(folder: Path) -> None:
    next((folder / "train/0").iterdir()).unlink()


def renamed(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "0").rename(folder / part / "zero")


def swapped(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "0").rename(folder / part / "x")
        (folder / part / "1").rename(folder / part / "0")
        (folder / part / "x").rename(folder / part / "1")


def repainted(folder: Path) -> None:
    picture = next((folder / "test/1").iterdir())
    Image.open(picture).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(picture)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fewer, "was trained on 40 training"),
        (renamed, "was trained on the classes 0, 1, but they are 1, zero now"),
        (swapped, "was trained on other pictures than"),
        (repainted, "was trained on other pictures than"),
    ],
)
def test_other_data_than_before(
    change: Callable[[Path], None], message: str, folder: Path, failing: Failing, in_directory: Path
) -> None:
    assert main([*map(str, of_folder(folder)), "--name", "run"]) == 0
    change(folder)
    before = contents(in_directory / "runs/run")
    assert message in failing("--resume", "--name", "run")
    assert contents(in_directory / "runs/run") == before


def test_disk_that_is_full(tmp_path: Path) -> None:
    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = subprocess.run(
        [sys.executable, SCRIPT, *TINY, "--run-dir", tmp_path / "run"],
        preexec_fn=limit_file_size,
        env={"PYTHONPATH": str(SCRIPT.parents[1])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "File too large" in result.stderr
    assert "Traceback" not in result.stderr


def test_failing_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.write_atomically(path, b"old")

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    for place in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.os, place, full)
            with pytest.raises(checkpoint.UserError, match="No space left on device; what was there before"):
                checkpoint.write_atomically(path, b"new")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

"""The data sets that need no network, and what is made of pictures in folders."""

import hashlib
import socket
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS

from torchfromscratch.errors import UserError
from torchfromscratch.training import data
from torchfromscratch.training.data import load_dataset
from torchfromscratch.training.picture_files import PICTURE_ENDINGS


def test_digits_are_all_there_and_split_alike() -> None:
    digits = load_dataset("digits", Path("unused"))
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.train.images.dtype == torch.uint8
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 255)
    assert digits.classes == [str(digit) for digit in range(10)]
    assert ((digits.test.labels.bincount() - 36).abs() <= 1).all()


def test_digits_are_split_the_same_every_time() -> None:
    one, other = (load_dataset("digits", Path("unused")).test.images for _ in range(2))
    assert torch.equal(one, other)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of pictures with a red left half, in several sizes."""
    for part in ("train", "test"):
        for name, size in (("cats", (20, 20)), ("dogs", (60, 20)), ("dogs", (20, 40))):
            directory = tmp_path / part / name
            directory.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
            pixels[:, : size[0] // 2, 0] = 255
            Image.fromarray(pixels).save(directory / f"{size[0]}.png")
    return tmp_path


@pytest.mark.parametrize(("image_size", "expected"), [(None, 20), (8, 8)])
def test_pictures_of_a_folder_get_one_size(folder: Path, image_size: int | None, expected: int) -> None:
    dataset = load_dataset("folder", folder, image_size)
    assert dataset.train.images.shape == (3, 3, expected, expected)
    assert dataset.train.labels.tolist() == [0, 1, 1]
    assert dataset.classes == ["cats", "dogs"]
    left, right = dataset.train.images.float().chunk(2, dim=3)
    assert left[:, 0].mean() > 240
    assert right.mean() < 15


def test_pictures_that_have_the_size_already_are_kept_exactly(folder: Path) -> None:
    with Image.open(folder / "train/cats/20.png") as picture:
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert torch.equal(load_dataset("folder", folder).train.images[0], expected)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize("content", ["images-idx3", "labels-idx1"])
def test_unpacked_files_of_mnist_are_verified(
    name: str, folder: str, part: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    published = {}
    for file in data.MNIST_MD5[name]:
        shape = (3, 28, 28) if "images" in file else (3,)
        header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
        (raw / file).write_bytes(header + bytes(range(3)) * (int(np.prod(shape)) // 3))
        published[file] = hashlib.md5((raw / file).read_bytes()).hexdigest()
    monkeypatch.setitem(data.MNIST_MD5, name, published)
    assert load_dataset(name, tmp_path).train.labels.tolist() == [0, 1, 2]

    damaged = raw / f"{part}-{content}-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match=rf"{damaged.name} is not the published one.*Delete it there and try again"):
        load_dataset(name, tmp_path)


def test_files_of_mnist_are_those_that_torchvision_unpacks() -> None:
    for name, files in data.MNIST_MD5.items():
        archives = [archive for archive, _ in getattr(datasets, data.TORCHVISION_DATASETS[name]).resources]
        assert archives == [f"{file}.gz" for file in files]


def test_pictures_have_the_endings_that_torchvision_knows() -> None:
    assert PICTURE_ENDINGS == IMG_EXTENSIONS


@pytest.mark.parametrize("name", data.TORCHVISION_DATASETS)
def test_a_silent_proxy_is_not_waited_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(urllib.request, "_opener", None)  # would remember earlier proxies
        monkeypatch.setattr(data, "SECONDS_OF_SILENCE", 0.1)
        began = time.monotonic()
        with pytest.raises(UserError, match=r"timed out.*--dataset digits"):
            load_dataset(name, tmp_path)
    assert time.monotonic() - began < 5
    assert socket.getdefaulttimeout() is None

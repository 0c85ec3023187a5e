"""The data sets: pictures decoded once and kept in memory as bytes, with their labels."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from tqdm import tqdm

from torchfromscratch.training.errors import UserError

TORCHVISION_DATASETS: dict[str, Callable[..., torchvision.datasets.VisionDataset]] = {
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
    "mnist": torchvision.datasets.MNIST,
    "fashion-mnist": torchvision.datasets.FashionMNIST,
}

OFFLINE_CHOICES = (
    "Without a network: --dataset digits needs no download, and --dataset folder --data-dir DIR trains on "
    "your own pictures in DIR/train/<class>/ and DIR/test/<class>/."
)

# Larger pictures would rarely fit in memory all at once, nor train in reasonable time from scratch.
LARGEST_CHOSEN_SIZE = 224


@dataclass(frozen=True)
class Pictures:
    """Pictures and what they show.

    Attributes:
        images: (N, C, H, W) uint8, 0 for black to 255.
        labels: (N,) int64, indices into the data set's classes.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Pictures":
        return Pictures(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Square pictures to train on, others to test on, and the names of their classes."""

    train: Pictures
    test: Pictures
    classes: list[str]

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        return self.train.images.shape[2]

    def summary(self) -> str:
        """How much there is of what, in words; equal for the same data."""
        channels, height, width = self.train.images.shape[1:]
        return (
            f"{len(self.train):,} training and {len(self.test):,} test pictures "
            f"of {channels}×{height}×{width} in {len(self.classes)} classes"
        )


def load_dataset(name: str, data_dir: Path, image_size: int | None = None) -> Dataset:
    """Reads a data set into memory; torchvision's are downloaded to data_dir and verified if need be.

    Args:
        name: "digits", "folder" or a key of `TORCHVISION_DATASETS`.
        data_dir: torchvision's root, or the folder that holds train/<class>/ and test/<class>/.
        image_size: side in pixels that the pictures of a folder are brought to; None chooses the
            median of their shorter sides.

    Raises:
        UserError: if the data set is missing, damaged or cannot be downloaded.
    """
    if name == "folder":
        return _folder(data_dir, image_size)
    if image_size is not None:
        raise UserError(f"--image-size is for --dataset folder; the pictures of {name} have a size of their own")
    if name == "digits":
        return _digits()
    return _from_torchvision(name, data_dir)


def _digits() -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, a fifth of them (the same ones always) for testing."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    return Dataset(
        Pictures(images[train], labels[train]),
        Pictures(images[test], labels[test]),
        [str(digit) for digit in bunch.target_names],
    )


def _from_torchvision(name: str, root: Path) -> Dataset:
    def load(train: bool) -> tuple[Pictures, list[str]]:
        # Whatever a missing, truncated or altered file makes the reader raise, the user needs one answer.
        try:
            source = TORCHVISION_DATASETS[name](str(root), train=train, download=True)
            images, labels = torch.as_tensor(source.data), torch.as_tensor(source.targets)
        except Exception as error:
            raise UserError(
                f"{name} is not complete in {root} and could not be downloaded or read "
                f"({type(error).__name__}: {error}). Delete it there and try again if it is damaged. "
                f"{OFFLINE_CHOICES}"
            ) from error
        channels_first = images.permute(0, 3, 1, 2).contiguous() if images.ndim == 4 else images.unsqueeze(1)
        return Pictures(channels_first, labels), list(source.classes)

    train, classes = load(train=True)
    test, _ = load(train=False)
    return Dataset(train, test, classes)


def _folder(root: Path, image_size: int | None) -> Dataset:
    train, test = (_image_folder(root / part) for part in ("train", "test"))
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes))
        raise UserError(f"the classes in {root}/train and {root}/test differ: {', '.join(differing)}")
    if len(train.classes) < 2:
        raise UserError(f"{root}/train has one class only, {train.classes[0]}: there is nothing to tell apart")
    size = image_size or _common_size([path for path, _ in train.samples])
    return Dataset(_decode(train.samples, size), _decode(test.samples, size), train.classes)


def _image_folder(path: Path) -> torchvision.datasets.ImageFolder:
    try:
        return torchvision.datasets.ImageFolder(str(path))
    except OSError as error:
        raise UserError(
            f"no pictures in class folders found in {path} ({error}); --dataset folder expects "
            "--data-dir DIR with DIR/train/<class>/* and DIR/test/<class>/*"
        ) from error


def _common_size(paths: list[str]) -> int:
    """The median of the shorter sides of up to 100 of the pictures, in pixels."""
    shorter_sides = [min(_read(path).size) for path in paths[:: -(-len(paths) // 100)]]
    return min(int(median(shorter_sides)), LARGEST_CHOSEN_SIZE)


def _decode(samples: list[tuple[str, int]], size: int) -> Pictures:
    """Every picture as size×size RGB: scaled to cover the square, then cut to its centre."""
    try:
        images = torch.empty(len(samples), 3, size, size, dtype=torch.uint8)
    except RuntimeError as error:
        raise UserError(
            f"{len(samples):,} pictures of {size}×{size} pixels do not fit in memory; choose a smaller --image-size"
        ) from error

    def decode(number: int) -> None:
        square = ImageOps.fit(_read(samples[number][0]), (size, size))
        images[number] = torch.from_numpy(np.array(square)).permute(2, 0, 1)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        numbers = threads.map(decode, range(len(samples)))
        for _ in tqdm(numbers, "reading pictures", len(samples), unit="image", leave=False, disable=None):
            pass
    return Pictures(images, torch.tensor([label for _, label in samples]))


def _read(path: str) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise UserError(f"cannot read the picture {path} ({error}); repair or delete it") from error

"""The data sets: pictures decoded once and kept in memory as bytes, with their labels."""

import hashlib
import os
import socket
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor
from tqdm import tqdm

from torchfromscratch.errors import UserError
from torchfromscratch.extras import from_extra
from torchfromscratch.training.picture_files import LabelledFiles, find_labelled, read_picture

# Of each data set its class in torchvision, which takes seconds to import and so waits until one is loaded.
TORCHVISION_DATASETS = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
}

OFFLINE_CHOICES = (
    "Without a network: --dataset digits needs no download, and --dataset folder --data-dir DIR trains on "
    "your own pictures in DIR/train/<class>/ and DIR/test/<class>/."
)

# What the publishers' archives hold, which torchvision verifies once, when it has downloaded and unpacked them.
MNIST_MD5 = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}

# A server, or a proxy, that says nothing for so long will say nothing.
SECONDS_OF_SILENCE = 30.0

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
    """Square pictures to train on, others to test on, and the names of their classes.

    Attributes:
        remarks: how pictures were converted and which were left out, a line for each part that has any.
    """

    train: Pictures
    test: Pictures
    classes: list[str]
    remarks: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        return self.train.images.shape[2]

    def summary(self) -> dict[str, Any]:
        """How much there is of what, the classes' names in their order, and a digest; equal for the same data only."""
        return {
            "training": len(self.train),
            "test": len(self.test),
            "channels": self.channels,
            "image_size": self.image_size,
            "classes": self.classes,
            "digest": _digest(self.train.images, self.train.labels, self.test.images, self.test.labels),
        }


def describe(summary: Mapping[str, Any]) -> str:
    """A data set's summary in words."""
    size = f"{summary['channels']}×{summary['image_size']}×{summary['image_size']}"
    return (
        f"{summary['training']:,} training and {summary['test']:,} test pictures of {size} "
        f"in {len(summary['classes'])} classes"
    )


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


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
    with from_extra("train"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

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
    with from_extra("train"):
        from torchvision import datasets
        from torchvision.datasets.utils import check_integrity

    def load(train: bool) -> tuple[Pictures, list[str]]:
        # Whatever a missing, truncated or altered file makes the reader raise, the user needs one answer.
        try:
            with _time_limit(SECONDS_OF_SILENCE):
                source = getattr(datasets, TORCHVISION_DATASETS[name])(str(root), train=train, download=True)
            for file, md5 in MNIST_MD5.get(name, {}).items():
                if not check_integrity(os.path.join(source.raw_folder, file), md5):
                    raise ValueError(f"{file} is not the published one")
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


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """A connection that is silent for longer fails."""
    usual = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(usual)


def _folder(root: Path, image_size: int | None) -> Dataset:
    train, test = (_find_files(root / part) for part in ("train", "test"))
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes))
        raise UserError(f"the classes in {root}/train and {root}/test differ: {', '.join(differing)}")
    if len(train.classes) < 2:
        raise UserError(f"{root}/train has one class only, {train.classes[0]}: there is nothing to tell apart")
    with warnings.catch_warnings():
        # Pillow warns of what is odd in a file; what it can read is read, and what it cannot is refused.
        warnings.simplefilter("ignore")
        size = image_size or _common_size([path for path, _ in train.samples])
        (train_pictures, train_counts), (test_pictures, test_counts) = (_decode(part, size) for part in (train, test))
    remarks = _remark("training", train_counts) + _remark("test", test_counts)
    return Dataset(train_pictures, test_pictures, train.classes, remarks)


def _remark(part: str, counts: Counter[str]) -> tuple[str, ...]:
    told = "; ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
    return (f"{part} pictures: {told}",) if told else ()


def _find_files(path: Path) -> LabelledFiles:
    files = find_labelled(path) if path.is_dir() else None
    if files is None or not files.classes:
        raise UserError(
            f"no class folders found in {path}; --dataset folder expects --data-dir DIR with DIR/train/<class>/* and "
            "DIR/test/<class>/*"
        )
    return files


def _common_size(paths: list[str]) -> int:
    """The median of the shorter sides of up to 100 of the pictures, in pixels."""
    shorter_sides = [min(read_picture(path)[0].size) for path in paths[:: -(-len(paths) // 100)]]
    return min(int(median(shorter_sides)), LARGEST_CHOSEN_SIZE)


def _decode(files: LabelledFiles, size: int) -> tuple[Pictures, Counter[str]]:
    """Every picture as size×size RGB: scaled to cover the square, then cut to its centre; and what was converted."""
    samples = files.samples
    try:
        images = torch.empty(len(samples), 3, size, size, dtype=torch.uint8)
    except RuntimeError as error:
        raise UserError(
            f"{len(samples):,} pictures of {size}×{size} pixels do not fit in memory; choose a smaller --image-size"
        ) from error

    def decode(number: int) -> list[str]:
        picture, conversions = read_picture(samples[number][0])
        square = ImageOps.fit(picture, (size, size))
        images[number] = torch.from_numpy(np.array(square)).permute(2, 0, 1)
        return conversions

    counts = files.left_out.copy()
    threads = ThreadPoolExecutor(os.cpu_count())
    try:
        decoded = threads.map(decode, range(len(samples)))
        for conversions in tqdm(decoded, "reading pictures", len(samples), unit="image", leave=False, disable=None):
            counts.update(conversions)
    finally:
        threads.shutdown(cancel_futures=True)  # after Ctrl-C or a damaged picture, the rest need not be read
    return Pictures(images, torch.tensor([label for _, label in samples])), counts

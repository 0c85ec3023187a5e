"""From pictures in memory to batches ready for the network: order, crops, flips, normalisation.

Everything random is drawn for a whole epoch at once, from the seed and the epoch's number alone, and
every process draws the same: training can go on from the middle of an epoch as if it had never
stopped, and several processes see together what one process would see.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from torchfromscratch.training.data import Dataset, Pictures
from torchfromscratch.training.distributed import ALONE, Group
from torchfromscratch.training.errors import UserError

# Enough for mean and deviation to a fraction of a percent, and few enough to fit in memory as floats.
PICTURES_FOR_STATISTICS = 5_000


@dataclass(frozen=True)
class Batch:
    """This process's share of a batch.

    Attributes:
        images: (n, C, H, W) float32, normalised; behind them those that only make the share large enough.
        labels: (n,) int64.
        positions: (n,) int64, which of the data set's pictures these are.
        whole: how many pictures the batch has over all processes.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor
    whole: int


@dataclass(frozen=True)
class Augmentation:
    """How a training picture may be changed without changing what it shows.

    Attributes:
        crop_padding: the crop shifts by up to this many pixels in each direction.
        flip: a key of `FLIPS`.
        crop_fill: what moves in at the edges, a key of `FILLS`.
    """

    crop_padding: int
    flip: str
    crop_fill: str = "black"


class Batches:
    """A data set on the device, handed out in batches.

    Args:
        dataset: the pictures.
        batch_size: pictures in a training batch, over all processes together. The last may be smaller, but a single
            one joins the batch before: it would weigh as much as all others together, and has no statistics.
        least: training pictures that a network needs at once, two for batch normalisation. Where a process's share
            of a batch has fewer, the pictures that come next make it up, and count for nothing else.
        augmentation: applied to training pictures only.
        seed: of the order and the augmentation.
        device: where pictures are kept and batches made.
        memory_format: of the images.
        group: the processes that share each batch.

    Raises:
        UserError: if crops would leave nothing of some pictures.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        least: int = 1,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
        memory_format: torch.memory_format = torch.contiguous_format,
        group: Group = ALONE,
    ) -> None:
        if augmentation.crop_padding >= dataset.image_size:
            raise UserError(
                f"--crop-padding {augmentation.crop_padding} would shift pictures of {dataset.image_size} pixels "
                f"out of sight; choose less than {dataset.image_size}"
            )
        self.train, self.test = dataset.train.to(device), dataset.test.to(device)
        self.mean, self.std = _statistics(self.train)
        self.batch_size = batch_size
        self.least = least
        self.augmentation = augmentation
        self.seed = seed
        self.memory_format = memory_format
        self.group = group

    @property
    def per_epoch(self) -> int:
        """Training batches in an epoch."""
        whole, left = divmod(len(self.train), self.batch_size)
        return max(whole + (left > 1), 1)

    def count_pictures(self, batches: int) -> int:
        """How many pictures the first batches of an epoch have."""
        return len(self.train) if batches == self.per_epoch else batches * self.batch_size

    def training(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `first` on; over an epoch each picture comes exactly once."""
        count, device = len(self.train), self.train.images.device
        padding = self.augmentation.crop_padding
        draw = random_generator(self.seed, epoch)
        order = to_device(torch.randperm(count, generator=draw), device)
        shifts = to_device(torch.randint(0, 2 * padding + 1, (count, 2), generator=draw), device)
        mirrored = to_device(FLIPS[self.augmentation.flip](count, draw, self.seed, epoch), device)
        fill = FILLS[self.augmentation.crop_fill]
        for number in range(first, self.per_epoch):
            start, stop = self.count_pictures(number), self.count_pictures(number + 1)
            own = self.group.share(torch.arange(start, stop, device=device))
            missing = max(self.least - len(own), 0)
            chosen = torch.cat([own, torch.arange(stop, stop + missing, device=device) % count])
            pictures = order[chosen]
            images = random_crop(fill(self.train.images[pictures], padding), shifts[chosen], padding)
            if self.augmentation.flip != "none":
                images = torch.where(mirrored[pictures, None, None, None], images.flip(3), images)
            positions = order[own]
            yield self._batch(images, self.train.labels[positions], positions, stop - start)

    def testing(self) -> Iterator[Batch]:
        """The test pictures in their order, each exactly once."""
        everything = torch.arange(len(self.test), device=self.test.images.device)
        for whole in everything.split(self.batch_size):
            positions = self.group.share(whole)
            yield self._batch(self.test.images[positions], self.test.labels[positions], positions, len(whole))

    def normalise(self, images: Tensor) -> Tensor:
        """Bytes to floats with mean 0 and standard deviation 1 in each channel of the training pictures."""
        floats = images.to(torch.float32, memory_format=self.memory_format)
        return floats.sub_(self.mean).div_(self.std)

    def typical(self) -> Tensor:
        """Some training pictures as the network sees them, neither cropped nor mirrored, (n, C, H, W)."""
        return self.normalise(_evenly_chosen(self.train))

    def _batch(self, images: Tensor, labels: Tensor, positions: Tensor, whole: int) -> Batch:
        return Batch(self.normalise(images), labels, positions, whole)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of a tensor of the CPU on the device; one to a GPU is begun, and not waited for."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def random_crop(padded: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Cuts out of each padded picture one of the size that it had, each at a place of its own.

    torchvision's RandomCrop cuts a whole batch at one and the same place, hence these lines.

    Args:
        padded: (N, C, H + 2 · padding, W + 2 · padding).
        shifts: (N, 2) int64, the upper and left edge of each crop, from 0 to 2 · padding.
        padding: in pixels.
    """
    height, width = (size - 2 * padding for size in padded.shape[2:])
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    each = torch.arange(len(padded), device=padded.device)
    return windows[each, :, shifts[:, 0], shifts[:, 1]]


def _black_border(images: Tensor, padding: int) -> Tensor:
    return pad(images, (padding,) * 4)


def mirrored_border(images: Tensor, padding: int) -> Tensor:
    """Goes on beyond each edge with the picture's mirror image there; the edge's own pixels come once."""
    for axis in (2, 3):
        last = images.shape[axis] - 1
        positions = torch.arange(-padding, last + padding + 1, device=images.device).abs()
        images = images.index_select(axis, last - (last - positions).abs())
    return images


FILLS: dict[str, Callable[[Tensor, int], Tensor]] = {"black": _black_border, "reflect": mirrored_border}


def _no_mirroring(count: int, draw: torch.Generator, seed: int, epoch: int) -> Tensor:
    return torch.zeros(count, dtype=torch.bool)


def _mirrored_at_random(count: int, draw: torch.Generator, seed: int, epoch: int) -> Tensor:
    return torch.rand(count, generator=draw) < 0.5


def _mirrored_in_turn(count: int, draw: torch.Generator, seed: int, epoch: int) -> Tensor:
    """Half of the pictures in epochs 0, 2, 4, …, the other half in between: two epochs show both sides of each.

    Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, section 3.6.
    """
    return (torch.rand(count, generator=random_generator(seed)) < 0.5) ^ (epoch % 2 == 1)


# Which of `count` pictures are mirrored in an epoch, (count,) bool.
FLIPS: dict[str, Callable[[int, torch.Generator, int, int], Tensor]] = {
    "none": _no_mirroring,
    "random": _mirrored_at_random,
    "alternating": _mirrored_in_turn,
}


def random_generator(*key: int) -> torch.Generator:
    """A generator whose numbers depend on all of the key, and on nothing else."""
    return torch.Generator().manual_seed(random_seed(*key))


def random_seed(*key: int) -> int:
    """A seed that depends on all of the key; keys of one length, of numbers below 2³², give unrelated seeds."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def _statistics(pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (C, 1, 1), of evenly chosen pictures."""
    std, mean = torch.std_mean(_evenly_chosen(pictures).float(), dim=(0, 2, 3))
    return mean[:, None, None], std.clamp(min=1.0)[:, None, None]


def _evenly_chosen(pictures: Pictures) -> Tensor:
    stride = -(-len(pictures) // PICTURES_FOR_STATISTICS)
    return pictures.images[::stride]

"""From pictures in memory to batches ready for the network: order, crops, flips, normalisation.

Everything random is drawn for a whole epoch at once, from the seed and the epoch's number alone, and
every process draws the same: training can go on from the middle of an epoch as if it had never
stopped, and several processes see together what one process would see.
"""

from collections.abc import Iterator
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
        crop_padding: the crop shifts by up to this many pixels in each direction, black moving in.
        flip: whether a picture is mirrored with probability one half.
    """

    crop_padding: int
    flip: bool


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

    def seen(self, batches: int) -> int:
        """How many pictures the first batches of an epoch have."""
        return len(self.train) if batches == self.per_epoch else batches * self.batch_size

    def training(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `first` on; over an epoch each picture comes exactly once."""
        count, device = len(self.train), self.train.images.device
        padding = self.augmentation.crop_padding
        draw = random_generator(self.seed, epoch)
        order = torch.randperm(count, generator=draw).to(device)
        shifts = torch.randint(0, 2 * padding + 1, (count, 2), generator=draw).to(device)
        mirrored = (torch.rand(count, generator=draw) < 0.5).to(device)
        for number in range(first, self.per_epoch):
            start, stop = self.seen(number), self.seen(number + 1)
            own = self.group.share(torch.arange(start, stop))
            missing = max(self.least - len(own), 0)
            chosen = torch.cat([own, torch.arange(stop, stop + missing) % count]).to(device)
            images = random_crop(self.train.images[order[chosen]], shifts[chosen], padding)
            if self.augmentation.flip:
                images = torch.where(mirrored[chosen, None, None, None], images.flip(3), images)
            positions = order[own.to(device)]
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

    def _batch(self, images: Tensor, labels: Tensor, positions: Tensor, whole: int) -> Batch:
        return Batch(self.normalise(images), labels, positions, whole)


def random_crop(images: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Pads each picture with black and cuts one of its own size out of it, each at a place of its own.

    torchvision's RandomCrop cuts a whole batch at one and the same place, hence these lines.

    Args:
        images: (N, C, H, W).
        shifts: (N, 2) int64, the upper and left edge of each crop, from 0 to 2 · padding.
        padding: in pixels.
    """
    height, width = images.shape[2:]
    windows = pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    each = torch.arange(len(images), device=images.device)
    return windows[each, :, shifts[:, 0], shifts[:, 1]]


def random_generator(*key: int) -> torch.Generator:
    """A generator whose numbers depend on all of the key, and on nothing else."""
    return torch.Generator().manual_seed(random_seed(*key))


def random_seed(*key: int) -> int:
    """A seed that depends on all of the key; keys that differ in anything give unrelated seeds."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def _statistics(pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (C, 1, 1), of evenly chosen pictures."""
    stride = -(-len(pictures) // PICTURES_FOR_STATISTICS)
    std, mean = torch.std_mean(pictures.images[::stride].float(), dim=(0, 2, 3))
    return mean[:, None, None], std.clamp(min=1.0)[:, None, None]

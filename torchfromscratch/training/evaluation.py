"""How good the network is: averages while training, and a full account on the test pictures."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfromscratch.training.batches import Batch, mirrored_border
from torchfromscratch.training.distributed import Group

MISTAKES_KEPT = 16
CONFIDENCES = 100  # steps of confidence that are told apart


@dataclass(frozen=True)
class Mistake:
    """A test picture that the network took for something else.

    Attributes:
        confidence: the probability that the network gave to its answer.
        position: the picture's index in the test pictures.
        predicted: the class that the network saw in it.
    """

    confidence: float
    position: int
    predicted: int


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy (0 to 1) over all test pictures, and where the network goes wrong.

    Attributes:
        confusion: (classes, classes) int64, a row for each true class, a column for each predicted one.
        mistakes: the wrong answers the network was surest of, surest first.
        confidences: (classes, 2, CONFIDENCES) int64, how many pictures of another class, and how many of the class
            itself, got which probability of it, in steps from 0 to 1.
    """

    loss: float
    accuracy: float
    confusion: Tensor
    mistakes: list[Mistake]
    confidences: Tensor


class Averages:
    """Mean loss and accuracy over the pictures counted so far, by all processes together.

    Args:
        device: where pictures are counted; nothing waits for it but `compute`.
        group: the processes that count.

    Attributes:
        sums: (3,), what this process counted: the sum of the losses, right answers, pictures.
    """

    def __init__(self, device: torch.device, group: Group) -> None:
        # MPS has no float64; without it, 2²⁴ pictures can be counted.
        self.sums = torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        self.group = group

    def update(self, losses: Tensor, predicted: Tensor, labels: Tensor) -> None:
        """Counts pictures: the loss, the predicted and the true class of each, all of shape (n,), n possibly 0."""
        self.sums[0] += losses.detach().sum(dtype=self.sums.dtype)
        self.sums[1] += (predicted == labels).sum()
        self.sums[2] += len(labels)

    def total(self) -> Tensor:
        """The sums over all processes, which is why all of them must call this together."""
        return self.group.total(self.sums)

    def compute(self) -> tuple[float, float]:
        """Mean loss and accuracy (0 to 1); NaN as long as nothing was counted."""
        return means(self.total().tolist())

    def reset(self) -> None:
        self.sums.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.total().cpu().double()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums.copy_(state["sums"])


def means(sums: Sequence[float]) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) from the sums that `Averages` keeps; NaN where nothing was counted."""
    loss, right, count = sums
    return (loss / count, right / count) if count else (math.nan, math.nan)


# What the network answers from: 1 for the picture alone, 2 with its mirror image, 6 with both shifted.
VIEWS: dict[str, Callable[[Tensor], list[list[Tensor]]]] = {
    "single": lambda images: [[images]],
    "mirrored": lambda images: [[images, images.flip(3)]],
    "shifted": lambda images: [[images, images.flip(3)], _shift(images)],
}


def _shift(images: Tensor) -> list[Tensor]:
    """The pictures and their mirror images, each shifted by a pixel to the lower right and to the upper left."""
    padded = mirrored_border(images, 1)
    crops = padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]
    return [view for crop in crops for view in (crop, crop.flip(3))]


def mean_over_views(logits_of: Callable[[Tensor], Tensor], views: str) -> Callable[[Tensor], Tensor]:
    """Logits as the mean over groups of views of the mean over a group: the unshifted count as much as all others.

    Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, section 3.5.
    """

    def logits(images: Tensor) -> Tensor:
        means = [torch.stack([logits_of(view) for view in group]).mean(0) for group in VIEWS[views](images)]
        return torch.stack(means).mean(0)

    return logits


@torch.no_grad()
def evaluate(
    logits_of: Callable[[Tensor], Tensor],
    criterion: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[Batch],
    *,
    classes: int,
    device: torch.device,
    group: Group,
) -> Evaluation:
    """Looks at every picture in the batches once; all processes get the result over all of them.

    Args:
        logits_of: (n, C, H, W) → (n, classes) float32.
        criterion: logits and labels → the loss of each picture, (n,).
    """
    averages = Averages(device, group)
    answers: list[Tensor] = []
    mistakes: list[Mistake] = []
    confidences = torch.zeros(classes, 2, CONFIDENCES, dtype=torch.int64)
    for batch in batches:
        if len(batch.labels) == 0:  # a process's share of a batch with fewer pictures than processes
            continue
        logits = logits_of(batch.images)
        predicted = logits.argmax(1)
        averages.update(criterion(logits, batch.labels), predicted, batch.labels)
        answers.append((batch.labels * classes + predicted).cpu())
        mistakes = _surest(mistakes + _mistakes(logits, predicted, batch))
        confidences += _confidences(logits, batch.labels)
    loss, accuracy = averages.compute()
    everywhere = [mistake for mistakes in group.gather(mistakes) for mistake in mistakes]
    # Counted once: of 10,000 classes the matrix has 800 MB, which a metric would add up anew for every batch.
    cells = torch.cat([answer for answers in group.gather(answers) for answer in answers])
    confusion = cells.bincount(minlength=classes**2).view(classes, classes)
    confidences = torch.stack(group.gather(confidences)).sum(0)
    return Evaluation(loss, accuracy, confusion, _surest(everywhere), confidences)


def _mistakes(logits: Tensor, predicted: Tensor, batch: Batch) -> list[Mistake]:
    wrong = predicted != batch.labels
    # The largest softmax probability, without the layer softmax.
    confidence = (logits.amax(1) - logits.logsumexp(1)).exp()
    columns = (part[wrong].tolist() for part in (confidence, batch.positions, predicted))
    return [Mistake(*row) for row in zip(*columns, strict=True)]


def _confidences(logits: Tensor, labels: Tensor) -> Tensor:
    """How often each class, (classes, 2, CONFIDENCES), got which probability for pictures of others and of itself."""
    logits, labels = logits.cpu(), labels.cpu()
    classes = logits.shape[1]
    probabilities = (logits - logits.logsumexp(1, keepdim=True)).exp()
    steps = (probabilities * CONFIDENCES).long().clamp(0, CONFIDENCES - 1)
    each = torch.arange(classes)
    cells = (2 * each + (labels[:, None] == each)) * CONFIDENCES + steps
    return cells.flatten().bincount(minlength=2 * classes * CONFIDENCES).view(classes, 2, CONFIDENCES)


def _surest(mistakes: list[Mistake]) -> list[Mistake]:
    return sorted(mistakes, key=lambda mistake: (-mistake.confidence, mistake.position))[:MISTAKES_KEPT]

"""How good the network is: averages while training, and a full account on the test pictures."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

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
    """Mean loss and accuracy over the pictures counted so far, by all processes together."""

    def __init__(self, classes: int, device: torch.device) -> None:
        # Told nothing, MeanMetric drops NaN; but a loss that became NaN is just what must be noticed.
        self.metrics: dict[str, Metric] = {
            "loss": MeanMetric(nan_strategy="disable").to(device),
            "accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False).to(device),
        }
        for metric in self.metrics.values():
            metric.persistent(True)

    def update(self, losses: Tensor, predicted: Tensor, labels: Tensor) -> None:
        """Counts pictures: the loss, the predicted and the true class of each, all of shape (n,), n possibly 0."""
        if len(labels) == 0:  # of which torchmetrics takes no accuracy
            return
        self.metrics["loss"].update(losses.detach())
        self.metrics["accuracy"].update(predicted, labels)

    def compute(self) -> tuple[float, float]:
        """Mean loss and accuracy (0 to 1); NaN as long as nothing was counted."""
        with warnings.catch_warnings():
            # What was counted before a resume is in the state, but torchmetrics does not know that.
            warnings.filterwarnings("ignore", message=".*was called before the ``update`` method")
            return self.metrics["loss"].compute().item(), self.metrics["accuracy"].compute().item()

    def is_finite(self) -> bool:
        """Whether every loss that this process counted was finite."""
        return bool(torch.as_tensor(self.metrics["loss"].mean_value).isfinite())

    def reset(self) -> None:
        for metric in self.metrics.values():
            metric.reset()

    def state_dict(self) -> dict[str, Any]:
        """The sums over all processes, which is why all of them must call this together."""
        state = {}
        for name, metric in self.metrics.items():
            with metric.sync_context():
                state[name] = metric.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, metric in self.metrics.items():
            metric.load_state_dict(state[name])


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
    averages = Averages(classes, device)
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

"""What testing counts."""

import torch

from torchfromscratch.training.batches import Batch
from torchfromscratch.training.distributed import ALONE
from torchfromscratch.training.evaluation import evaluate


def test_the_confusion_matrix_counts_each_answer_once() -> None:
    torch.manual_seed(0)
    labels, predicted = torch.randint(5, (2, 40))
    logits = torch.nn.functional.one_hot(predicted, 5).float()
    batches = [
        Batch(images, labels[places], places, len(places))
        for places, images in zip(torch.arange(40).split(12), logits.split(12), strict=True)
    ]
    result = evaluate(
        lambda images: images,
        torch.nn.CrossEntropyLoss(reduction="none"),
        batches,
        classes=5,
        device=torch.device("cpu"),
        group=ALONE,
    )
    expected = torch.zeros(5, 5, dtype=torch.int64)
    for truth, answer in zip(labels, predicted, strict=True):
        expected[truth, answer] += 1
    assert torch.equal(result.confusion, expected)
    assert result.accuracy == (expected.diagonal().sum() / 40).item()
    assert len(result.mistakes) == 16

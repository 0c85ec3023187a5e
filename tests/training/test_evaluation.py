"""What testing counts."""

import torch
from torch.nn.functional import pad

from torchfromscratch.training.batches import Batch
from torchfromscratch.training.distributed import ALONE
from torchfromscratch.training.evaluation import evaluate, mean_over_views


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
    assert result.accuracy == expected.diagonal().sum().item() / 40
    assert len(result.mistakes) == 16


def test_views_are_the_picture_its_mirror_image_and_both_shifted_by_a_pixel() -> None:
    images = torch.rand(3, 1, 6, 6)
    weight = torch.rand(36)

    def logits(images: torch.Tensor) -> torch.Tensor:
        return (images.reshape(3, 36) @ weight).sin()[:, None]

    def mirrored(images: torch.Tensor) -> torch.Tensor:
        return (logits(images) + logits(images.flip(3))) / 2

    padded = pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = (mirrored(padded[:, :, :6, :6]) + mirrored(padded[:, :, 2:, 2:])) / 2
    expected = {"single": logits(images), "mirrored": mirrored(images), "shifted": (mirrored(images) + shifted) / 2}
    for views, answer in expected.items():
        torch.testing.assert_close(mean_over_views(logits, views)(images), answer)

"""Losses that hold a layer: of classes in clusters, and of a fully connected layer's logits."""

import torch

from tests.cases import Case, ModuleCase

TARGET = torch.tensor([1, 7, 4, 0])
HAS_LINEAR_CROSS_ENTROPY = hasattr(torch.nn.functional, "linear_cross_entropy")

CASES = [
    Case(
        "linear_cross_entropy",
        lambda F, x, w, b: F.linear_cross_entropy(x, w, TARGET.to(x.device), linear_bias=b, ignore_index=4),
        ((4, 3), (8, 3), (8,)),
    ),
    Case(
        "linear_cross_entropy places",
        lambda F, x, w: F.linear_cross_entropy(x, w, TARGET.view(2, 2).to(x.device), label_smoothing=0.1),
        ((2, 3), (8, 2, 3)),
        leave_out={"not_contiguous": "of classes that are all the same the gradient is 0 but for rounding"},
    ),
] * HAS_LINEAR_CROSS_ENTROPY

MODULE_CASES = [
    ModuleCase(
        "AdaptiveLogSoftmaxWithLoss",
        lambda nn: nn.AdaptiveLogSoftmaxWithLoss(6, 8, [2, 5], div_value=2, head_bias=True),
        ((4, 6),),
        lambda module, x: module(x, TARGET.to(x.device)),
        leave_out={"meta": "which rows belong to a cluster is read from the targets, in torch too"},
    ),
    *[
        ModuleCase(
            "LinearCrossEntropyLoss",
            lambda nn: nn.LinearCrossEntropyLoss(3, 8, bias=True, label_smoothing=0.1),
            ((4, 3),),
            lambda module, x: module(x, TARGET.to(x.device)),
        )
    ]
    * HAS_LINEAR_CROSS_ENTROPY,
]

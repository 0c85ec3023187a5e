"""Losses: every kind of target, weight and reduction."""

import warnings
from typing import Any

import torch

from tests.cases import Case, ModuleCase

CLASSES = torch.tensor([3, 0, 4, 1])
SOME_IGNORED = torch.tensor([3, -100, 4, 1])
SEGMENTATION = torch.tensor([[[0, 2], [1, 1], [2, 0]], [[2, 2], [0, 1], [1, 0]]])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.25, 3.0], dtype=torch.float64)


def classes(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return target.to(x.device)


def weight(x: torch.Tensor) -> torch.Tensor:
    return WEIGHT.to(x.device, x.dtype)


def probabilities(z: torch.Tensor) -> torch.Tensor:
    """Any numbers as probabilities well inside of (0, 1)."""
    return (z * z + 0.2) / (z * z + 1)


def without_warning(deprecated: Any) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return deprecated()


LOGITS = ((4, 5),)
EXACT = dict.fromkeys(
    ["jacobian_and_hessian", "forward_over_forward"],
    "torch adds 1e-12 to the denominators of its second derivative, ours is exact",
)
LOOKED_AT = {"meta": "torch asks whether a variance is negative, which is unknown there"}
PAIR = ((3, 4), (3, 4))

CASES = [
    Case("cross_entropy", lambda F, x: F.cross_entropy(x, classes(x, CLASSES)), LOGITS),
    Case("cross_entropy none", lambda F, x: F.cross_entropy(x, classes(x, CLASSES), reduction="none"), LOGITS),
    Case(
        "cross_entropy weight ignore_index",
        lambda F, x: F.cross_entropy(x, classes(x, CLASSES), weight(x), ignore_index=4),
        LOGITS,
    ),
    Case(
        "cross_entropy label_smoothing",
        lambda F, x: F.cross_entropy(x, classes(x, SOME_IGNORED), weight(x), label_smoothing=0.2),
        LOGITS,
    ),
    Case(
        "cross_entropy pictures",
        lambda F, x: F.cross_entropy(x, classes(x, SEGMENTATION), reduction="sum"),
        ((2, 3, 3, 2),),
    ),
    Case("cross_entropy unbatched", lambda F, x: F.cross_entropy(x, classes(x, CLASSES)[0]), ((5,),)),
    Case("cross_entropy probabilities", lambda F, x, y: F.cross_entropy(x, probabilities(y)), ((4, 5), (4, 5))),
    Case(
        "cross_entropy probabilities weight label_smoothing",
        lambda F, x, y: F.cross_entropy(x, probabilities(y), weight(x)[:3], label_smoothing=0.1, reduction="sum"),
        ((2, 3, 4), (2, 3, 4)),
    ),
    Case("nll_loss", lambda F, x: F.nll_loss(x, classes(x, SOME_IGNORED), weight(x)), LOGITS),
    Case(
        "nll_loss pictures",
        lambda F, x: F.nll_loss(x, classes(x, SEGMENTATION), reduction="none"),
        ((2, 3, 3, 2),),
        leave_out={"not_contiguous": "torch: grad_input must be contiguous"},
    ),
    Case(
        "binary_cross_entropy",
        lambda F, x, y: F.binary_cross_entropy(probabilities(x), probabilities(y)),
        PAIR,
        leave_out=EXACT,
    ),
    Case(
        "binary_cross_entropy weight",
        lambda F, x, y: F.binary_cross_entropy(probabilities(x), probabilities(y), weight(x)[:4], reduction="sum"),
        PAIR,
        leave_out=EXACT,
    ),
    Case("binary_cross_entropy_with_logits", lambda F, x, y: F.binary_cross_entropy_with_logits(x, y), PAIR),
    Case(
        "binary_cross_entropy_with_logits weights",
        lambda F, x, y: F.binary_cross_entropy_with_logits(x, y, weight(x)[1:], pos_weight=weight(x)[:4]),
        PAIR,
    ),
    Case("mse_loss", lambda F, x, y: F.mse_loss(x, y), PAIR),
    Case("mse_loss weight", lambda F, x, y, w: F.mse_loss(x, y, weight=w * w), ((3, 4), (3, 4), (3, 4))),
    Case("l1_loss", lambda F, x, y: F.l1_loss(x, y, reduction="sum"), PAIR),
    Case("l1_loss weight", lambda F, x, y, w: F.l1_loss(x, y, weight=w * w), ((3, 4), (3, 4), (3, 4))),
    Case("smooth_l1_loss", lambda F, x, y: F.smooth_l1_loss(x, y, beta=1.3), PAIR),
    Case("huber_loss", lambda F, x, y: F.huber_loss(x, y, reduction="none", delta=1.3), PAIR),
    Case("huber_loss weight", lambda F, x, y, w: F.huber_loss(x, y, weight=w), ((3, 4), (3, 4), (3, 4))),
    Case("kl_div", lambda F, x, y: F.kl_div(x, probabilities(y), reduction="batchmean"), PAIR),
    Case("kl_div log_target", lambda F, x, y: F.kl_div(x, y, reduction="sum", log_target=True), PAIR),
    Case(
        "gaussian_nll_loss",
        lambda F, x, y, v: F.gaussian_nll_loss(x, y, probabilities(v)),
        (*PAIR, (3, 4)),
        leave_out=LOOKED_AT,
    ),
    Case(
        "gaussian_nll_loss shared",
        lambda F, x, y, v: F.gaussian_nll_loss(x, y, probabilities(v), full=True, reduction="none"),
        (*PAIR, (3,)),
        leave_out=LOOKED_AT,
    ),
    Case("poisson_nll_loss", lambda F, x, y: F.poisson_nll_loss(x, y * y), PAIR),
    Case(
        "poisson_nll_loss rates",
        lambda F, x, y: F.poisson_nll_loss(probabilities(x), y * y, log_input=False, full=True, reduction="sum"),
        PAIR,
    ),
]

MODULE_CASES = [
    ModuleCase(
        "CrossEntropyLoss",
        lambda nn: nn.CrossEntropyLoss(torch.tensor(WEIGHT.tolist()), label_smoothing=0.1),
        LOGITS,
        lambda loss, x: loss.to(x.dtype)(x, classes(x, SOME_IGNORED)),
    ),
    ModuleCase(
        "NLLLoss",
        lambda nn: nn.NLLLoss(ignore_index=4),
        LOGITS,
        lambda loss, x: loss(x, classes(x, CLASSES)),
    ),
    ModuleCase(
        "BCELoss",
        lambda nn: nn.BCELoss(),
        PAIR,
        lambda loss, x, y: loss(probabilities(x), probabilities(y)),
    ),
    ModuleCase("BCEWithLogitsLoss", lambda nn: nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), PAIR),
    ModuleCase("MSELoss", lambda nn: nn.MSELoss(), PAIR),
    ModuleCase("L1Loss", lambda nn: nn.L1Loss(reduction="none"), PAIR),
    ModuleCase("SmoothL1Loss", lambda nn: nn.SmoothL1Loss(beta=0.7), PAIR),
    ModuleCase("HuberLoss", lambda nn: nn.HuberLoss(reduction="sum", delta=0.7), PAIR),
    ModuleCase(
        "NLLLoss2d",
        lambda nn: without_warning(nn.NLLLoss2d),
        ((2, 3, 3, 2),),
        lambda loss, x: loss(x, classes(x, SEGMENTATION)),
    ),
    ModuleCase(
        "GaussianNLLLoss",
        lambda nn: nn.GaussianNLLLoss(full=True),
        (*PAIR, (3, 1)),
        lambda loss, x, y, v: loss(x, y, probabilities(v)),
        leave_out=LOOKED_AT,
    ),
    ModuleCase(
        "PoissonNLLLoss",
        lambda nn: nn.PoissonNLLLoss(full=True, reduction="sum"),
        PAIR,
        lambda loss, x, y: loss(x, y * y),
    ),
    ModuleCase("KLDivLoss", lambda nn: nn.KLDivLoss(reduction="batchmean", log_target=True), PAIR),
]

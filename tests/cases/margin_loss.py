"""Losses with a margin: pairs, triplets and classes, right by more and by less than the margin."""

import torch

from tests.cases import Case, ModuleCase

SIGNS = torch.tensor([1, -1, -1])
SIGNS_OF_EACH = torch.tensor([[1, -1, -1, 1], [-1, 1, 1, -1], [1, 1, -1, -1]])
CLASSES = torch.tensor([3, 0, 2])
LABELS = torch.tensor([[3, 0, -1, 1], [-1, 2, 1, 0], [2, 1, 3, 0]])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.25], dtype=torch.float64)


def on(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return target.to(x.device)


def weight(x: torch.Tensor) -> torch.Tensor:
    return WEIGHT.to(x.device, x.dtype)


def squared_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - y).square().sum(-1)


SCORES = ((3, 4),)
PAIR = ((3, 4), (3, 4))
TRIPLET = ((3, 4), (3, 4), (3, 4))
NO_META = {"meta": "torch has no kernel for it"}
MEAN = NO_META | {"empty_batch": "torch's mean of nothing is memory that nobody wrote"}

CASES = [
    Case("hinge_embedding_loss", lambda F, x: F.hinge_embedding_loss(x, on(x, SIGNS_OF_EACH)), SCORES),
    Case(
        "hinge_embedding_loss none",
        lambda F, x: F.hinge_embedding_loss(x, on(x, SIGNS_OF_EACH[:1]), margin=0.3, reduction="none"),
        SCORES,
    ),
    Case("cosine_embedding_loss", lambda F, x, y: F.cosine_embedding_loss(x, y, on(x, SIGNS)), PAIR),
    Case(
        "cosine_embedding_loss one",
        lambda F, x, y: F.cosine_embedding_loss(x, y, on(x, SIGNS)[1], margin=0.2, reduction="sum"),
        ((4,), (4,)),
        leave_out={"not_contiguous": "expanded, both are of one direction: the gradient is 0 but for rounding"},
    ),
    Case("margin_ranking_loss", lambda F, x, y, s: F.margin_ranking_loss(x, y, s), TRIPLET),
    Case(
        "margin_ranking_loss none",
        lambda F, x, y: F.margin_ranking_loss(x, y, on(x, SIGNS_OF_EACH), margin=0.5, reduction="none"),
        PAIR,
    ),
    Case("soft_margin_loss", lambda F, x: F.soft_margin_loss(x, on(x, SIGNS_OF_EACH).to(x.dtype)), SCORES),
    Case(
        "multilabel_soft_margin_loss",
        lambda F, x, y: F.multilabel_soft_margin_loss(x, y, weight(x), reduction="none"),
        PAIR,
    ),
    Case("multi_margin_loss", lambda F, x: F.multi_margin_loss(x, on(x, CLASSES)), SCORES, leave_out=MEAN),
    Case(
        "multi_margin_loss squared weight",
        lambda F, x: F.multi_margin_loss(x, on(x, CLASSES), 2, 0.7, weight(x), reduction="sum"),
        SCORES,
        leave_out=NO_META,
    ),
    Case(
        "multi_margin_loss one",
        lambda F, x: F.multi_margin_loss(x, on(x, CLASSES)[0], reduction="none"),
        ((4,),),
        leave_out=NO_META,
    ),
    Case("multilabel_margin_loss", lambda F, x: F.multilabel_margin_loss(x, on(x, LABELS)), SCORES, leave_out=MEAN),
    Case(
        "multilabel_margin_loss none",
        lambda F, x: F.multilabel_margin_loss(x, on(x, LABELS), reduction="none"),
        SCORES,
        leave_out=NO_META,
    ),
    Case(
        "multilabel_margin_loss one",
        lambda F, x: F.multilabel_margin_loss(x, on(x, LABELS)[0]),
        ((4,),),
        leave_out=NO_META,
    ),
    Case("triplet_margin_loss", lambda F, a, p, n: F.triplet_margin_loss(a, p, n), TRIPLET),
    Case(
        "triplet_margin_loss swap",
        lambda F, a, p, n: F.triplet_margin_loss(a, p, n, margin=2.5, p=3, swap=True, reduction="none"),
        TRIPLET,
    ),
    Case(
        "triplet_margin_with_distance_loss",
        lambda F, a, p, n: F.triplet_margin_with_distance_loss(a, p, n, margin=2.5, swap=True, reduction="sum"),
        TRIPLET,
    ),
    Case(
        "triplet_margin_with_distance_loss own",
        lambda F, a, p, n: F.triplet_margin_with_distance_loss(a, p, n, distance_function=squared_distance),
        TRIPLET,
    ),
]

MODULE_CASES = [
    ModuleCase(
        "HingeEmbeddingLoss",
        lambda nn: nn.HingeEmbeddingLoss(0.7),
        SCORES,
        lambda loss, x: loss(x, on(x, SIGNS_OF_EACH)),
    ),
    ModuleCase(
        "CosineEmbeddingLoss",
        lambda nn: nn.CosineEmbeddingLoss(0.3, reduction="none"),
        PAIR,
        lambda loss, x, y: loss(x, y, on(x, SIGNS)),
    ),
    ModuleCase(
        "MarginRankingLoss",
        lambda nn: nn.MarginRankingLoss(0.3),
        PAIR,
        lambda loss, x, y: loss(x, y, on(x, SIGNS_OF_EACH)),
    ),
    ModuleCase(
        "SoftMarginLoss",
        lambda nn: nn.SoftMarginLoss(),
        SCORES,
        lambda loss, x: loss(x, on(x, SIGNS_OF_EACH).to(x.dtype)),
    ),
    ModuleCase("MultiLabelSoftMarginLoss", lambda nn: nn.MultiLabelSoftMarginLoss(torch.tensor(WEIGHT.tolist())), PAIR),
    ModuleCase(
        "MultiLabelMarginLoss",
        lambda nn: nn.MultiLabelMarginLoss(reduction="sum"),
        SCORES,
        lambda loss, x: loss(x, on(x, LABELS)),
    ),
    ModuleCase(
        "MultiMarginLoss",
        lambda nn: nn.MultiMarginLoss(2, weight=torch.tensor(WEIGHT.tolist())),
        SCORES,
        lambda loss, x: loss(x, on(x, CLASSES)),
    ),
    ModuleCase("TripletMarginLoss", lambda nn: nn.TripletMarginLoss(swap=True), TRIPLET),
    ModuleCase("TripletMarginWithDistanceLoss", lambda nn: nn.TripletMarginWithDistanceLoss(), TRIPLET),
]

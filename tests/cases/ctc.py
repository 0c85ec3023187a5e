"""CTC: targets with repetitions, none at all, fewer steps than there are, and every form of the arguments."""

import torch
from torch import Tensor

from tests.cases import Case, ModuleCase

TARGETS = torch.tensor([[1, 1, 2], [3, 2, 0], [2, 0, 0]])
STEPS, LENGTHS = (5, 4, 6), (3, 2, 0)
LOGITS = ((6, 3, 4),)
NO_META = {"meta": "torch: no meta kernel for the backward"}


def _log_probs(x: Tensor) -> Tensor:
    return x - x.logsumexp(-1, keepdim=True)


CASES = [
    *[
        Case(
            f"ctc_loss {reduction}",
            lambda F, x, r=reduction: F.ctc_loss(_log_probs(x), TARGETS.to(x.device), STEPS, LENGTHS, reduction=r),
            LOGITS,
            leave_out=NO_META,
        )
        for reduction in ("mean", "sum", "none")
    ],
    Case(
        "ctc_loss one after the other, another blank",
        lambda F, x: F.ctc_loss(
            _log_probs(x), torch.tensor([1, 1, 2, 0, 2], device=x.device), STEPS, LENGTHS, blank=3, reduction="sum"
        ),
        LOGITS,
        leave_out=NO_META,
    ),
    Case(
        "ctc_loss unbatched",
        lambda F, x: F.ctc_loss(_log_probs(x), TARGETS[0].to(x.device), (5,), (3,), reduction="none"),
        ((6, 4),),
        leave_out=NO_META,
    ),
    Case(
        "ctc_loss zero_infinity",
        lambda F, x: F.ctc_loss(_log_probs(x), TARGETS.to(x.device), (3, 4, 6), LENGTHS, zero_infinity=True),
        LOGITS,
        leave_out=NO_META,
    ),
]

MODULE_CASES = [
    ModuleCase(
        "CTCLoss",
        lambda nn: nn.CTCLoss(blank=0, zero_infinity=True),
        LOGITS,
        lambda loss, x: loss(_log_probs(x), TARGETS.to(x.device), STEPS, LENGTHS),
    ),
]

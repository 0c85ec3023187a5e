"""Embedding: repeated indices, and every option that changes a value or a gradient."""

from typing import Any

import torch
from torch import Tensor

from tests import lacks
from tests.cases import Case, ModuleCase

ON_PURPOSE = dict.fromkeys(
    ["first_derivatives", "every_element_of_the_derivatives", "forward_over_forward"],
    "the gradient is not the derivative: that is what the option asks for",
)
COMPARED = [
    "values_and_gradients",
    "not_contiguous",
    "per_sample_gradients",
    "jacobian_and_hessian",
    "accuracy",
    "autocast",
    "lets_pass_in_place_what_torch_lets_pass",
]
AGAINST_TORCHS_GRADIENT = dict.fromkeys(COMPARED, reason) if (reason := lacks.frequencies_of_the_bags_own()) else {}


def _indices(*, like: Tensor) -> Tensor:
    return torch.tensor([[1, 3, 1], [0, 2, 1]], device=like.device)


def _bags(*, like: Tensor) -> tuple[Tensor, Tensor]:
    """Members, one of them twice in a bag, and where the bags begin: the second is empty."""
    return torch.tensor([1, 3, 1, 0, 2, 1], device=like.device), torch.tensor([0, 3, 3], device=like.device)


def _bag(F: Any, w: Tensor, **options: Any) -> Tensor:
    members, offsets = _bags(like=w)
    return F.embedding_bag(members, w, offsets, **options)


CASES = [
    Case("embedding", lambda F, w: F.embedding(_indices(like=w), w), ((5, 3),)),
    Case("embedding of one", lambda F, w: F.embedding(torch.tensor(2, device=w.device), w), ((5, 3),)),
    Case(
        "embedding padding_idx",
        lambda F, w: F.embedding(_indices(like=w), w, padding_idx=-4),
        ((5, 3),),
        leave_out={**ON_PURPOSE, "empty_batch": "a table without rows has none for padding"},
    ),
    Case(
        "embedding scale_grad_by_freq",
        lambda F, w: F.embedding(_indices(like=w), w, scale_grad_by_freq=True),
        ((5, 3),),
        leave_out=ON_PURPOSE,
    ),
    *[
        Case(f"embedding_bag {mode}", lambda F, w, m=mode: _bag(F, w, mode=m), ((5, 3),))
        for mode in ("sum", "mean", "max")
    ],
    *[
        Case(
            f"embedding_bag {mode} padding_idx",
            lambda F, w, m=mode: F.embedding_bag(_indices(like=w), w, mode=m, padding_idx=1),
            ((5, 3),),
            leave_out={"empty_batch": "a table without rows has none for padding"},
        )
        for mode in ("sum", "mean", "max")
    ],
    Case("embedding_bag weights", lambda F, w, s: _bag(F, w, mode="sum", per_sample_weights=s), ((5, 3), (6,))),
    Case(
        "embedding_bag scale_grad_by_freq",
        lambda F, w: _bag(F, w, mode="sum", scale_grad_by_freq=True),
        ((5, 3),),
        leave_out={**ON_PURPOSE, **AGAINST_TORCHS_GRADIENT},
    ),
]

MODULE_CASES = [
    ModuleCase("Embedding", lambda nn: nn.Embedding(5, 3), (), lambda module: module(_indices(like=module.weight))),
    ModuleCase(
        "Embedding padding_idx",
        lambda nn: nn.Embedding(5, 3, padding_idx=1),
        (),
        lambda module: module(_indices(like=module.weight)),
    ),
    ModuleCase(
        "Embedding max_norm",
        lambda nn: nn.Embedding(5, 3, max_norm=0.5),
        (),
        lambda module: module(_indices(like=module.weight)),
    ),
    ModuleCase(
        "EmbeddingBag",
        lambda nn: nn.EmbeddingBag(5, 3, padding_idx=2),
        (),
        lambda module: module(*_bags(like=module.weight)),
    ),
    ModuleCase(
        "EmbeddingBag max_norm",
        lambda nn: nn.EmbeddingBag(5, 3, max_norm=0.5, mode="max", include_last_offset=True),
        (),
        lambda module: module(_indices(like=module.weight)[0], _bags(like=module.weight)[1]),
    ),
]

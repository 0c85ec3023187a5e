"""Embedding: repeated indices, and every option that changes a value or a gradient."""

import torch
from torch import Tensor

from tests.cases import Case, ModuleCase

ON_PURPOSE = dict.fromkeys(
    ["first_derivatives", "every_element_of_the_derivatives", "forward_over_forward"],
    "the gradient is not the derivative: that is what the option asks for",
)


def _indices(*, like: Tensor) -> Tensor:
    return torch.tensor([[1, 3, 1], [0, 2, 1]], device=like.device)


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
]

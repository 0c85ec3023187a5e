"""Distances and lengths where the cases say nothing: vectors of zeros, and rows that are equal."""

from __future__ import annotations

import math

import pytest
import torch

from tests.subjects import assert_as_torch
from torchfromscratch import functional as F

ZEROS = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, math.inf])
def test_of_nothing(p: float) -> None:
    """A length of 0 has the gradient 0, as in torch; of every exponent."""
    x = ZEROS.clone().requires_grad_()
    assert_as_torch("normalize", [x], {"p": p})
    assert_as_torch("pairwise_distance", [x, ZEROS.flip(1).requires_grad_()], {"p": p, "eps": 0.0})
    if p not in (0.5, 1.5):  # of which torch's gradient of two equal rows is not a number
        assert_as_torch("pdist", [x], {"p": p})


def test_second_derivative_of_nothing_is_a_number() -> None:
    for call in (F.normalize, F.pdist, lambda x: F.pairwise_distance(x, x.flip(0), eps=0.0)):
        x = ZEROS.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        assert second.isfinite().all()


def test_cosine_of_nothing() -> None:
    assert_as_torch("cosine_similarity", [ZEROS.clone().requires_grad_(), ZEROS.flip(1).requires_grad_()], {})

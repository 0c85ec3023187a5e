"""Distances and lengths where the cases say nothing: vectors of zeros, and rows that are equal."""

from __future__ import annotations

import math

import pytest
import torch

from tests import lacks
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


ONES, BASIS = torch.ones(2, 3), torch.eye(2, 3)
AT_THE_MARGIN = {
    "hinge_embedding_loss": ((ONES,), {"target": -ONES}),
    "margin_ranking_loss": ((ONES, ONES.clone()), {"target": ONES}),
    "cosine_embedding_loss": ((BASIS, BASIS.flip(0)), {"target": torch.tensor([-1, -1])}),
    "triplet_margin_loss": ((ONES, ONES.clone(), ONES + torch.eye(2, 3)), {"eps": 0.0}),
    "multi_margin_loss": ((BASIS,), {"target": torch.tensor([0, 1])}),
    "multilabel_margin_loss": ((BASIS,), {"target": torch.tensor([[0, -1, 0], [1, -1, 0]])}),
    "normalize": ((BASIS,), {"eps": 1.0}),
}


@lacks.marked(lacks.bounds_without_gradient())
@pytest.mark.parametrize("name", AT_THE_MARGIN)
def test_at_a_bound_itself_nothing_moves(name: str) -> None:
    tensors, options = AT_THE_MARGIN[name]
    assert_as_torch(name, [tensor.double().requires_grad_() for tensor in tensors], options)


@pytest.mark.parametrize("p", [1.0, math.inf])
def test_a_distance_that_is_infinite_has_a_slope(p: float) -> None:
    """Of p = 1, the sign of each difference, as of a finite one."""
    points = torch.tensor([[torch.inf, 0.0], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    F.pdist(points, p).sum().backward()
    assert points.grad is not None
    torch.testing.assert_close(
        points.grad, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double() * torch.tensor([1, p == 1])
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex128])
@pytest.mark.parametrize("name", ["pdist", "fractional_max_pool2d"])
def test_types_that_have_no_order_or_no_root(name: str, dtype: torch.dtype) -> None:
    shape, options = ((4, 3), {}) if name == "pdist" else ((1, 1, 5, 5), {"kernel_size": 2, "output_size": 2})
    error = RuntimeError if name == "pdist" else NotImplementedError
    given = torch.ones(shape, dtype=dtype)
    with pytest.raises(error) as raised:
        getattr(F, name)(given, **options)
    assert raised.type is error
    lacks.assert_raises(error, lambda: getattr(torch.nn.functional, name)(given, **options))


def test_ranking_losses_lie_as_their_targets() -> None:
    first, second = torch.randn(3, 2).mT, torch.randn(3, 2).mT
    ours, theirs = (
        library.margin_ranking_loss(first, second, torch.ones(2, 3), reduction="none")
        for library in (F, torch.nn.functional)
    )
    assert ours.stride() == theirs.stride()

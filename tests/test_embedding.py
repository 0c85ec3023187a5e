"""Embedding: the options that change the table or the gradient, and the same errors as torch."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import torchfromscratch.functional as F
from torchfromscratch import nn

INDICES = torch.tensor([[1, 3, 1], [0, 2, 1]])


def table(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linspace(-3, 3, 15).view(5, 3).to(dtype).requires_grad_()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("padding_idx", [None, 1, -2, 0])
@pytest.mark.parametrize("index_type", [torch.int32, torch.int64], ids=str)
def test_gradient_equals_torchs(sparse: bool, padding_idx: int | None, index_type: torch.dtype) -> None:
    gradients = []
    for namespace in (F, torch.nn.functional):
        weight = table()
        output = namespace.embedding(INDICES.to(index_type), weight, padding_idx, sparse=sparse)
        output.backward(torch.arange(18.0, dtype=torch.float64).view(2, 3, 3))
        gradients.append(weight.grad)
    ours, theirs = gradients
    assert ours.layout == theirs.layout
    if sparse:
        assert torch.equal(ours._indices(), theirs._indices())
    torch.testing.assert_close(ours.to_dense(), theirs.to_dense())


def test_frequency_divides_the_gradient_of_a_row() -> None:
    weight = table()
    F.embedding(INDICES, weight, scale_grad_by_freq=True).sum().backward()
    assert torch.equal(weight.grad, torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64)[:, None].expand(5, 3))


def test_frequency_also_scales_the_gradient_of_the_gradient() -> None:
    # torch's double backward forgets the scale
    weight, seed = table(), torch.ones(2, 3, 3, dtype=torch.float64, requires_grad=True)
    output = F.embedding(INDICES, weight, scale_grad_by_freq=True)
    (gradient,) = torch.autograd.grad(output, weight, seed, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), seed)
    counts = torch.tensor([[3.0, 1, 3], [1, 1, 3]], dtype=torch.float64)
    torch.testing.assert_close(second, (1 / counts)[..., None].expand(2, 3, 3))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, float("inf"), 0.0])
@pytest.mark.parametrize("max_norm", [0.7, 2.0, 100.0])
def test_max_norm_changes_the_named_rows_as_torch_does(max_norm: float, norm_type: float) -> None:
    tables = []
    for namespace in (F, torch.nn.functional):
        weight = table()
        output = namespace.embedding(INDICES, weight, max_norm=max_norm, norm_type=norm_type)
        tables.append((weight.detach(), output))
    torch.testing.assert_close(*tables)
    assert torch.equal(tables[0][0][4], table()[4])


def test_max_norm_is_seen_by_autograd_as_a_change_in_place() -> None:
    weight = table()
    version = weight._version
    F.embedding(INDICES, weight, max_norm=1.0)
    assert weight._version > version


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_many_narrow_gradients_are_added_up_without_loss(dtype: torch.dtype) -> None:
    count = 4096
    weight = torch.zeros(2, 1, dtype=dtype, requires_grad=True)
    F.embedding(torch.zeros(count, dtype=torch.int64), weight).sum().backward()
    assert weight.grad[0].item() == count


@pytest.mark.parametrize(
    ("indices", "weight", "options"),
    [
        (torch.tensor([5]), table(), {}),
        (torch.tensor([-1]), table(), {}),
        (torch.tensor([1.0]), table(), {}),
        (torch.tensor([True]), table(), {}),
        (torch.tensor([1], dtype=torch.int16), table(), {}),
        ([1], table(), {}),
        (torch.tensor([0]), torch.ones(3), {}),
        (torch.tensor([0]), torch.ones(3, 2, 2), {}),
        (torch.tensor([1]), table(), {"padding_idx": 5}),
        (torch.tensor([1]), table(), {"padding_idx": -6}),
        (torch.tensor([7]), table(), {"max_norm": 1.0}),
    ],
    ids=str,
)
def test_raises_what_torch_raises(indices: Any, weight: Tensor, options: dict) -> None:
    with pytest.raises((IndexError, RuntimeError, AssertionError, TypeError)) as theirs:
        torch.nn.functional.embedding(indices, weight, **options)
    with pytest.raises(theirs.type):
        F.embedding(indices, weight, **options)


def test_sparse_gradient_by_frequency_raises_as_in_torch() -> None:
    for namespace in (F, torch.nn.functional):
        with pytest.raises(RuntimeError, match="sparse"):
            namespace.embedding(INDICES, table(), sparse=True, scale_grad_by_freq=True).sum().backward()


def test_from_pretrained_gives_our_module() -> None:
    module = nn.Embedding.from_pretrained(table().detach(), padding_idx=2)
    assert type(module) is nn.Embedding
    assert torch.equal(module(INDICES), table()[INDICES])
    assert not module.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_max_norm_for_indices_of_both_types(dtype: torch.dtype) -> None:
    index = torch.tensor([1, 3, 1], dtype=dtype)
    tables = [torch.arange(12.0).reshape(4, 3) for _ in range(2)]
    outputs = [
        library.embedding(index, table, max_norm=1.0)
        for library, table in zip((F, torch.nn.functional), tables, strict=True)
    ]
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*tables)


def test_max_norm_has_no_tangent() -> None:
    """The rows are scaled before they are looked up, and the scaling is no part of the function, as in torch."""
    weight, tangent = table().detach(), torch.ones_like(table())

    def value_and_tangent(library: Any) -> tuple[Tensor, Tensor]:
        function = partial(library.embedding, INDICES, max_norm=1.0)
        return torch.func.jvp(lambda w: function(weight=w), (weight.clone(),), (tangent,))

    torch.testing.assert_close(value_and_tangent(F), value_and_tangent(torch.nn.functional))
    assert torch.equal(tangent, torch.ones_like(tangent))


@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("indices", [[1, 2, 2], [[1], [2]], []], ids=str)
@pytest.mark.parametrize("width", [0, 3])
def test_sparse_gradients_of_any_width(width: int, indices: list, padding_idx: int | None) -> None:
    found = []
    for library in (F, torch.nn.functional):
        weight = torch.ones(4, width, requires_grad=True)
        given = torch.tensor(indices, dtype=torch.int64)
        library.embedding(given, weight, padding_idx, sparse=True).sum().backward()
        assert weight.grad is not None
        assert weight.grad.is_sparse
        found.append((weight.grad._indices(), weight.grad._values()))
    torch.testing.assert_close(*found)

"""Embedding: the options that change the table or the gradient, and the same errors as torch."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import torchfromscratch
import torchfromscratch.functional as F
from tests import lacks
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


BAGS = [
    (torch.tensor([[1, 3, 1], [0, 2, 1]]), None),
    (torch.tensor([1, 3, 1, 0, 2, 1, 4]), torch.tensor([0, 3, 3, 4])),
    (torch.tensor([1, 3, 1, 0, 2], dtype=torch.int32), torch.tensor([0, 1, 5, 5])),
    (torch.tensor([], dtype=torch.int64), torch.tensor([0, 0])),
]


@pytest.mark.parametrize("options", [{}, {"padding_idx": 1}, {"padding_idx": -2, "max_norm": 0.8}], ids=str)
@pytest.mark.parametrize("include_last_offset", [False, True])
@pytest.mark.parametrize("bags", BAGS, ids=["equal", "empty one", "int32", "none at all"])
@pytest.mark.parametrize("mode", ["sum", "mean", "max", "weights", "sparse", "sparse mean", "frequency"])
def test_bags_equal_torchs(mode: str, bags: tuple, include_last_offset: bool, options: dict[str, Any]) -> None:
    """Values, the gradients of table and weights and their layout, and the table after max_norm."""
    if mode == "frequency" and (reason := lacks.frequencies_of_the_bags_own()):
        pytest.skip(reason)
    members, offsets = bags
    if include_last_offset and offsets is None and (reason := lacks.rows_of_bags_beside_a_last_offset()):
        pytest.skip(reason)
    if include_last_offset and offsets is not None:
        offsets = torch.cat([offsets, torch.tensor([members.numel()])])
    given = dict(options, mode="mean" if "mean" in mode else mode if mode == "max" else "sum")
    found = []
    for library in (F, torch.nn.functional):
        base = table().detach().clone().requires_grad_()
        weight = base.clone() if "max_norm" in options else base
        scale = torch.linspace(0.5, 2, members.numel(), dtype=torch.float64).view(members.shape).requires_grad_()
        output = library.embedding_bag(
            members,
            weight,
            offsets,
            sparse="sparse" in mode and weight is base,
            scale_grad_by_freq=mode == "frequency",
            per_sample_weights=scale if mode == "weights" else None,
            include_last_offset=include_last_offset,
            **given,
        )
        output.backward(torch.linspace(-1, 2, output.numel(), dtype=torch.float64).view(output.shape))
        assert base.grad is not None
        found.append((output, base.grad.to_dense(), base.grad.is_sparse, scale.grad, weight))
    assert found[0][2] == found[1][2]
    torch.testing.assert_close([*found[0][:2], found[0][4]], [*found[1][:2], found[1][4]])
    if mode == "weights":
        torch.testing.assert_close(found[0][3], found[1][3])


def test_members_behind_the_last_offset_are_in_no_bag() -> None:
    # torch's sums leave them out, its means and maxima do not
    members, offsets = torch.tensor([1, 2, 3, 4]), torch.tensor([0, 2, 3])
    for mode in ("sum", "mean", "max"):
        bags = F.embedding_bag(members, table(), offsets, mode=mode, include_last_offset=True)
        assert torch.equal(bags[1], table()[3])


def test_rows_of_minus_infinity_and_nan_in_bags() -> None:
    weight = table().detach()
    weight[1], weight[2] = -torch.inf, torch.nan
    maxima = F.embedding_bag(torch.tensor([[0, 1, 1], [0, 4, 2]]), weight, mode="max", padding_idx=0)
    assert torch.equal(maxima[0], weight[1])
    assert maxima[1].isnan().all()
    assert torch.equal(F.embedding_bag(torch.tensor([[2, 4]]), weight, mode="sum", padding_idx=2)[0], weight[4])


@pytest.mark.parametrize("lengths", [[1, 1, 90], [30, 31, 32]], ids=str)
def test_largest_of_short_and_long_bags(lengths: list[int]) -> None:
    members = torch.arange(sum(lengths)) * 7 % 41
    offsets = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    weight = (torch.arange(41 * 4) * 89 % 13).view(41, 4).double()  # of few values, to have equals
    found = []
    for library in (F, torch.nn.functional):
        leaf = weight.clone().requires_grad_()
        output = library.embedding_bag(members, leaf, offsets, mode="max")
        found.append([output, *torch.autograd.grad(output.square().sum(), leaf)])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("indices", "offsets", "options"),
    [
        ([5], [0], {}),
        ([-1], [0], {}),
        ([1.0], [0], {}),
        ([1], [0.0], {}),
        ([1], [1], {}),
        ([1, 2], [0, 3], {}),
        ([1], None, {}),
        ([[1]], [0], {}),
        ([[[1]]], None, {}),
        ([1], [[0]], {}),
        ([1], [0], {"mode": "median"}),
        ([1], [0], {"mode": "max", "sparse": True}),
        ([1], [0], {"mode": "max", "scale_grad_by_freq": True}),
        ([1], [0], {"mode": "mean", "per_sample_weights": torch.ones(1, dtype=torch.float64)}),
        ([1], [0], {"mode": "sum", "per_sample_weights": torch.ones(1)}),
        ([1], [0], {"mode": "sum", "per_sample_weights": torch.ones(2)}),
        ([1], [0], {"padding_idx": 5}),
        ([1], [], {"include_last_offset": True}),
    ],
    ids=str,
)
def test_bags_raise_what_torch_raises(indices: list, offsets: list | None, options: dict[str, Any]) -> None:
    given = (
        torch.tensor(indices),
        table(),
        None if offsets is None else torch.tensor(offsets, dtype=None if offsets else torch.int64),
    )
    with pytest.raises((IndexError, RuntimeError, ValueError, NotImplementedError)) as theirs:
        torch.nn.functional.embedding_bag(*given, **options)
    with pytest.raises(theirs.type):
        F.embedding_bag(*given, **options)


def test_torchs_own_embedding_bag_by_hand() -> None:
    weight, members, offsets = table(), torch.tensor([1, 3, 1, 0]), torch.tensor([0, 3])
    for number, mode in enumerate(("sum", "mean", "max")):
        with torchfromscratch.audit(), torchfromscratch.from_scratch():
            output, *_ = torch.embedding_bag(weight, members, offsets, mode=number)
        assert torch.equal(output, F.embedding_bag(members, weight, offsets, mode=mode))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_tensors_without_memory(mode: str) -> None:
    with FakeTensorMode():
        indices, weight = torch.zeros(2, 6, dtype=torch.int64), torch.randn(9, 4, requires_grad=True)
        output = F.embedding_bag(indices, weight, mode=mode)
        output.sum().backward()
    assert output.shape == (2, 4)
    assert weight.grad.shape == weight.shape

"""Unfold and fold: windows at random against torch, and the same errors for the same bad sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import torchfromscratch.functional as F
from tests import lacks

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=80, deadline=None)
@given(
    size=st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    kernel_size=PAIR,
    dilation=PAIR,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    stride=PAIR,
    channels_last=st.booleans(),
)
def test_equals_torch_for_any_windows(
    size: tuple, kernel_size: tuple, dilation: tuple, padding: tuple, stride: tuple, channels_last: bool
) -> None:
    reach = [i + 2 * p - d * (k - 1) for i, p, d, k in zip(size[2:], padding, dilation, kernel_size, strict=True)]
    assume(min(reach) > 0)
    input = torch.arange(1.0, 1 + torch.Size(size).numel(), dtype=torch.float64).view(size)
    if channels_last:
        input = input.to(memory_format=torch.channels_last)
    windows = kernel_size, dilation, padding, stride
    results = []
    for functional in (F, torch.nn.functional):
        x = input.detach().clone().requires_grad_()
        columns = functional.unfold(x, *windows)
        output = functional.fold(columns.square(), size[2:], *windows)
        (gradient,) = torch.autograd.grad(output.square().sum(), x)
        results.append((columns, output, gradient))
        assert columns.is_contiguous()
        assert output.is_contiguous()
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("function", "size", "arguments"),
    [
        ("unfold", (1, 1, 1, 4, 4), (2,)),
        ("unfold", (4, 4), (2,)),
        ("unfold", (4, 0), (2,)),
        ("unfold", (4,), (2,)),
        ("unfold", (2, 3, 0, 4), (1,)),
        ("unfold", (1, 1, 2, 2), (3,)),
        ("unfold", (1, 1, 4, 4), (0,)),
        ("unfold", (1, 1, 4, 4), (2, 0)),
        ("unfold", (1, 1, 4, 4), (2, 1, -1)),
        ("unfold", (1, 1, 4, 4), (2, 1, 0, 0)),
        ("unfold", (1, 1, 4, 4), ((2, 2, 2),)),
        ("fold", (2, 3, 4, 5), ((4, 4), 2)),
        ("fold", (2, 0, 9), ((4, 4), 2)),
        ("fold", (2, 5, 9), ((4, 4), 2)),
        ("fold", (2, 4, 8), ((4, 4), 2)),
        ("fold", (2, 4, 1), ((1, 1), 2)),
    ],
    ids=str,
)
def test_raises_what_torch_raises(function: str, size: tuple, arguments: tuple) -> None:
    with pytest.raises((RuntimeError, IndexError)) as theirs:
        getattr(torch.nn.functional, function)(torch.ones(size), *arguments)
    with pytest.raises(theirs.type):
        getattr(F, function)(torch.ones(size), *arguments)


@pytest.mark.parametrize(("function", "arguments"), [("unfold", (2,)), ("fold", ((3, 3), 2))])
def test_integers_have_no_columns(function: str, arguments: tuple) -> None:
    input = torch.ones(1, 4, 4, 4, dtype=torch.int64)[:, :, : 4 if function == "unfold" else 1].squeeze(2)
    with pytest.raises(lacks.unimplemented()):
        getattr(torch.nn.functional, function)(input, *arguments)
    with pytest.raises(NotImplementedError, match=r"torch\.int64"):
        getattr(F, function)(input, *arguments)

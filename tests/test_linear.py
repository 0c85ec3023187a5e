"""Linear and Flatten against torch for random shapes, good and bad, and complex numbers."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

import torchfromscratch.functional as F
from tests.subjects import answers, assert_equal, assert_same_outcome, outcome, random_tensors
from torchfromscratch import nn

SIZES = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@hypothesis.given(SIZES, st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_as_torch_for_random_shapes(batch: tuple[int, ...], features: int, outputs: int, bias: bool) -> None:
    tensors = random_tensors((*batch, features), (outputs, features), *[(outputs,)] * bias)
    assert_same_outcome(outcome(F.linear, tensors), outcome(TF.linear, tensors))


@hypothesis.given(SIZES, SIZES, st.none() | SIZES)
def test_any_shapes_raise_as_torchs(input: Any, weight: Any, bias: Any) -> None:
    """Whatever the three shapes are, the answer or the exception is torch's."""
    tensors = random_tensors(input, weight, *([] if bias is None else [bias]))
    assert_same_outcome(outcome(F.linear, tensors), outcome(TF.linear, tensors))


@pytest.mark.parametrize("types", [(torch.float32, torch.float64), (torch.float64, torch.int64), (torch.int64,) * 2])
def test_types_as_torchs(types: tuple[torch.dtype, torch.dtype]) -> None:
    tensors = [torch.ones(2, 3, dtype=dtype) for dtype in types]
    assert_same_outcome(outcome(F.linear, tensors), outcome(TF.linear, tensors))


@pytest.mark.parametrize("bad", [None, 3, [[1.0, 2.0]]])
def test_what_is_no_tensor_raises_as_torchs(bad: Any) -> None:
    for arguments in ((bad, torch.ones(2, 2)), (torch.ones(2, 2), bad)):
        assert outcome(lambda: F.linear(*arguments), []) is outcome(lambda: TF.linear(*arguments), [])  # noqa: B023


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex(dtype: torch.dtype) -> None:
    tensors = random_tensors((3, 4), (5, 4), (5,), dtype=dtype)
    assert_equal(answers(F.linear, tensors), answers(TF.linear, tensors))
    if dtype == torch.complex128:
        assert gradcheck(F.linear, tensors, check_forward_ad=True)
        assert gradgradcheck(F.linear, tensors)


@hypothesis.given(SIZES, st.integers(-5, 5), st.integers(-5, 5))
def test_flatten_as_torchs(shape: tuple[int, ...], start: int, end: int) -> None:
    (input,) = random_tensors(shape)
    assert_same_outcome(*(outcome(library.Flatten(start, end), [input]) for library in (nn, torch.nn)))


def test_flatten_is_a_view_where_no_gradient_is_recorded() -> None:
    """As torch's: what is written into it reaches the input. Elsewhere it can be written into all the same."""
    with torch.no_grad():
        input = torch.ones(2, 3, 4, requires_grad=True)
        nn.Flatten()(input).zero_()
    assert not input.any()
    nn.Flatten()(torch.ones(2, 3, 4, requires_grad=True)).add_(1).sum().backward()

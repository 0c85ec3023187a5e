"""Padding: widths at random against torch, and the same errors for the same bad widths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torchfromscratch.functional as F

MODES = ["constant", "reflect", "replicate", "circular"]


@st.composite
def paddings(draw: st.DrawFn) -> tuple[torch.Tensor, list[int], str]:
    """An input and widths that its mode allows."""
    mode = draw(st.sampled_from(MODES))
    dims = draw(st.integers(1, 3))
    size = draw(st.lists(st.integers(2, 5), min_size=dims + 1, max_size=dims + 2))
    pad: list[int] = []
    for length in reversed(size[-dims:]):
        crop = draw(st.booleans()) and mode != "circular"  # torch reads memory it never wrote when that crops
        pad += draw(st.tuples(*[st.integers(-(length // 2) + 1 if crop else 0, length - 1)] * 2))
    input = torch.arange(1.0, 1 + torch.Size(size).numel(), dtype=torch.float64).view(size)
    if input.dim() == 4 and draw(st.booleans()):
        input = input.to(memory_format=torch.channels_last)
    return input, pad, mode


@settings(max_examples=80, deadline=None)
@given(paddings())
def test_equals_torch_for_any_widths(case: tuple) -> None:
    input, pad, mode = case
    results = []
    for pad_by in (F.pad, torch.nn.functional.pad):
        x = input.detach().clone().requires_grad_()
        output = pad_by(x, pad, mode)
        (gradient,) = torch.autograd.grad(output.square().sum(), x)
        results.append((output, gradient))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    assert results[0][0].is_contiguous() == results[1][0].is_contiguous()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64], ids=str)
def test_pads_what_is_not_real(mode: str, dtype: torch.dtype) -> None:
    input = torch.arange(6).view(2, 3).to(dtype)
    assert torch.equal(F.pad(input, (1, 2), mode), torch.nn.functional.pad(input, (1, 2), mode))


@pytest.mark.parametrize(
    ("size", "pad", "mode", "value"),
    [
        ((2, 3, 4), (1,), "constant", None),
        ((4,), (1, 1, 1, 1), "constant", None),
        ((4,), (-5, 0), "constant", None),
        ((4,), (1, 1), "mirror", None),
        ((2, 3, 4), (1, 1), "reflect", 1.0),
        ((4,), (1, 1), "reflect", None),
        ((2, 3, 4, 4), (1, 1), "replicate", None),
        ((2, 3, 4), (4, 1), "reflect", None),
        ((2, 3, 4), (5, 1), "circular", None),
        ((2, 0, 4), (1, 1), "reflect", None),
        ((2, 3, 0), (1, 1), "replicate", None),
        ((2, 3, 4), (-2, -2), "reflect", None),
        ((2, 3, 4), (-3, -2), "replicate", None),
        ((2, 3, 4), (-3, -2), "circular", None),
        ((2, 3, 4), (1, 1.5), "constant", None),
        ((2, 3, 4), 1, "constant", None),
    ],
    ids=str,
)
def test_raises_what_torch_raises(size: tuple, pad: tuple, mode: str, value: float | None) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)) as theirs:
        torch.nn.functional.pad(torch.ones(size), pad, mode, value)
    with pytest.raises(theirs.type):
        F.pad(torch.ones(size), pad, mode, value)


def test_circular_refuses_to_repeat_more_than_cropping_leaves() -> None:
    with pytest.raises(RuntimeError, match="at most 1 elements"):
        F.pad(torch.ones(1, 4), (3, -3), "circular")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_autocast_casts_as_torch_does(mode: str, dims: int) -> None:
    input = torch.ones([2, 2, *[3] * dims], dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        ours = F.pad(input, [1] * 2 * dims, mode)
        theirs = torch.nn.functional.pad(input, [1] * 2 * dims, mode)
    assert ours.dtype == theirs.dtype

"""Convolution's kernels against the definition in float64: random options, formats, types, and derivatives."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import torchfromscratch
import torchfromscratch.functional as F
from tests.triton.interpreted.spy import called
from torchfromscratch.kernels.convolution.reference import REFERENCE
from torchfromscratch.kernels.convolution.triton import TRITON
from torchfromscratch.kernels.precision import wide_type
from torchfromscratch.kernels.windows import Windows

# What is left of a number rounded once to the type, and of sums in float32.
ERRORS = {torch.float64: 1e-14, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[list[Tensor], Windows]:
    """x, w, b, dL/dy and the windows: sizes that divide no block, groups, single channels, one to three dimensions."""
    dims, groups, batch = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    of_group = [draw(st.sampled_from([1, 2, 3, 17])) for _ in range(2)]

    def each(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(least, most)) for _ in range(dims))

    windows = Windows(each(1, 3), each(1, 3), each(0, 2), each(1, 2), groups)
    size = tuple(max(extent, length) for extent, length in zip(windows.extent, each(1, 7), strict=True))
    in_channels, out_channels = [count * groups for count in of_group]
    dtype = draw(st.sampled_from(list(ERRORS)))
    shapes = [
        (batch, in_channels, *size),
        (out_channels, of_group[0], *windows.kernel_size),
        (out_channels,),
        (batch, out_channels, *windows.output_size(size)),
    ]
    torch.manual_seed(draw(st.integers(0, 99)))
    tensors = [torch.randn(shape).to(dtype) for shape in shapes]
    if draw(st.booleans()):
        tensors = [t.to(memory_format=FORMATS.get(t.dim(), torch.contiguous_format)) for t in tensors]
    return tensors, windows


def assert_close(actual: Tensor, truth: Tensor) -> None:
    """To the rounding of the result's type, beside the largest element."""
    assert actual.shape == truth.shape
    scale = truth.abs().max().clamp(min=1)
    assert (actual.double() - truth).abs().max() <= ERRORS[actual.dtype] * scale


def check(tensors: list[Tensor], windows: Windows) -> None:
    x, w, b, g = tensors
    size = x.shape[2:]
    wide = [t.double() for t in tensors]
    assert_close(TRITON.correlate(x, w, b, windows), REFERENCE.correlate(*wide[:3], windows))
    assert_close(
        TRITON.full_convolution(g, w, windows, size), REFERENCE.full_convolution(wide[3], wide[1], windows, size)
    )
    assert_close(TRITON.weight_gradient(x, g, windows), REFERENCE.weight_gradient(wide[0], wide[3], windows))


@hypothesis.settings(max_examples=2)
@hypothesis.given(convolutions())
def test_the_three_operations(convolution: tuple[list[Tensor], Windows]) -> None:
    check(*convolution)


@pytest.mark.slow
@hypothesis.settings(max_examples=300)
@hypothesis.given(convolutions())
def test_the_three_operations_at_length(convolution: tuple[list[Tensor], Windows]) -> None:
    check(*convolution)


@pytest.mark.parametrize("groups", [1, 16])
def test_sums_over_many_positions_are_split_and_added(groups: int) -> None:
    """There are slices of dL/dw, whose last is not full, and the sums are those of float32."""
    torch.manual_seed(0)
    x, g = (torch.randn(3, 16, 23, 25).to(memory_format=torch.channels_last) for _ in range(2))
    windows = Windows((3, 3), (1, 1), (1, 1), (1, 1), groups)
    truth = REFERENCE.weight_gradient(x.double(), g.double(), windows)
    actual = TRITON.weight_gradient(x, g, windows)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    assert_close(actual, truth)


OPTIONS: list[dict[str, Any]] = [
    {"groups": 2, "dilation": 2, "padding": 2},
    {"groups": 4, "padding": 1, "stride": (2, 1)},
    {"stride": 2, "padding": 1},
]


@pytest.mark.parametrize(
    "options", [OPTIONS[1], *[pytest.param(o, marks=pytest.mark.slow) for o in OPTIONS[::2]]], ids=str
)
def test_derivatives_of_both_orders(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    groups = options.get("groups", 1)
    given = [torch.randn(s, dtype=torch.float64) for s in ((1, 4, 4, 5), (4, 4 // groups, 3, 2), (4,))]
    given = [tensor.requires_grad_() for tensor in given]
    names = ["depthwise", "depthwise_full_convolution", "depthwise_weight_gradient"]
    names = names if groups == 4 else ["correlate", "full_convolution", "weight_gradient"]
    with called(*names):
        assert gradcheck(lambda *t: F.conv2d(*t, **options), given, fast_mode=True)
    assert gradgradcheck(lambda *t: F.conv2d(*t, **options), given, fast_mode=True)


@pytest.mark.parametrize("dtype", ERRORS)
def test_no_samples_and_one(dtype: torch.dtype) -> None:
    w = torch.randn(5, 3, 3, 3).to(dtype).requires_grad_()
    for batch in (0, 1):
        x = torch.randn(batch, 3, 4, 4).to(dtype).requires_grad_()
        y = F.conv2d(x, w, padding=1)
        y.sum().backward()
        assert y.shape == (batch, 5, 4, 4)
        assert x.grad is not None
        assert x.grad.shape == x.shape
        assert w.grad is not None
        assert w.grad.dtype == dtype
        assert bool(w.grad.any()) == bool(batch)


def test_narrow_products_are_summed_in_float32() -> None:
    """4,096 ones, summed in float16 or bfloat16, would end at 2,048 or 256."""
    for dtype in (torch.float16, torch.bfloat16):
        assert wide_type(dtype) == torch.float32
        x, w = torch.ones(1, 4096, 1, 1, dtype=dtype), torch.ones(1, 4096, 1, 1, dtype=dtype)
        assert F.conv2d(x, w).item() == 4096


def test_what_no_kernel_takes_is_an_error() -> None:
    x, w = torch.ones(1, 1, 3, dtype=torch.complex64), torch.ones(1, 1, 2, dtype=torch.complex64)
    with pytest.raises(ValueError, match="takes real floats"):
        F.conv1d(x, w)
    with torchfromscratch.algorithm("im2col"):
        assert F.conv1d(x, w).shape == (1, 1, 2)

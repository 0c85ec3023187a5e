"""Elementwise kernels compute what their formulas say, in every format, at sizes that no block divides."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import torchfromscratch
import torchfromscratch.functional as F
from tests.triton.interpreted.spy import called
from torchfromscratch.autograd import elementwise as activations
from torchfromscratch.autograd import loss as losses
from torchfromscratch.autograd import margin_loss as margin_losses
from torchfromscratch.kernels.choice import chosen_algorithm
from torchfromscratch.kernels.triton.elementwise import FORMULAS

# Of a row's constants, some that tell its branches apart; others have none.
CONSTANTS = {
    "LeakyReLU": (0.1,),
    "Hardtanh": (-0.5, 0.7),
    "Threshold": (0.2, 3.0),
    "Hardshrink": (0.5,),
    "Softshrink": (0.5,),
    "Softplus": (2.0, 1.5),
    "ELU": (1.3, 1.1, 0.9),
    "SmoothError": (0.7,),
    "HuberError": (0.7,),
    "PoissonNLL": (0.5,),
}

# The tensors of these rows are none below 0.
OF_NO_NEGATIVE = {"GaussianNLL", "PoissonNLL", "Divergence"}

ROWS = {
    row.__name__: row
    for table in (activations, losses, margin_losses)
    for row in vars(table).values()
    if callable(row) and row.__name__ in FORMULAS and row.__name__ != "Gate"
}

TOLERANCES = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def arguments(name: str, dtype: torch.dtype) -> list[Tensor]:
    """As many tensors as the row takes, with kinks, infinities and NaN among their elements."""
    torch.manual_seed(0)
    count = max(1, len([formula for formula in FORMULAS if formula.startswith(f"{name}.")]))
    tensors = [2 * torch.randn(3, 5, 7, dtype=torch.float64) for _ in range(count)]
    if name == "BinaryCrossEntropy":
        return [tensor.sigmoid().to(dtype) for tensor in tensors]
    if name in OF_NO_NEGATIVE:
        return [tensor.abs().to(dtype) for tensor in tensors]
    tensors[0].view(-1)[:7] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 30, -30])
    return [tensor.to(dtype) for tensor in tensors]


def derivatives(row: Callable[..., Tensor], tensors: list[Tensor], constants: tuple) -> list[Tensor]:
    """The value, the first derivatives and, of float64, the derivatives of those."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    y = row(*leaves, *constants)
    g = (torch.arange(y.numel()).view_as(y) % 17 / 8 - 1).to(y.dtype).requires_grad_()  # exact in every type
    first = torch.autograd.grad(y, leaves, g, retain_graph=True)
    if y.dtype != torch.float64:
        return [y.detach(), *first]
    differentiable = torch.autograd.grad(y, leaves, g, create_graph=True)
    second = torch.autograd.grad([d.sum() for d in differentiable], [*leaves, g], allow_unused=True)
    return [y.detach(), *first, *[d for d in second if d is not None]]


def by_plain_arithmetic(function: Callable[..., Any], *args: Any) -> Any:
    with torchfromscratch.algorithm("reference"):
        return function(*args)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", ROWS)
def test_a_row_and_its_derivatives(name: str, dtype: torch.dtype) -> None:
    tensors, constants = arguments(name, dtype), CONSTANTS.get(name, ())
    with called("elementwise"):
        found = derivatives(ROWS[name], tensors, constants)
    plain = by_plain_arithmetic(derivatives, ROWS[name], tensors, constants)
    truth = by_plain_arithmetic(derivatives, ROWS[name], [tensor.double() for tensor in tensors], constants)
    for result, expected, exact in zip(found, plain, truth[: len(found)], strict=True):
        assert result.dtype == expected.dtype
        assert result.stride() == expected.stride()
        assert torch.equal(result.isnan(), expected.isnan())
        assert torch.equal(result.isinf(), expected.isinf())
        error = (result.double() - exact).abs() / (1 + exact.abs())
        assert error[result.isfinite()].max() <= TOLERANCES[dtype]


def test_every_row_has_a_kernel_for_each_of_its_derivatives() -> None:
    """Else the plain formula would answer, and no other test would tell."""
    named = {formula.partition(".")[0] for formula in FORMULAS}
    assert named == {*ROWS, "Gate", "Drop"}
    for name, row in ROWS.items():
        tensors = arguments(name, torch.float32)
        leaves = [tensor.requires_grad_() for tensor in tensors]
        y = row(*leaves, *CONSTANTS.get(name, ()))
        for leaf in leaves:
            with called("elementwise"):
                torch.autograd.grad(y, leaf, torch.ones_like(y), retain_graph=True)


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    shape=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    input_last=st.booleans(),
    grad_kind=st.sampled_from(["contiguous", "channels last", "one number", "strided"]),
    dtype=st.sampled_from([torch.float32, torch.float16]),
)
def test_any_memory_format(shape: list[int], input_last: bool, grad_kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, g = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    x = x.to(memory_format=torch.channels_last) if input_last else x
    if grad_kind == "channels last":
        g = g.to(memory_format=torch.channels_last)
    elif grad_kind == "one number":
        g = torch.tensor(0.3, dtype=dtype).expand(shape)
    elif grad_kind == "strided":
        g = torch.randn(*shape, 2, dtype=dtype)[..., 0]
    y, pull_back = torch.func.vjp(F.silu, x)
    (dx,) = pull_back(g)
    expected, pull_back = by_plain_arithmetic(torch.func.vjp, F.silu, x)
    (expected_dx,) = by_plain_arithmetic(pull_back, g)
    assert strides_that_matter(y) == strides_that_matter(expected)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(dx, expected_dx)


def strides_that_matter(tensor: Tensor) -> list[int]:
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


@pytest.mark.parametrize("name", ROWS)
def test_a_gradient_that_repeats_one_number(name: str) -> None:
    """As a sum's is, of which losses are made: no tensor is written out for it."""
    tensors, constants = arguments(name, torch.float64), CONSTANTS.get(name, ())
    g = torch.tensor(0.3, dtype=torch.float64).expand(tensors[0].shape)

    def gradient() -> tuple[Tensor, ...]:
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        y = ROWS[name](*leaves, *constants)
        with called("elementwise") if chosen_algorithm() == "triton" else nullcontext():
            return torch.autograd.grad(y, leaves, g)

    for found, expected in zip(gradient(), by_plain_arithmetic(gradient), strict=True):
        assert found.stride() == expected.stride()
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_none_and_one_element_and_more_than_a_block() -> None:
    for size in (0, 1, 2**14 + 1):
        x = torch.linspace(-3, 3, size)
        torch.testing.assert_close(F.gelu(x), torch.nn.functional.gelu(x))


def test_the_gate_lets_nan_through_and_stops_infinity() -> None:
    x = torch.tensor([float("nan"), -1.0, 0.0, 2.0])
    dy = torch.tensor([1.0, float("inf"), float("nan"), 3.0])
    with called("elementwise"):
        _, pull_back = torch.func.vjp(F.relu, x)
        dx = pull_back(dy)[0]
    assert dx.tolist() == [1.0, 0.0, 0.0, 3.0]


def test_transforms_take_the_plain_formula() -> None:
    """vmap, forward mode and their compositions, which kernels have no rule for."""
    x = torch.randn(3, 5, dtype=torch.float64)
    g = torch.func.grad(lambda x: F.gelu(x).sum())
    torch.testing.assert_close(torch.vmap(g)(x), g(x))
    _, tangent = torch.func.jvp(F.gelu, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, g(x))
    hessian = torch.func.hessian(lambda x: F.gelu(x).sum())(x[0])
    torch.testing.assert_close(hessian.diagonal(), torch.func.grad(lambda x: g(x).sum())(x[0]))

"""Functions that exist twice, by hand and in torch, and how their answers are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import torchfromscratch
from tests import lacks
from tests.cases import EVERY_TEST, Case, ModuleCase, all_cases, all_module_cases

Function = Callable[..., Any]

# Families that torch.nn.functional has no function for: their modules stand in, called as functions of
# their inputs and parameters.
ONLY_MODULES = ("RNN", "LSTM", "GRU", "Multihead", "Transformer")


@dataclass(frozen=True)
class Subject:
    """A function of tensors by hand (`ours`) and in torch (`theirs`), under the name of its case."""

    name: str
    ours: Function
    theirs: Function
    inputs: Callable[..., list[Tensor]]
    leave_out: dict[str, str]
    precision: torch.dtype


def subjects() -> list[Subject]:
    """Every functional case, and those modules that have no function of their own."""
    modules = [case for case in all_module_cases() if case.name.startswith(ONLY_MODULES)]
    return [*map(_of_function, all_cases()), *map(_of_module, modules)]


def _of_function(case: Case) -> Subject:
    def ours(*tensors: Tensor) -> Any:
        return case.call(torchfromscratch.functional, *tensors)

    def theirs(*tensors: Tensor) -> Any:
        return case.call(torch.nn.functional, *tensors)

    return Subject(case.name, ours, theirs, case.inputs, case.leave_out, case.precision)


def _of_module(case: ModuleCase) -> Subject:
    """The module as a function of what it is called with and its parameters."""

    def function(nn: Any) -> Function:
        torch.manual_seed(0)
        module = case.build(nn)
        names = [name for name, _ in module.named_parameters()]

        def call(*tensors: Tensor) -> Any:
            parameters = dict(zip(names, tensors[len(case.shapes) :], strict=True))
            functional = lambda *inputs: torch.func.functional_call(module, parameters, inputs)  # noqa: E731
            return (case.call or apply)(functional, *tensors[: len(case.shapes)])

        return call

    torch.manual_seed(0)
    shapes = tuple(tuple(parameter.shape) for parameter in case.build(torch.nn).parameters())
    data = Case(case.name, apply, (*case.shapes, *shapes), -1.0, 1.0)
    ours, theirs = function(torchfromscratch.nn), function(torch.nn)
    return Subject(case.name, ours, theirs, data.inputs, case.leave_out, case.precision)


def apply(function: Function, *tensors: Tensor) -> Any:
    return function(*tensors)


def repeatable(function: Function) -> Function:
    """`function` with the same random draws in each call."""

    def call(*tensors: Tensor) -> Any:
        torch.manual_seed(0)
        return function(*tensors)

    return call


def tensors_of(output: Any) -> list[Tensor]:
    """All tensors in a function's answer: some answer with tuples."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def cotangent(output: Tensor) -> Tensor:
    """A dL/dy without a pattern, whose elements every floating-point type holds exactly."""
    numbers = torch.arange(output.numel(), device=output.device) * 89 % 257 - 128
    return (numbers / 64).view(output.shape).to(output.dtype)


def pull_back(output: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The output and the gradients of `tensors` for a random dL/dy; zeros for tensors it does not depend on."""
    outputs = tensors_of(output)
    sources = [tensor for tensor in tensors if tensor.requires_grad]
    differentiable = [output for output in outputs if output.requires_grad]
    if not differentiable:
        return outputs
    cotangents = [cotangent(output) for output in differentiable]
    gradients = torch.autograd.grad(differentiable, sources, cotangents, materialize_grads=True)
    return [*outputs, *gradients]


def answers(function: Function, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The values and the gradients of `function`, one after the other."""
    return pull_back(repeatable(function)(*tensors), tensors)


def outcome(function: Function, tensors: Sequence[Tensor]) -> list[Tensor] | type[Exception]:
    """The values and the gradients of `function`, or the type of what it raises."""
    try:
        return answers(function, tensors)
    except Exception as error:
        return NotImplementedError if lacks.is_unimplemented(error) else type(error)


def random_tensors(*shapes: Sequence[int], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Standard normal tensors that require gradients, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def loss(function: Function) -> Function:
    """A scalar with a curvature of its own: Σ c·y² over the outputs of `function`."""

    def scalar(*tensors: Tensor) -> Tensor:
        outputs = [output for output in tensors_of(function(*tensors)) if output.is_floating_point()]
        return sum((cotangent(output) * output * output).sum() for output in outputs)

    return scalar


def assert_equal(actual: Sequence[Tensor], expected: Sequence[Tensor], precision: torch.dtype = torch.float64) -> None:
    """Equal to rounding: the largest difference is at most some epsilons of the largest element.

    Sums over a few thousand products in two different orders differ by less than 2**12 epsilons; constants
    rounded to `precision` (see Case) by one or two of its epsilons.
    """
    assert len(actual) == len(expected)
    for number, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
        context = f"tensor {number} of {len(actual)}"
        assert ours.shape == theirs.shape, context
        assert ours.dtype == theirs.dtype, context
        if not (theirs.is_floating_point() or theirs.is_complex()) or theirs.is_meta:
            assert theirs.is_meta or torch.equal(ours, theirs), context
            continue
        rounding = 2**12 * torch.finfo(theirs.dtype).eps
        if precision != torch.float64:
            rounding = max(rounding, 2 * torch.finfo(precision).eps)
        allowed = rounding * scale(theirs)
        torch.testing.assert_close(
            ours,
            theirs,
            rtol=0,
            atol=allowed,
            equal_nan=True,
            msg=lambda message: f"{context}: {message}",  # noqa: B023
        )


def assert_same_outcome(ours: Any, theirs: Any) -> None:
    """Equal to rounding, or exceptions of the same type."""
    if isinstance(theirs, type) or isinstance(ours, type):
        assert ours is theirs
    else:
        assert_equal(ours, theirs)


def assert_as_torch(name: str, tensors: Sequence[Tensor], options: dict[str, Any]) -> None:
    """The function of this name gives torch's answers and gradients, or an exception of the same type."""

    def call(library: Any) -> Any:
        return outcome(lambda *given: getattr(library, name)(*given, **options), tensors)

    assert_same_outcome(call(torchfromscratch.functional), call(torch.nn.functional))


def assert_as_accurate(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], truth: Sequence[Tensor], factor: float = 2
) -> None:
    """Our largest error is at most `factor` times torch's, and one epsilon where torch happens to be exact."""
    assert len(ours) == len(theirs) == len(truth)
    for number, (our, their, true) in enumerate(zip(ours, theirs, truth, strict=True)):
        assert our.dtype == their.dtype, f"tensor {number} is {our.dtype}, torch's is {their.dtype}"
        if not their.is_floating_point():
            continue
        allowed = factor * largest_error(their, true) + torch.finfo(their.dtype).eps * scale(true)
        error = largest_error(our, true)
        assert error <= allowed, f"tensor {number}: error {error:.3g}, torch's {largest_error(their, true):.3g}"


def largest_error(tensor: Tensor, truth: Tensor) -> float:
    """The largest |difference| to the float64 truth; infinities and NaN must stand where the truth has them."""
    tensor, finite = tensor.double(), truth.isfinite()
    if not torch.equal(tensor[~finite].nan_to_num(7), truth[~finite].nan_to_num(7)):
        return torch.inf
    return (tensor - truth)[finite].abs().max().item() if finite.any() else 0.0


def scale(tensor: Tensor) -> float:
    """The largest finite magnitude in a tensor."""
    magnitudes = tensor.detach().abs()
    magnitudes = magnitudes[magnitudes.isfinite()]
    return magnitudes.max().item() if magnitudes.numel() else 0.0


def strides(tensor: Tensor) -> list[int | None]:
    """The strides of a tensor, but for those of dimensions of one element, which mean nothing."""
    return [stride if size > 1 else None for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]


def skip_if_left_out(request: pytest.FixtureRequest, leave_out: dict[str, str]) -> None:
    """Skip a test that a case names in `leave_out`, by its name without test_, with the case's reason."""
    if reason := leave_out.get(EVERY_TEST) or leave_out.get(request.function.__name__.removeprefix("test_")):
        pytest.skip(reason)

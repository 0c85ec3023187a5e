"""What older versions of torch lack: asked for by its presence or tried, never by the version's number.

A test that needs such a thing is left out where it is missing, with the reason given here. Reasons are empty where
nothing is missing.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from torchfromscratch.kernels.execution import is_exporting


def marked(reason: str) -> pytest.MarkDecorator:
    """Leaves a parameter out for this reason, if there is one."""
    return pytest.mark.skipif(bool(reason), reason=reason)


def assert_raises(error: type[Exception], call: Callable[[], Any]) -> None:
    """torch's `call` raises `error`; the rest of the test is left out where it raises another, or answers."""
    try:
        call()
    except error:
        return
    except Exception as other:
        pytest.skip(f"torch raises {type(other).__name__} instead: {other}")
    pytest.skip("torch answers")


def has_kernel(name: str) -> bool:
    return hasattr(torch.ops.aten, name)


def bounds_without_gradient() -> str:
    bound = torch.zeros(1, requires_grad=True)
    (grad,) = torch.autograd.grad(bound.clamp(min=0), bound)
    return "torch's clamp lets a gradient through at its bound" if grad.item() else ""


def decoupled_weight_decay() -> str:
    takes = "decoupled_weight_decay" in inspect.signature(torch.optim.Adam).parameters
    return "" if takes else "torch.optim.Adam takes no decoupled_weight_decay"


def rate_with_a_dimension() -> str:
    parameter = torch.ones(1, requires_grad=True)
    parameter.grad = torch.ones(1)
    try:
        torch.optim.SGD([parameter], lr=torch.ones(1), foreach=False).step()
    except TypeError as error:
        return f"torch.optim takes no lr of shape (1,): {error}"
    return ""


@functools.cache
def lanczos() -> str:
    try:
        torch.nn.functional.interpolate(torch.ones(1, 1, 2, 2), 3, mode="lanczos", antialias=True)
    except ValueError:
        return "torch's interpolate knows no mode 'lanczos'"
    return ""


@contextlib.contextmanager
def left_out_for(*lacks: Callable[[], str]) -> Iterator[None]:
    """Leaves the test out where Dynamo refuses to trace what is inside, and one of the reasons holds."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException:
        if reason := next(filter(None, (lack() for lack in lacks)), ""):
            pytest.skip(reason)
        raise


@contextlib.contextmanager
def left_out_if_torch_refuses_too(theirs: Callable[[], Any]) -> Iterator[None]:
    """Leaves the test out where what is inside raises what torch's own layers raise."""
    try:
        yield
    except Exception as ours:
        try:
            theirs()
        except type(ours) as error:
            pytest.skip(f"torch.nn's own: {type(error).__name__}: {str(error).splitlines()[0][:99]}")
        raise


def _refusal(function: Callable[..., Any], *arguments: Any) -> str:
    """What Dynamo says if it does not trace a function whole."""
    try:
        torch.compile(function, fullgraph=True, backend="eager")(*arguments)
    except torch._dynamo.exc.TorchDynamoException as error:
        return str(error)
    return ""


@functools.cache
def context_managers_in_traced_code() -> str:
    @contextlib.contextmanager
    def nothing() -> Iterator[None]:
        yield

    def inside(x: Tensor) -> Tensor:
        with nothing():
            return x + 1

    return "Dynamo traces no context manager of contextlib's" if _refusal(inside, torch.ones(2)) else ""


@functools.cache
def strides_in_traced_backward() -> str:
    def steps(x: Tensor) -> Iterator[Tensor]:
        yield x if x.stride(0) else 2 * x

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> Tensor:
            return sum([2 * part for part in steps(grad_output)])

    refusal = _refusal(Double.apply, torch.ones(2, requires_grad=True))
    lacks = "in strict mode" in refusal or "SKIPPED INLINING" in refusal
    return "Dynamo traces no Function whose backward asks for strides; compiled in parts it is right" if lacks else ""


@functools.cache
def compiling_told_from_exporting() -> str:
    def add_one_in_export(x: Tensor) -> Tensor:
        return x + 1 if is_exporting() else x

    exporting = torch.compile(add_one_in_export, backend="eager")(torch.zeros(()))
    return "torch takes torch.compile for torch.export, whose graph holds all of a convolution" if exporting else ""


@functools.cache
def strict_exports_told_from_compiling() -> str:
    class Asking(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if is_exporting() else x

    x = torch.zeros(1)
    told = torch.export.export(Asking(), (x,), strict=True).module()(x)
    return "" if told.item() else "torch tells no strict torch.export from torch.compile, whose graphs hold Functions"


@functools.cache
def handing_over_in_traced_code() -> str:
    class Plain(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            return super().__torch_function__(func, types, args, kwargs or {})

    def ask_for_it(x: Tensor) -> Tensor:
        y = x + 1
        return y if hasattr(type(y), "__torch_function__") else x

    refuses = _refusal(ask_for_it, torch.ones(2).as_subclass(Plain))
    return "Dynamo cannot ask what it has computed whether it has a __torch_function__" if refuses else ""


@functools.cache
def slices_of_open_sizes() -> str:
    class EverySecond(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, ::2]

    sizes = {0: torch.export.Dim("batch", min=4)}
    try:
        torch.export.export(EverySecond(), (torch.ones(4, 4),), dynamic_shapes=(sizes,), strict=False)
    except torch._dynamo.exc.TorchDynamoException:
        return "torch.export cannot leave a size open of which a slice takes everything"
    return ""


@functools.cache
def unimplemented() -> type[Exception]:
    """What torch raises for a type that a kernel was not made for: RuntimeError in older versions."""
    try:
        torch.ones(2, 2, dtype=torch.complex32) @ torch.ones(2, 2, dtype=torch.complex32)
    except RuntimeError as error:
        return type(error)
    return NotImplementedError


def is_unimplemented(error: Exception) -> bool:
    return isinstance(error, NotImplementedError) or (
        type(error) is unimplemented() and "not implemented for '" in str(error)
    )


def skip_if_unimplemented(call: Callable[[], Any]) -> Any:
    """What torch's `call` answers; the test is left out where torch has no kernel for its types."""
    try:
        return call()
    except RuntimeError as error:
        if not is_unimplemented(error):
            raise
        return pytest.skip(f"torch: {error}")


def _slope(function: Callable[[Tensor], Tensor], x: float) -> float:
    leaf = torch.tensor(x, requires_grad=True)
    return torch.autograd.grad(function(leaf), leaf)[0].item()


def activation(name: str, dtype: torch.dtype) -> str:
    """Where an activation of older versions answers otherwise at its kinks, or rounds otherwise."""
    F = torch.nn.functional
    if name == "hardswish" and _slope(F.hardswish, 3.0) != 1:
        return "torch takes hardswish's slope at 3 from within, where newer ones take it from beyond"
    if name in ("elu", "selu", "celu") and not getattr(F, name)(torch.tensor(-0.0)).signbit():
        return f"torch's {name} loses the sign of -0"
    bound = torch.tensor(0.1, dtype=dtype)
    beyond = torch.nextafter(bound, bound + 1)
    if name == "softshrink" and F.softshrink(beyond, 0.1) != beyond - bound:
        return "torch does not round softshrink's bound to the type"
    return ""


@functools.cache
def fused_causal_attention() -> str:
    query, key = torch.ones(1, 4, 5, requires_grad=True), torch.ones(1, 6, 5)
    node = torch.nn.functional.scaled_dot_product_attention(query, key, key, is_causal=True).grad_fn
    names = set()
    while node is not None:
        names.add(node.name())
        node = node.next_functions[0][0] if node.next_functions else None
    fused = any("ScaledDotProduct" in name for name in names)
    return "" if fused else "torch's attention of fewer queries than keys, if causal, is plain arithmetic"


def batch_norm_in_evaluation_with_eps_0() -> str:
    one = torch.ones(1)
    try:
        torch.nn.functional.batch_norm(torch.ones(2, 1), one, one, eps=0)
    except ValueError:
        return "torch's batch_norm refuses an eps of 0 in evaluation too, as newer ones do not"
    return ""


def module_to_memory_format() -> str:
    typed = "def to(self, memory_format:" in inspect.getsource(sys.modules[torch.nn.Module.__module__])
    return "" if typed else "mypy reads torch's annotations, and Module.to has none for memory_format"


@functools.cache
def frequencies_of_the_bags_own() -> str:
    weight = torch.ones(5, 1, requires_grad=True)
    members = torch.tensor([[0, 1, 1], [2, 1, 4]])
    output = torch.nn.functional.embedding_bag(members, weight, mode="sum", scale_grad_by_freq=True)
    (gradient,) = torch.autograd.grad(output.sum(), weight)
    right = gradient.flatten().tolist() == [1, 1, 1, 0, 1]
    return "" if right else "torch's embedding_bag divides by the frequencies of other indices, see docs/torch.md"


@functools.cache
def norms_of_infinite_power() -> str:
    largest = torch.nn.functional.lp_pool1d(torch.tensor([[1.0, -3.0]]), torch.inf, 2)
    return "" if largest.item() == 3 else "torch's lp_pool takes no limit for an infinite power, see docs/torch.md"


@functools.cache
def rows_of_bags_beside_a_last_offset() -> str:
    members, weight = torch.zeros(2, 3, dtype=torch.int64), torch.ones(1, 1)
    bags = torch.nn.functional.embedding_bag(members, weight, include_last_offset=True)
    return (
        "" if len(bags) == 2 else "torch's embedding_bag drops the last row of members where a last offset is included"
    )

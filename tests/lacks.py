"""What older versions of torch lack: asked for by its presence or tried, never by the version's number.

A test that needs such a thing is left out where it is missing, with the reason given here. Reasons are empty where
nothing is missing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor


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


@functools.cache
def strides_in_traced_backward() -> str:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> Tensor:
            return 2 * grad_output if grad_output.stride(0) else grad_output

    try:
        torch.compile(Double.apply, fullgraph=True, backend="eager")(torch.ones(2, requires_grad=True))
    except torch._dynamo.exc.Unsupported:
        return "Dynamo traces no Function whose backward asks for strides; compiled in parts it is right"
    return ""

"""What older versions of torch lack: asked for by its presence or tried, never by the version's number.

A test that needs such a thing is left out where it is missing, with the reason given here.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor


@functools.cache
def strides_in_traced_backward() -> str:
    """Why Dynamo cannot trace a Function whose backward asks how dL/dy lies; nothing where it can."""

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
        return "Dynamo traces no Function whose backward asks for strides; uncompiled it is right"
    return ""


def decoupled_weight_decay() -> pytest.MarkDecorator:
    takes = "decoupled_weight_decay" in inspect.signature(torch.optim.Adam).parameters
    return pytest.mark.skipif(not takes, reason="torch.optim.Adam takes no decoupled_weight_decay")


def rate_with_a_dimension() -> pytest.MarkDecorator:
    parameter = torch.ones(1, requires_grad=True)
    parameter.grad = torch.ones(1)
    try:
        torch.optim.SGD([parameter], lr=torch.ones(1), foreach=False).step()
    except TypeError as error:
        return pytest.mark.skip(reason=f"torch.optim takes no lr of shape (1,): {error}")
    return pytest.mark.skipif(False, reason="")

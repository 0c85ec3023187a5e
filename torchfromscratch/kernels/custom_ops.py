"""Heavy kernels as operations of their own for torch.compile, which are computed as in eager code.

Traced whole, the formulas of Winograd's method take a compiler minutes and come out slower: it fuses a transform, but
keeps nothing in the cache between the transforms and the products. Those of max pooling become loops over single
elements, which take six times as long. So on a CPU torch.compile is handed operations, and fuses what lies between
them. A graph to be exported holds plain operations, as it is to run where this package is not; so does one for a GPU.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from torchfromscratch.kernels.execution import in_compiled_cpu_code
from torchfromscratch.kernels.windows import Windows

F = TypeVar("F", bound=Callable[..., Any])

# How an operation's schema writes an argument of each type, and a result.
WINDOWS = "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, SymInt[] dilation, int groups, bool ceil_mode"
ARGUMENTS = {
    "Tensor": "Tensor {}",
    "Tensor | None": "Tensor? {}",
    "Sequence[int]": "SymInt[] {}",
    "str | None": "str? {}",
    "Windows": WINDOWS,
    "Windows | None": WINDOWS,
}
RESULTS = {"Tensor": "Tensor", "tuple[Tensor, Tensor]": "(Tensor, Tensor)"}


def custom_op(like: Callable[..., Any]) -> Callable[[F], F]:
    """The function, which under torch.compile on a CPU is the operation `torchfromscratch::<its name>`.

    The function takes a tensor first, and windows somewhere. `like` takes the same arguments, and answers with empty
    tensors like the results.
    """

    def decorate(function: F) -> F:
        name, signature = f"torchfromscratch::{function.__name__}", inspect.signature(function)
        parameters = signature.parameters.values()
        at = [parameter.name for parameter in parameters].index("windows")
        arguments = ", ".join([ARGUMENTS[parameter.annotation].format(parameter.name) for parameter in parameters])

        def with_windows(implementation: Callable[..., Any]) -> Callable[..., Any]:
            def operation(*args: Any) -> Any:
                kernel_size, stride, padding, dilation = map(tuple, args[at : at + 4])
                windows = Windows(kernel_size, stride, padding, dilation, *args[at + 4 : at + 6])
                return implementation(*args[:at], windows, *args[at + 6 :])

            return operation

        torch.library.define(name, f"({arguments}) -> {RESULTS[signature.return_annotation]}")
        torch.library.impl(name, "CPU", with_windows(function))
        torch.library.register_fake(name, with_windows(like))
        compiled = getattr(torch.ops.torchfromscratch, function.__name__)

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            w = args[at]
            if w is None or not in_compiled_cpu_code(args[0]):
                return function(*args)
            written = w.kernel_size, w.stride, w.padding, w.dilation, w.groups, w.ceil_mode
            return compiled(*args[:at], *written, *args[at + 1 :])

        return call  # type: ignore[return-value]

    return decorate

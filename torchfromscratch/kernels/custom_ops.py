"""Heavy kernels as operations of their own for torch.compile, which are computed as in eager code.

Traced whole, the formulas of Winograd's method take a compiler minutes and come out slower: it fuses a transform, but
keeps nothing in the cache between the transforms and the products. Those of max pooling become loops over single
elements, which take six times as long. So on a CPU torch.compile is handed operations, and fuses what lies between
them. A graph to be exported holds plain operations, as it is to run where this package is not; so does one for a GPU.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from torchfromscratch.kernels.execution import in_compiled_cpu_code, is_compiling, is_transforming
from torchfromscratch.kernels.windows import Windows

F = TypeVar("F", bound=Callable[..., Any])

# How an operation's schema writes an argument of each type, and a result.
WINDOWS = "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, SymInt[] dilation, int groups, bool ceil_mode"
ARGUMENTS = {
    "Tensor": "Tensor {}",
    "Tensor | None": "Tensor? {}",
    "Sequence[Tensor]": "Tensor[] {}",
    "Sequence[float]": "float[] {}",
    "Sequence[int]": "SymInt[] {}",
    "bool": "bool {}",
    "float": "float {}",
    "int": "SymInt {}",
    "str": "str {}",
    "str | None": "str? {}",
    "Windows": WINDOWS,
    "Windows | None": WINDOWS,
}
OF_WINDOWS = ("Windows", "Windows | None")
RESULTS = {
    "None": "()",
    "Tensor": "Tensor",
    "tuple[Tensor, Tensor]": "(Tensor, Tensor)",
    "tuple[Tensor, Tensor, Tensor]": "(Tensor, Tensor, Tensor)",
}


def custom_op(like: Callable[..., Any]) -> Callable[[F], F]:
    """The function, which under torch.compile on a CPU is the operation `torchfromscratch::<its name>`.

    The function takes a tensor first, and windows somewhere. `like` takes the same arguments, and answers with empty
    tensors like the results.
    """

    def decorate(function: F) -> F:
        at = list(inspect.signature(function).parameters).index("windows")
        compiled = define(function.__name__, function, like, ("CPU",))

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            if not is_compiling() or args[at] is None or not in_compiled_cpu_code(args[0]) or is_transforming():
                return function(*args)
            return compiled(*args)

        return call  # type: ignore[return-value]

    return decorate


def define(name: str, function: F, like: Callable[..., Any], keys: Sequence[str], mutates: Sequence[str] = ()) -> F:
    """The operation `torchfromscratch::<name>`, which computes `function` for the dispatch keys, and `like` elsewhere.

    Its schema follows from the function's signature. Windows among the arguments are handed over as their numbers.
    `mutates` names the tensors that it overwrites.
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    at = next((n for n, parameter in enumerate(parameters) if parameter.annotation in OF_WINDOWS), None)
    written = [ARGUMENTS[parameter.annotation].format(parameter.name) for parameter in parameters]
    for n, parameter in enumerate(parameters):
        if parameter.name in mutates:
            kind, brackets, _ = written[n].partition(" ")[0].partition("[]")
            written[n] = f"{kind}(a{n}!){brackets} {parameter.name}"

    def with_windows(implementation: Callable[..., Any]) -> Callable[..., Any]:
        if at is None:
            return implementation

        def operation(*args: Any) -> Any:
            kernel_size, stride, padding, dilation = map(tuple, args[at : at + 4])
            windows = Windows(kernel_size, stride, padding, dilation, *args[at + 4 : at + 6])
            return implementation(*args[:at], windows, *args[at + 6 :])

        return operation

    qualified = f"torchfromscratch::{name}"
    torch.library.define(qualified, f"({', '.join(written)}) -> {RESULTS[signature.return_annotation]}")
    for key in keys:
        torch.library.impl(qualified, key, with_windows(function))
    torch.library.register_fake(qualified, with_windows(like))
    defined = getattr(torch.ops.torchfromscratch, name)
    if at is None:
        return defined

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        w = args[at]
        numbers = w.kernel_size, w.stride, w.padding, w.dilation, w.groups, w.ceil_mode
        return defined(*args[:at], *numbers, *args[at + 1 :])

    return call  # type: ignore[return-value]

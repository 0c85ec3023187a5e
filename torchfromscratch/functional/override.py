"""Handing a call over to arguments with a `__torch_function__` of their own, as torch.nn.functional's functions do.

Such arguments are tensor subclasses, objects that are no tensors and the stand-ins of torch.fx; a TorchFunctionMode
is asked as well. They see the function itself and not the arithmetic inside.

Source: "Extending PyTorch" of PyTorch's documentation.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from torchfromscratch import _torch_private as private
from torchfromscratch.functional.arguments import no_tensor
from torchfromscratch.kernels.execution import is_compiling

__all__ = ["is_causal_bias", "overridable"]

# How parameters that take a tensor are annotated, and what they take.
KINDS: dict[str, Any] = {
    "Tensor": Tensor,
    "Tensor | float": (Tensor, float),
    "Tensor | None": (Tensor, type(None)),
}

# Whether Dynamo answers the question for modes; where it does not, modes are handed the arithmetic inside. Its source
# is read, as to import it takes longer than to import torch.
DYNAMO_VARIABLES = Path(torch.__file__).parent / "_dynamo" / "variables" / "torch.py"
CAN_TRACE_MODES = DYNAMO_VARIABLES.exists() and (
    "@register(torch._C._is_torch_function_mode_enabled)" in DYNAMO_VARIABLES.read_text(encoding="utf-8")
)


def overridable(function: Callable[..., Any], home: str) -> Callable[..., Any]:
    """`function` as a public one of the module `home`, which asks its arguments whether they compute it themselves.

    Raises TypeError, which names the parameter, for an argument that is no tensor where one is needed.
    """
    parameters = inspect.signature(function).parameters.values()
    kinds = {parameter.name: KINDS.get(parameter.annotation, object) for parameter in parameters}
    in_order = tuple(kinds.items())
    has_sequences = any(
        parameter.annotation == "Sequence[Tensor]" or parameter.kind is parameter.VAR_POSITIONAL
        for parameter in parameters
    )

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given: Any = (*args, *kwargs.values()) if kwargs else args
        if has_sequences:
            given = _flat(given)
        wants_to_answer = _wants_to_answer_in_compiler if is_compiling() else has_torch_function
        if wants_to_answer(given):
            given = tuple([value for value in given if not is_causal_bias(value)])
            if wants_to_answer(given):
                return _hand_over(call, given, args, kwargs)
        for (name, kind), value in zip(in_order, args):  # noqa: B905, as torch 2.6 compiles strict=False to True
            if not isinstance(value, kind):
                raise no_tensor(function.__name__, name, value)
        for name, value in kwargs.items():
            if not isinstance(value, kinds.get(name, object)):
                raise no_tensor(function.__name__, name, value)
        return function(*args, **kwargs)

    call.__module__ = home
    return call


def _wants_to_answer_in_compiler(given: tuple) -> bool:
    """has_torch_function, whether a mode or one of the arguments does, where it knows neither modes nor disabling."""
    in_mode = CAN_TRACE_MODES and private.is_torch_function_mode_enabled()
    return in_mode or (private.is_torch_function_enabled() and has_torch_function(given))


def is_causal_bias(value: Any) -> bool:
    """Whether it is a mask of torch.nn.attention.bias: by name, as that module takes longer to import than torch.

    It has no numbers, and its `__torch_function__` knows torch's own attention alone: ours takes it as it is.
    """
    return type(value).__module__ == "torch.nn.attention.bias"


def _flat(given: tuple) -> tuple:
    """The arguments, with what sequences hold in the sequences' place."""
    flat: list[Any] = []
    for value in given:
        flat += value if isinstance(value, (tuple, list)) else [value]
    return tuple(flat)


def _hand_over(function: Callable[..., Any], given: tuple, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What a mode or the arguments answer to `function` or, where they know nothing of it, to torch's of its name."""
    refusals = []
    for known in (function, _torchs(function.__name__)):
        try:
            return handle_torch_function(known, given, *args, **kwargs)
        except TypeError as error:
            if not str(error).startswith("no implementation found for"):
                raise
            refusals.append(error)
    raise refusals[0]


def _torchs(name: str) -> Callable[..., Any]:
    """The function that torch.nn's modules call where ours call the one of this name."""
    library = torch if name in ("sigmoid", "tanh") or not hasattr(torch.nn.functional, name) else torch.nn.functional
    return getattr(library, name)

"""PyTorch's own wrong inputs, of OpInfo and ModuleInfo: errors of its types, with the words that people search for."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

import torchfromscratch
from tests import lacks
from torchfromscratch import functional as F
from torchfromscratch import nn

# What torch says there tells a user nothing, or what older versions say in other words.
UNSAID = (
    "internal error",
    "lambda must be greater or equal to 0, but found to be -0.5",
    r"inconsistent target size, expected 5 but got \[5, 4\]",
)

OPERATORS = {
    f"{op.name} {op.variant_test_name}".strip(): op
    for op in op_db
    if op.error_inputs_func is not None and hasattr(F, op.name.removeprefix("nn.functional."))
}
MODULES = {
    info.module_cls.__name__: info
    for info in module_db
    if info.module_error_inputs_func is not None
    and getattr(nn, info.module_cls.__name__, torch.nn.Module).__module__.startswith("torchfromscratch")
}


def error_of(call: Callable[[], Any]) -> Exception | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except Exception as error:
        return error
    return None


def assert_says_as_much(ours: Exception | None, theirs: Exception | None, words: str | None) -> None:
    """The same type, and what PyTorch's test looks for in the message; nothing where torch itself takes the input."""
    if theirs is None:
        return
    assert type(ours) is type(theirs)
    if words not in UNSAID:
        assert re.search(words or "", str(ours)), f"{words!r} is not in {str(ours)!r}"


@pytest.mark.parametrize("name", OPERATORS)
def test_functions(name: str) -> None:
    op = OPERATORS[name]
    for wrong in op.error_inputs(torch.device("cpu")):
        sample = wrong.sample_input

        def call(sample: Any = sample) -> Any:
            return op.op(sample.input, *sample.args, **sample.kwargs)

        theirs = error_of(call)
        with torchfromscratch.from_scratch():
            assert_says_as_much(error_of(call), theirs, wrong.error_regex)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str, training: bool) -> None:
    if name.startswith("BatchNorm") and not training and (reason := lacks.batch_norm_in_evaluation_with_eps_0()):
        pytest.skip(reason)
    info = MODULES[name]
    wrongs = info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
    )
    for wrong in wrongs:
        given, forward = wrong.module_error_input.constructor_input, wrong.module_error_input.forward_input

        def call(library: Any, given: Any = given, forward: Any = forward, on: Any = wrong.error_on) -> Any:
            module = getattr(library, name)(*given.args, **given.kwargs).train(training)
            return module if on == ModuleErrorEnum.CONSTRUCTION_ERROR else module(*forward.args, **forward.kwargs)

        assert_says_as_much(
            error_of(lambda call=call: call(nn)), error_of(lambda call=call: call(torch.nn)), wrong.error_regex
        )

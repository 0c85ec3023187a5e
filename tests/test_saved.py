"""What a layer keeps for its backward pass: what torch.nn's keeps, or less, whichever of its arguments need gradients.

What is kept decides how much memory training takes, which in-place operations beside a layer autograd lets pass, and
whether a backward pass may run twice.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import torchfromscratch
from tests import subjects as harness
from tests.subjects import Function, Subject, assert_equal, cotangent, repeatable, tensors_of

# By the beginnings of the cases' names: why more memory is kept than torch.nn's layer keeps
MORE_MEMORY: dict[str, str] = {}

# and why another argument is kept, which then must not be changed in place
OTHER_ARGUMENTS: dict[str, str] = {}


@pytest.fixture(params=harness.subjects(), ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    return request.param


class Kept(NamedTuple):
    """What is saved by a forward pass."""

    bytes: int
    arguments: set[int]
    outputs: set[int]


def kept(function: Function, arguments: Sequence[Tensor]) -> Kept:
    """Bytes are those of all storages: a saved view keeps the whole of what it views."""
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        outputs = tensors_of(repeatable(function)(*arguments))
    bytes_of = {address(tensor): tensor.untyped_storage().nbytes() for tensor in saved}

    def among(tensors: Sequence[Tensor]) -> set[int]:
        return {number for number, tensor in enumerate(tensors) if address(tensor) in bytes_of}

    return Kept(sum(bytes_of.values()), among(arguments), among(outputs))


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def subsets(count: int) -> Iterator[tuple[int, ...]]:
    """Which of `count` arguments require gradients: all subsets of a few; of many all, one, and all but one."""
    every = range(count)
    if count <= 4:
        return itertools.chain(*[itertools.combinations(every, size) for size in every], [tuple(every)])
    return itertools.chain([(n,) for n in every], [(*every[:n], *every[n + 1 :]) for n in every], [tuple(every)])


def with_gradients_for(subject: Subject, requiring: Sequence[int]) -> list[Tensor]:
    return [tensor.requires_grad_(number in requiring) for number, tensor in enumerate(subject.inputs())]


def reason(table: dict[str, str], subject: Subject) -> str | None:
    return next((why for name, why in table.items() if subject.name.startswith(name)), None)


def test_keeps_what_torch_keeps_or_less(subject: Subject) -> None:
    """For each subset of the arguments that require gradients."""
    larger, others = [], []
    for requiring in subsets(len(subject.inputs())):
        arguments = with_gradients_for(subject, requiring)
        ours, theirs = kept(subject.ours, arguments), kept(subject.theirs, arguments)
        if ours.bytes > theirs.bytes:
            larger.append((requiring, ours.bytes, theirs.bytes))
        if not (ours.arguments <= theirs.arguments and ours.outputs <= theirs.outputs):
            others.append((requiring, ours, theirs))
    for found, table in ((larger, MORE_MEMORY), (others, OTHER_ARGUMENTS)):
        assert bool(found) == (reason(table, subject) is not None), found  # a reason that is none any more is deleted


def gradients(outputs: Sequence[Tensor], arguments: Sequence[Tensor]) -> list[Tensor]:
    differentiable = [output for output in outputs if output.requires_grad]
    return list(torch.autograd.grad(differentiable, arguments, map(cotangent, differentiable), materialize_grads=True))


def changed_argument(number: int) -> Callable[..., list[Tensor]]:
    def program(outputs: list[Tensor], arguments: list[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            arguments[number].mul_(0.5)
        return gradients(outputs, arguments)

    return program


def changed_output(number: int) -> Callable[..., list[Tensor]]:
    def program(outputs: list[Tensor], arguments: list[Tensor]) -> list[Tensor]:
        outputs[number].mul_(2)
        return gradients(outputs, arguments)

    return program


def detached_output(number: int) -> Callable[..., list[Tensor]]:
    return lambda outputs, arguments: [outputs[number].detach_()]


def twice(outputs: list[Tensor], arguments: list[Tensor]) -> list[Tensor]:
    gradients(outputs, arguments)
    return gradients(outputs, arguments)


def outcome(program: Callable[..., list[Tensor]], function: Function, subject: Subject) -> list[Tensor] | None:
    """What a program between the forward and the backward pass finds, None if it raises."""
    arguments = subject.inputs()
    outputs = tensors_of(repeatable(function)(*arguments))
    try:
        return program(outputs, arguments)
    except RuntimeError:
        return None


def test_lets_pass_in_place_what_torch_lets_pass(subject: Subject) -> None:
    """A changed argument or output, a detached output, a second backward pass: the same result, or the right one."""
    arguments = subject.inputs()
    outputs = tensors_of(repeatable(subject.theirs)(*arguments))
    right = gradients(outputs, arguments)
    programs: list[tuple[Any, list[Tensor] | None]] = [(twice, right)]
    if reason(OTHER_ARGUMENTS, subject) is None:
        programs += [(changed_argument(number), right) for number in range(len(arguments))]
    for number, output in enumerate(outputs):
        if output.is_floating_point():
            programs += [(changed_output(number), None), (detached_output(number), None)]
    for program, expected in programs:
        theirs, ours = outcome(program, subject.theirs, subject), outcome(program, subject.ours, subject)
        assert theirs is None or ours is not None, program.__qualname__
        expected = expected if theirs is None else theirs
        if ours is not None and expected is not None:
            assert_equal(ours, expected, subject.precision)
